"""Locks between processes, the operating system's own: they end with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[IO[str] | None]:
    """The lock file `path`, open and held by this process alone; None where another holds it and `wait` is False.

    Other machines see the lock where the file system passes locks on, as NFS does. Raises `OSError` where the file
    cannot be opened.
    """
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))  # not one that was just removed
        except (BlockingIOError, FileNotFoundError):
            same = False
        yield file if same else None
