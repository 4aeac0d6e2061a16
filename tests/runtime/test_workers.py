"""Work ahead in threads: everything comes once, never too much is under way, errors and the end are clean."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import fast.runtime.workers
from fast.runtime.workers import overlapped

PATIENCE = 60  # seconds that a broken program waits before its test fails


def square(x: int) -> int:
    return x * x


class Workers:
    """Remembers who worked."""

    def __init__(self) -> None:
        self.threads: set[threading.Thread] = set()
        self.begun: list[int] = []

    def __call__(self, x: int) -> int:
        self.threads.add(threading.current_thread())
        self.begun.append(x)
        return 12 // x

    def ended(self) -> bool:
        return bool(self.threads) and not any(t.is_alive() for t in self.threads)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (1, 5), (3, 2), (2, 7), (4, 100)])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_every_result_comes_once(workers: int, ahead: int, count: int) -> None:
    assert sorted(overlapped(square, range(count), workers, ahead)) == [x * x for x in range(count)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (3, 2), (2, 6)])
def test_no_more_than_ahead_are_under_way(workers: int, ahead: int) -> None:
    pulled = taken = most = 0

    def items() -> Iterator[int]:
        nonlocal pulled, most
        for x in range(30):
            pulled += 1
            most = max(most, pulled - taken)
            yield x

    for _ in overlapped(square, items(), workers, ahead):
        taken += 1
    assert taken == 30
    assert most == ahead


def test_nothing_begins_before_the_first_is_asked_for() -> None:
    begun: list[int] = []
    results = overlapped(begun.append, [1, 2, 3], 2, 2)
    assert begun == []
    results.close()
    assert begun == []


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(3)
    assert len(list(overlapped(lambda _: together.wait(PATIENCE), range(6), 3, 3))) == 6


def test_a_late_item_may_come_before_an_early_one() -> None:
    later = threading.Event()

    def work(x: int) -> int:
        later.set() if x else later.wait(PATIENCE)
        return x

    assert sorted(overlapped(work, [0, 1], 2, 2)) == [0, 1]


def test_an_error_of_the_items_comes_out_once_the_running_work_has_ended() -> None:
    work = Workers()

    def items() -> Iterator[int]:
        yield from (1, 2)
        raise KeyError("no third")

    with pytest.raises(KeyError, match="no third"):
        list(overlapped(work, items(), 2, 5))
    assert not any(t.is_alive() for t in work.threads)


def test_an_error_of_the_work_comes_out_and_ends_it() -> None:
    work = Workers()
    with pytest.raises(ZeroDivisionError):
        list(overlapped(work, [3, 2, 1, 0, *range(1, 1000)], 1, 2))
    assert work.begun[:4] == [3, 2, 1, 0]
    assert len(work.begun) <= 6
    assert work.ended()


def test_closing_waits_for_what_runs_and_drops_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    begun, closing = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        """Lets the running work go on only once the rest has been dropped."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closing.set()
            super().shutdown(wait=wait)

    def work(x: int) -> None:
        if x == 1:
            begun.set()
            assert closing.wait(PATIENCE)
        done.append(x)

    monkeypatch.setattr(fast.runtime.workers, "ThreadPoolExecutor", Pool)
    results = overlapped(work, range(9), 1, 4)
    next(results)
    assert begun.wait(PATIENCE)
    results.close()
    assert done == [0, 1]


def test_leaving_the_loop_early_ends_all_threads() -> None:
    work = Workers()
    results = overlapped(work, range(1, 100), 3, 6)
    next(results)
    results.close()
    assert work.ended()
    assert len(work.begun) <= 12
    assert list(results) == []


def test_each_thread_is_prepared_before_its_work() -> None:
    prepared: Counter[int] = Counter()
    barrier = threading.Barrier(2)

    def prepare() -> None:
        prepared[threading.get_ident()] += 1

    def work(_: int) -> int:
        barrier.wait(PATIENCE)  # so that both threads are used
        assert prepared[threading.get_ident()] == 1
        return threading.get_ident()

    used = set(overlapped(work, range(8), 2, 2, prepare))
    assert len(used) == 2
    assert prepared == Counter(used)
