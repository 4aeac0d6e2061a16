"""Decisions about the pairs of an output folder: accepted, rejected with a reason, or undecided; each can be undone.

They lie in the folder, in `review.jsonl`: a line for each action, in order. An action decides about some pairs, by
their numbers, or takes an earlier action back. Of what is not taken back, the last word about a pair counts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fast.data.images import write_bytes
from fast.runtime.counts import number_of
from fast.runtime.folders import parse_json
from fast.runtime.locks import locked
from ldm.errors import UserError

FILE = "review.jsonl"
DECISIONS = ("accepted", "rejected", "undecided")
LONGEST = 200  # characters of a reason


@dataclass(frozen=True)
class Decision:
    """What was decided about a pair. `reason`: why it was rejected, perhaps empty."""

    decision: str
    reason: str = ""


@dataclass(frozen=True)
class Action:
    """Decisions made at one time, by the numbers of the pairs."""

    decisions: dict[int, Decision]
    time: str


class Review:
    """The decisions of an output folder. Every method reads the file anew, so that several programs may decide about
    one folder; what is decided is on disk when the method returns, whole or not at all."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / FILE

    def decisions(self) -> dict[int, Decision]:
        """What counts, by the number of the pair; without those that are undecided. Raises `UserError`."""
        found: dict[int, Decision] = {}
        for action in _standing(self._lines(), self.file).values():
            found |= action.decisions
        return {index: d for index, d in found.items() if d.decision != "undecided"}

    def decide(self, decisions: dict[int, Decision]) -> None:
        """One action, which `undo` takes back as a whole. Raises `UserError` for a decision that is none of
        `DECISIONS`, a reason without a rejection, and one too long."""
        if not decisions:
            return
        for index, d in decisions.items():
            _check(index, d)
        rows = [{"index": i, "decision": d.decision, "reason": d.reason} for i, d in sorted(decisions.items())]
        with self._alone() as lines:
            self._write([*lines, {"action": len(lines) + 1, "time": _now(), "decided": rows}])

    def undo(self) -> Action:
        """Take the last action back that still counts, and return it. Raises `UserError` where there is none, or none
        since rejected pairs were made anew."""
        with self._alone() as lines:
            standing = _standing(lines, self.file)
            last = max(standing, default=0)
            if last <= max((int(line["action"]) for line in lines if line.get("final")), default=0):
                raise self._nothing_to_undo(standing)
            self._write([*lines, {"action": len(lines) + 1, "time": _now(), "undone": last}])
        return standing[last]

    def conclude(self) -> None:
        """What is decided so far was acted on: `undo` does not reach behind this. Raises `UserError`."""
        with self._alone() as lines:
            self._write([*lines, {"action": len(lines) + 1, "time": _now(), "final": True}])

    def _nothing_to_undo(self, standing: dict[int, Action]) -> UserError:
        if not standing:
            return UserError(f"{self.folder}: there is no decision to take back")
        return UserError(
            f"{self.folder}: what was decided before rejected pairs were made anew is not taken back; pairs that are "
            "still in the folder can be decided about again"
        )

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.file.read_text(encoding="utf-8")
            return [dict(parse_json(line)) for line in text.splitlines() if line.strip()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, TypeError) as error:
            raise _damaged(self.file, str(error)) from None

    @contextmanager
    def _alone(self) -> Iterator[list[dict[str, Any]]]:
        """The lines, while nobody else writes."""
        try:
            with locked(self.folder / ".review.lock", wait=True):
                yield self._lines()
        except OSError as error:
            raise UserError(f"{self.file}: cannot write ({error.strerror}); check the folder's permissions") from None

    def _write(self, lines: list[dict[str, Any]]) -> None:
        write_bytes(self.file, "".join(json.dumps(line) + "\n" for line in lines).encode())


def rejected(folder: Path) -> set[int]:
    """Numbers of the pairs of a folder that were rejected. Raises `UserError` for damaged decisions."""
    return {index for index, d in Review(folder).decisions().items() if d.decision == "rejected"}


def told(folder: Path, numbers: Collection[int]) -> str:
    """What to say of the rejected pairs among those with these `numbers`; empty where there is none."""
    count = len(rejected(folder) & set(numbers))
    if not count:
        return ""
    be = "is" if count == 1 else "are"
    return f"{count} of {number_of(len(numbers), 'pair')} in {folder} {be} rejected ({FILE}) and left out"


def _check(index: int, decision: Decision) -> None:
    if decision.decision not in DECISIONS:
        raise UserError(f"pair {index}: {decision.decision!r} is no decision; use {', '.join(DECISIONS)}")
    if decision.reason and decision.decision != "rejected":
        raise UserError(f"pair {index} is {decision.decision}, and a reason is for rejected ones; leave it out")
    if len(decision.reason) > LONGEST:
        raise UserError(f"pair {index}: the reason has {len(decision.reason)} characters; write at most {LONGEST}")


def _standing(lines: list[dict[str, Any]], file: Path) -> dict[int, Action]:
    """The actions that are not taken back, by their number."""
    found: dict[int, Action] = {}
    try:
        for line in lines:
            if line.get("final"):
                continue
            if "undone" in line:
                del found[int(line["undone"])]
                continue
            decided = {int(r["index"]): Decision(str(r["decision"]), str(r.get("reason", ""))) for r in line["decided"]}
            for index, decision in decided.items():
                _check(index, decision)
            found[int(line["action"])] = Action(decided, str(line.get("time", "")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(file, repr(error)) from None
    return found


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged ({why}); restore it, or remove it and decide again")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
