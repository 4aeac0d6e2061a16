"""Numbers that are given out to workers who die: none is lost, none is held by two."""

import random

from fast.runtime.number_queue import MOST_LOSSES, NumberQueue


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
