"""Numbers that are given out to workers who die: none is lost, none is held by two."""

import random

from fast.runtime.number_queue import MOST_LOSSES, LotQueue, NumberQueue


def test_every_number_is_finished_once_however_workers_die() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        queue, held, finished = NumberQueue(range(100, 240), 3), dict[int, list[int]](), list[int]()
        alive, new = [0, 1, 2], 3
        for _ in range(10_000):
            worker = chance.choice(alive)
            mine = held.setdefault(worker, [])
            if not mine:
                mine += queue.take(worker, chance.choice([1, 4, 9]))
            elif chance.random() < 0.005:
                queue.lose(worker)
                held.pop(worker)
                alive[alive.index(worker)] = new
                new += 1
                continue
            else:
                finished.append(mine.pop(0))
                queue.finish(worker, [finished[-1]])
            in_hands = [n for numbers in held.values() for n in numbers]
            assert len(in_hands) == len(set(in_hands))
            assert queue.state() == (len(finished), 140 - len(finished) - len(in_hands), len(in_hands))
            if queue.state() == (140, 0, 0):
                break
        assert sorted(finished) == list(range(100, 240))


def test_pieces_shrink_towards_the_end_so_that_all_end_together() -> None:
    queue = NumberQueue(range(40), 2)
    sizes = [len(queue.take(i % 2, 8)) for i in range(60)]
    assert sizes[:8] == [8, 8, 6, 5, 4, 3, 2, 1]  # a quarter of what waits, rounded up, at most 8
    assert sum(sizes) == 40


def test_what_was_lost_comes_first_and_is_given_up_in_the_end() -> None:
    queue = NumberQueue(range(20), 1)
    for worker in range(MOST_LOSSES):
        assert queue.take(worker, 2) == [0, 1]
        assert queue.lose(worker) == ([0, 1] if worker == MOST_LOSSES - 1 else [])
    assert queue.take(9, 3) == [0, 1, 2]
    queue.finish(9, [0, 1, 2])
    queue.finish(9, [0])  # told twice
    assert queue.state() == (3, 17, 0)


def test_a_lot_is_made_whole_and_what_a_dead_worker_had_of_it_is_taken_back() -> None:
    queue = LotQueue([0, 3, 6], 2)  # of pairs 0 to 2, 3 to 5, and 6
    assert [queue.take(1, 1), queue.take(2, 1)] == [[0], [3]]
    for worker in (1, 1, 2, 1, 2):
        queue.advance(worker)
    queue.finish(1, [0])
    assert queue.state() == (5, 1, 1)
    assert queue.lose(2) == []
    queue.advance(2)  # said before it died, heard afterwards
    assert queue.state() == (3, 2, 0)
    assert queue.take(1, 1) == [3]
    queue.advance(1)
    queue.lose(1)
    assert queue.state() == (3, 2, 0)  # the lot that was finished stays
    queue.take(3, 1)
    assert queue.lose(3) == [3]
