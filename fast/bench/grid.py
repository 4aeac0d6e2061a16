"""A grid of cells, each a folder that is done once: resumable, and shared by any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fast.data.images import write_bytes
from fast.runtime.command import write_failure
from fast.runtime.locks import locked
from fast.runtime.workers import cores
from ldm.errors import UserError

POLL = 5.0  # seconds between looks at what other processes are doing
DONE = "cell.json"


@dataclass(frozen=True, eq=False)
class Cell:
    """One piece of work. `key`: all that decides what comes out of it, plain values; together with the keys of the
    cells that it `needs` it makes the folder's name, so that equal work of two protocols is one cell. `use`: what
    the work needs to know beside, such as paths. `place`: the folder for cells of this kind."""

    kind: str
    name: str
    key: dict[str, Any]
    place: Path
    needs: tuple[Cell, ...] = ()
    use: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        content = {"kind": self.kind, "key": self.key, "needs": [cell.digest for cell in self.needs]}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.place / f"{self.name}-{self.digest[:10]}"

    @property
    def done(self) -> bool:
        return (self.folder / DONE).is_file()

    def result(self) -> dict[str, Any]:
        """What its work returned. Raises `UserError` for a file that is damaged."""
        return dict(self._read("result"))

    @property
    def seconds(self) -> float:
        """Wall time of its work; 0 for a cell that is not done."""
        return float(self._read("seconds")) if self.done else 0.0

    def _read(self, name: str) -> Any:
        file = self.folder / DONE
        try:
            return json.loads(file.read_text(encoding="utf-8"))[name]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error!r}); delete it, and the cell is done again") from None

    def finish(self, result: dict[str, Any], seconds: float) -> None:
        """The manifest, written last: what has one is complete."""
        about = {
            "kind": self.kind,
            "name": self.name,
            "digest": self.digest,
            "key": self.key,
            "needs": [str(cell.folder.name) for cell in self.needs],
            "machine": {"host": socket.gethostname(), "cores": cores()},
            "seconds": round(seconds, 1),
            "result": result,
        }
        write_bytes(self.folder / DONE, (json.dumps(about, indent=1) + "\n").encode())


@contextmanager
def claimed(cell: Cell) -> Iterator[bool]:
    """Whether this process may do the cell; nobody else may as long as it lasts."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with locked(cell.folder / ".lock") as file:
        if file is not None:
            os.set_inheritable(file.fileno(), True)  # a program that outlives this process still holds its cell
        yield file is not None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in this folder's critical section."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", wait=True):
        yield


@dataclass
class Grid:
    """Cells in an order in which each comes after those it needs. `work(cell)` does one and returns its result."""

    cells: Sequence[Cell]
    work: Callable[[Cell], dict[str, Any]]
    say: Callable[[str], None] = print
    wait: Callable[[float], None] = time.sleep

    def run(self) -> dict[str, str]:
        """Work until every cell is done or cannot be; returns what failed, folder name -> the error's line.

        A cell that fails does not end the others: a night's work is not lost to one bad input.
        """
        failed: dict[str, str] = {}
        while True:
            progress, busy = False, []
            for cell in self.cells:
                if cell.done or self._hopeless(cell, failed):
                    continue
                if not all(need.done for need in cell.needs):
                    busy.append(cell)
                    continue
                with claimed(cell) as mine:
                    if not mine:
                        busy.append(cell)
                    elif not cell.done:
                        self._do(cell, failed)
                        progress = True
            if not busy:
                return failed
            if not progress:
                self.wait(POLL)

    def _hopeless(self, cell: Cell, failed: dict[str, str]) -> bool:
        if any(need.folder.name in failed for need in cell.needs):
            failed.setdefault(cell.folder.name, "what it needs has failed")
        return cell.folder.name in failed

    def _do(self, cell: Cell, failed: dict[str, str]) -> None:
        left = sum(not c.done for c in self.cells)
        self.say(f"[{len(self.cells) - left + 1}/{len(self.cells)}] {cell.kind} {cell.folder.name}")
        start = time.perf_counter()
        try:
            cell.finish(self.work(cell), time.perf_counter() - start)
        except Exception as error:  # a bug or a full GPU in one cell must not end the others either
            failed[cell.folder.name] = self._why(cell, error)
            self.say(f"failed: {cell.folder.name}: {failed[cell.folder.name]}")

    @staticmethod
    def _why(cell: Cell, error: Exception) -> str:
        if isinstance(error, UserError):
            return str(error)
        reason = write_failure(error)
        if reason:  # a full disk fails every cell
            raise error
        log = cell.folder / "error.txt"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return f"{type(error).__name__}: {error} (all of it in {log})"
