"""Decisions from a table (CSV) that somebody filled in by hand or by another program."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fast.review.decisions import Decision
from ldm.errors import UserError

WORDS = {
    "accepted": "accepted", "accept": "accepted", "ok": "accepted", "rejected": "rejected", "reject": "rejected",
    "undecided": "undecided",
}  # fmt: skip


def read_table(path: Path, rows: Sequence[dict[str, Any]]) -> dict[int, Decision]:
    """Decisions of a CSV with the columns `index` or `file`, `decision` and, if it likes, `reason`, by number.

    `rows`: records of the manifest. `file` is an image's name, `000012.png`, alone or with folders. `accept` and
    `reject` mean what they say. Raises `UserError` for the first line that means no pair or no decision, or decides
    about a pair a second time; then nothing counts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write the mark
    except OSError as error:
        raise UserError(f"--decisions {path}: cannot read it ({error.strerror}); give a CSV file") from None
    except UnicodeDecodeError:
        raise UserError(f"--decisions {path} is no text in UTF-8; save it as CSV UTF-8") from None
    try:
        return _read(path, text, rows)
    except csv.Error as error:
        raise UserError(f"--decisions {path} is no CSV ({error}); save it as CSV UTF-8") from None


def _read(path: Path, text: str, rows: Sequence[dict[str, Any]]) -> dict[int, Decision]:
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = ";" if head.count(";") > head.count(",") else ","  # as spreadsheets of many countries write it
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    key = next((name for name in ("index", "file") if name in names), None)
    if key is None or "decision" not in names:
        raise UserError(f"--decisions {path} needs the columns index (or file), decision and, if you like, reason; "
                        f"it has {', '.join(names) or 'none'}")  # fmt: skip
    files = {PurePosixPath(row["image"]).name: int(row["index"]) for row in rows}
    numbers = files if key == "file" else {str(row["index"]): int(row["index"]) for row in rows}
    found: dict[int, Decision] = {}
    for cells in reader:
        place = f"--decisions {path}, line {reader.line_num}"
        value = (cells[names[key]] or "").strip()
        index = numbers.get(_name(value, key))
        if index is None:
            raise UserError(f"{place}: {key} {value!r} is no pair of this folder; see its manifest.jsonl")
        if cells.get(None):  # type: ignore[call-overload]
            raise UserError(f"{place} has more cells than the table has columns; quote what holds a {delimiter!r}")
        other = (cells[names["file"]] or "").strip() if key == "index" and "file" in names else ""
        if other and files.get(PurePosixPath(other).name) != index:
            raise UserError(f"{place}: index {value} and file {other!r} are two pairs; drop one column")
        if index in found:
            raise UserError(f"{place}: pair {index} is decided a second time; leave one of the two out")
        word = (cells[names["decision"]] or "").strip().lower()
        if word not in WORDS:
            raise UserError(f"{place}: {word!r} is no decision; use accepted, rejected or undecided")
        reason = (cells[names["reason"]] or "").strip() if "reason" in names else ""
        found[index] = Decision(WORDS[word], reason)
    return found


def _name(value: str, key: str) -> str:
    if key == "file":
        return PurePosixPath(value.replace("\\", "/")).name
    return str(int(value)) if value.isdecimal() else value
