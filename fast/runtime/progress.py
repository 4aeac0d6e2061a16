"""How far long work is: a bar on a terminal, a line every half a minute elsewhere, such as in a cluster's log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from threading import Event, Thread
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines
Item = TypeVar("Item")


class Progress:
    """`total` pieces of work, each a `unit`, of which `initial` are done; None where nobody knows how many.

    On a terminal a bar on standard error. Elsewhere lines on standard output, every `EVERY` seconds also while one
    piece takes longer than that. `hidden`: neither, for all processes but the first.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        unit: str,
        initial: int = 0,
        hidden: bool = False,
        leave: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.what, self.unit, self.hidden = total, what, unit, hidden
        self.done = self.initial = initial
        self.told = ""
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar: Any = tqdm(
            total=total, initial=initial, desc=what, unit=unit, disable=hidden or not terminal, dynamic_ncols=True,
            leave=leave, mininterval=0.5,
        )  # fmt: skip
        self._clock, self._start, self._ended = clock, clock(), Event()
        if not hidden and not terminal:
            Thread(target=self._watch, daemon=True).start()

    def update(self, count: int = 1, total: int | None = None) -> None:
        """`count` pieces more are done, of `total` if that is known by now."""
        self.done += count
        if total is not None:
            self.total = self.bar.total = total
        self.bar.update(count)

    def to(self, done: int) -> None:
        """`done` pieces are done in all."""
        self.update(done - self.done)

    def note(self, text: str) -> None:
        """A few words behind the numbers, such as the loss."""
        self.told = text
        if not self.bar.disable:
            self.bar.set_postfix_str(text, refresh=False)

    def line(self) -> str:
        """How far the work is, and when it will be done at the rate so far."""
        spent, made = self._clock() - self._start, self.done - self.initial
        words = [f"{self.what}: {self.done}"]
        if self.total is not None:
            words.append(f"of {self.total}")
        text = " ".join([*words, f"{self.unit}{'' if (self.total or self.done) == 1 else 's'}"])
        if self.told:
            text += f", {self.told}"
        if self.total is not None and made > 0:
            return f"{text}, done in about {in_words(spent / made * (self.total - self.done))}"
        return f"{text} after {in_words(spent)}"

    def report(self) -> None:
        if not self.hidden:
            print(self.line(), flush=True)

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.report()

    def close(self) -> None:
        self._ended.set()
        self.bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def followed(items: Iterable[Item], what: str, unit: str, total: int | None = None, **how: Any) -> Iterator[Item]:
    """The items one by one, with a `Progress` of them."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else None
    with Progress(count, what, unit, **how) as progress:
        for item in items:
            yield item
            progress.update()


def in_words(seconds: float) -> str:
    """40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
