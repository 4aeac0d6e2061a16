"""Records of pairs on disk, a line of JSON each: found, read and written one by one, however many there are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fast.review.decisions import rejected as rejected_pairs
from fast.runtime.folders import new_file, parse_json
from ldm.errors import UserError


class Place(NamedTuple):
    """Where a record stands: a file and the byte that its line begins at. `rejected`: whether its pair is."""

    file: Path
    offset: int
    rejected: bool


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(the byte it begins at, text) of each line of a file that is not empty. Raises `ValueError` for what is no text;
    a file that is not there has none."""
    if not path.is_file():
        return
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                yield offset, line.decode()
            offset += len(line)


def texts_at(places: Iterable[Place]) -> Iterator[str]:
    """The lines at these places, in this order, without their ends; a file is opened once while it serves several."""
    path, file = None, None
    try:
        for place in places:
            if path != place.file:
                if file is not None:
                    file.close()
                path, file = place.file, open(place.file, "rb")  # noqa: SIM115 (kept over several turns)
            assert file is not None
            file.seek(place.offset)
            yield file.readline().decode().rstrip("\n")
    finally:
        if file is not None:
            file.close()


def numbers_in(folder: Path) -> frozenset[int]:
    """Numbers of the PNG files in a folder that are called by one."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name.endswith(".png") and e.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return frozenset(int(name[:-4]) for name in names if name[:-4].isdecimal() and name == f"{int(name[:-4]):06d}.png")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A file of these lines; whole or not at all. Raises `UserError`."""
    with new_file(path) as file:
        for line in lines:
            file.write(f"{line}\n".encode())


def read_lines(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text, record) of each line of a synthesis output's manifest, whose files lie in its folder. Raises
    `UserError`."""
    manifest = output / "manifest.jsonl"
    if not manifest.is_file():
        raise UserError(f"{output} has no manifest.jsonl; give an output folder of generate_with_mask.py")
    number = 0
    try:
        for number, (_, text) in enumerate(lines_of(manifest), 1):
            row = dict(parse_json(text))
            _check_names(manifest, number, row)
            yield text.rstrip("\n"), row
    except (ValueError, TypeError) as error:
        raise UserError(f"{manifest} is damaged ({error}); restore it or synthesize again") from None


def _check_names(manifest: Path, number: int, row: dict[str, Any]) -> None:
    for key in {"image", "mask"} & row.keys():
        name = row[key]
        if not isinstance(name, str) or not name or "\0" in name or not _inside(name):
            raise UserError(
                f"{manifest} is damaged (line {number}: {key}={str(name)[:60]!r} names no file in the folder); "
                "restore it or synthesize again"
            )


def _inside(name: str) -> bool:
    """Whether a relative path stays in the folder that it starts from."""
    return not name.startswith("/") and ".." not in name.split("/")


def each_record(output: Path, counterfeits: bool = False, rejected: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of an output's manifest one by one, without those of counterfeits and of pairs that a person has
    rejected (`fast.review`), unless they are asked for. Raises `UserError`."""
    refused = set() if rejected else rejected_pairs(output)
    for _, row in read_lines(output):
        if (counterfeits or not row.get("counterfeit")) and row.get("index") not in refused:
            yield row


def as_line(record: dict[str, Any]) -> str:
    return json.dumps(record)
