"""Records of pairs on disk, a line of JSON each: found, read and written one by one, however many there are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fast.data.reading import MANIFEST
from fast.data.whole import synthesized_again
from fast.review.decisions import rejected as rejected_pairs
from fast.runtime.folders import new_file, parse_json
from fast.synthesis.shard_form import CLASSES, RANGE, complete_shards, shard_parts, without_gaps
from ldm.errors import UserError

ASKED = "mask_asked"  # a file of pairs whose mask is less than what was filled: what changed, or what people would mark
FILES = ("image", "mask", ASKED)  # what a record calls its files by


def filled_with_edge(record: Mapping[str, Any]) -> str | None:
    """The file of where a pair's picture was changed, if its mask leaves a soft edge out; of other masks that were
    asked for, all but the pair's mask may be as it was."""
    return None if "honest" in record or record.get("painted_mask") else record.get(ASKED)


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


def shard_files(output: Path) -> list[Path]:
    """The records of the complete shards in a folder, in order; none in a folder of images and masks."""
    names = _names(output)
    return [] if MANIFEST in names else [output / f"{shard.name}.jsonl" for shard in complete_shards(names)]


def _names(output: Path) -> set[str]:
    """Names of what is in a folder; none where it is not there, or a file: `manifests` says so."""
    try:
        with os.scandir(output) as entries:
            return {entry.name for entry in entries}
    except OSError:
        return set()


def is_output(folder: Path) -> bool:
    """Whether a folder holds pairs that were synthesized: images and masks, or shards."""
    return (folder / MANIFEST).is_file() or bool(shard_files(folder))


def manifests(output: Path) -> list[Path]:
    """The files with the records of a synthesis output: of a folder its manifest, of shards one for each. Raises
    `UserError` for what is none."""
    found = [output / MANIFEST] if (output / MANIFEST).is_file() else shard_files(output)
    if found and found[0].name != MANIFEST:
        _check_shards(output)
    if not found:
        refuse_urls(output)
    if not found and not output.exists():
        raise UserError(f"{output}: no such folder; give an output folder of generate_with_mask.py")
    if not found:
        raise UserError(f"{output} has no {MANIFEST} and no shards; give an output folder of generate_with_mask.py")
    return found


def _check_shards(output: Path) -> None:
    """UserError for records whose pairs are gone."""
    for lost in sorted(shard_parts(_names(output), ".jsonl") - shard_parts(_names(output), ".tar")):
        raise UserError(
            f"{output / lost}.tar is not there, and {lost}.jsonl says that it should be; restore it, or run the "
            "command again, which makes what is missing"
        )


def is_finished(output: Path) -> bool:
    """Whether a synthesis output holds all that its command asked for."""
    if (output / MANIFEST).is_file():
        waiting = output / ".records"
        return not waiting.is_dir() or not any(waiting.iterdir())
    names = _names(output)
    begun = shard_parts(names, ".tar") - shard_parts(names, ".jsonl")
    return CLASSES in names and not begun and without_gaps(complete_shards(names))


def refuse_urls(*outputs: Path) -> None:
    """`UserError` for a URL: reading pairs one by one, in any order, over a network is for nobody."""
    for output in outputs:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(output)) and not output.exists():
            raise UserError(f"{output} is a URL, and pairs are read from a folder; copy all that is there to one")


def refuse_shards(output: Path, what: str) -> None:
    """`UserError` for a folder of shards, where `what` is done to pairs in place."""
    if shard_files(output):
        raise UserError(
            f"{output} holds shards, which stay as they are; make the pairs without --shards, {what} them, and pack "
            "them with scripts/export.py --format webdataset"
        )


def read_lines(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text, record) of each pair of a synthesis output that has files, in order; the record calls them by their paths
    in the folder, those in a shard `pairs-000000-000999.tar/000003.image.png`, as `fast.data.packed` reads them. Raises
    `UserError`."""
    for manifest in manifests(output):
        packed = manifest.name != MANIFEST
        number = 0
        try:
            for number, (_, text) in enumerate(lines_of(manifest), 1):
                row = dict(parse_json(text))
                _check_names(manifest, number, row)
                if packed and row.get("rejected"):
                    continue  # its line is all there is of it
                if packed:
                    row |= {key: f"{manifest.stem}.tar/{row[key]}" for key in FILES if key in row}
                    row["shard"] = f"{manifest.stem}.tar"
                yield text.rstrip("\n"), row
        except (ValueError, TypeError) as error:
            raise damaged(manifest, error) from None
        shard = RANGE.fullmatch(manifest.stem)
        if packed and shard and number != (wanted := int(shard[2]) - int(shard[1]) + 1):
            raise damaged(manifest, f"{number} records of {wanted}")


def damaged(file: Path, why: object) -> UserError:
    """What to say of a file with records, or a shard's tar file, that cannot be used."""
    restore = synthesized_again(file.parent)
    if file.name != MANIFEST:
        restore = "restore it, or remove it and run the set's command again, which makes that shard anew"
    return UserError(f"{file} is damaged ({why}); {restore}")


def file_of(output: Path, record: Mapping[str, Any]) -> Path:
    """The file that a record of an output stands in."""
    return output / (f"{record['shard'].removesuffix('.tar')}.jsonl" if "shard" in record else MANIFEST)


def _check_names(manifest: Path, number: int, row: dict[str, Any]) -> None:
    for key in set(FILES) & row.keys():
        name = row[key]
        if not isinstance(name, str) or not name or "\0" in name or not _inside(name):
            raise damaged(manifest, f"line {number}: {key}={str(name)[:60]!r} names no file in the folder")


def _inside(name: str) -> bool:
    """Whether a relative path stays in the folder that it starts from."""
    return not name.startswith("/") and ".." not in name.split("/")


def each_line(output: Path, counterfeits: bool = False, rejected: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of `read_lines`, without counterfeits and pairs that a person has rejected (`fast.review`), unless they are
    asked for. Raises `UserError`."""
    refused = set() if rejected else rejected_pairs(output)
    for text, row in read_lines(output):
        if (counterfeits or not row.get("counterfeit")) and row.get("index") not in refused:
            yield text, row


def each_record(output: Path, counterfeits: bool = False, rejected: bool = False) -> Iterator[dict[str, Any]]:
    """The records of `each_line` one by one. Raises `UserError`."""
    return (row for _, row in each_line(output, counterfeits, rejected))


def as_line(record: dict[str, Any]) -> str:
    return json.dumps(record)


def read_records(output: Path, counterfeits: bool = False, rejected: bool = False) -> list[dict[str, Any]]:
    """All of `each_record` at once. Raises `UserError`."""
    return list(each_record(output, counterfeits, rejected))


TOLD = ("type", "counterfeit", "honest", "rejected", "draft_by")


def brief_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the end of a run tells of a record."""
    return {key: record[key] for key in TOLD if key in record}
