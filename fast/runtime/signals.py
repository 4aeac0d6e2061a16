"""Ctrl-C and SIGTERM from a command's first line on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = "interrupted; run the same command again to go on"
PATIENCE = 1.0  # seconds in which a second signal counts as the first (a launcher sends several)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM a `KeyboardInterrupt`, as Ctrl-C is.

    A signal that comes during an import ends the process at once, in one line and with exit code 2: an exception there
    would pass through C++ libraries, which abort, and nothing has been written yet. So does one that comes while the
    first is being handled, for somebody who has waited long enough. A SIGINT that the parent had ignored stays so.
    """
    try:
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            if before[number] != signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, _Handler())
    except ValueError:  # not in the main thread, where signals arrive
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def handled_by(handle: Callable[[int], None]) -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM call `handle` with their number, and nothing else happens."""
    before = {number: signal.signal(number, lambda n, _: handle(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(name: str) -> None:
    """For a command's first lines, before its slow imports: `listen(__name__)` takes the signals where the file is
    the program itself."""
    if name == "__main__":
        for number in _SIGNALS:
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: leave())


class _Handler:
    def __init__(self) -> None:
        self.came: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if importing(frame) or (self.came is not None and now - self.came > PATIENCE):
            leave()
        if self.came is None:
            self.came = now
            raise KeyboardInterrupt


def importing(frame: FrameType | None) -> bool:
    """Whether `frame` is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def leave() -> None:
    """End the process here and now, with the line that an interrupted command ends with."""
    try:
        if is_first_process():
            os.write(2, f"{INTERRUPTED}\n".encode())
    finally:
        os._exit(2)


def is_first_process() -> bool:
    """True unless a launcher started this process beside the first one."""
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
