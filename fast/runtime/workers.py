"""Work in threads, ahead of whoever takes the results."""

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_workers(most: int) -> int:
    """Threads that this process may keep busy, up to `most`: its share of the cores where several share the machine."""
    return max(1, min(most, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def overlapped(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int,
    initializer: Callable[[], object] | None = None,
) -> Generator[Result, None, None]:
    """`work(item)` for every item, in `workers` threads, as the results come; at most `ahead` items are under way.

    An error of `items` or `work` is raised here, once what is running has ended; closing the generator waits for that
    too.
    """
    waiting, pending = iter(items), set[Future[Result]]()
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    try:
        while True:
            pending.update(pool.submit(work, item) for item in islice(waiting, ahead - len(pending)))
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
