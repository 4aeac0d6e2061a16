"""Numbers of pieces of work, given out to workers any of which may die."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

MOST_LOSSES = 3  # workers that a piece of work may cost before it is given up


class NumberQueue:
    """Gives each number to one worker at a time until it is finished; what a worker held when it died is given out
    again, first.

    The pieces become smaller towards the end (guided self-scheduling, Polychronopoulos and Kuck 1987), so that no
    worker is left alone with many. `workers`: how many share the numbers.
    """

    def __init__(self, numbers: Iterable[int], workers: int):
        self.workers = workers
        self.done = 0
        self._waiting = deque(numbers)
        self._taken: dict[int, set[int]] = {}
        self._losses: Counter[int] = Counter()

    def take(self, worker: int, most: int) -> list[int]:
        """The next numbers for a worker, at most `most`; empty when there are none at the moment."""
        share = -(-len(self._waiting) // (2 * self.workers))
        numbers = [self._waiting.popleft() for _ in range(min(most, share))]
        self._taken.setdefault(worker, set()).update(numbers)
        return numbers

    def finish(self, worker: int, numbers: Sequence[int]) -> None:
        """A worker has finished some of its numbers."""
        held = self._taken.get(worker, set())
        self.done += len(held & set(numbers))
        held.difference_update(numbers)

    def lose(self, worker: int) -> list[int]:
        """A worker is gone: its numbers wait again. Returns those that have been lost `MOST_LOSSES` times."""
        lost = sorted(self._taken.pop(worker, set()))
        self._waiting.extendleft(reversed(lost))
        self._losses.update(lost)
        return [n for n in lost if self._losses[n] >= MOST_LOSSES]

    def state(self) -> tuple[int, int, int]:
        """How many numbers are (finished, waiting, in the workers' hands)."""
        return self.done, len(self._waiting), sum(map(len, self._taken.values()))


class LotQueue(NumberQueue):
    """As `NumberQueue`, of numbers that stand for lots: a lot's pieces are made by one worker, one after another, and
    count once all of them are there. `done` and `state` tell finished pieces, those of a lot under way among them;
    what a dead worker had of one is taken back."""

    def __init__(self, numbers: Iterable[int], workers: int):
        super().__init__(numbers, workers)
        self._begun: Counter[int] = Counter()

    def advance(self, worker: int) -> None:
        """A worker has made a piece of the lot that it holds."""
        if self._taken.get(worker):  # else it was taken for dead
            self.done += 1
            self._begun[worker] += 1

    def finish(self, worker: int, numbers: Sequence[int]) -> None:
        """A worker's lots are whole."""
        self._taken.get(worker, set()).difference_update(numbers)
        del self._begun[worker]

    def lose(self, worker: int) -> list[int]:
        """A worker is gone: its lot waits again, whole. Returns those that have been lost `MOST_LOSSES` times."""
        self.done -= self._begun.pop(worker, 0)
        return super().lose(worker)
