"""What all exports share: copied files, JSON, and where each image came from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast.data.made import PROVENANCE
from fast.data.packed import copy_file
from fast.export.pairs import ExportedPair, Run

SHARD = 1000  # pairs in a file of webdataset, where nothing else is said


@dataclass
class Target:
    """A folder to export into. `polygons`: instances as polygons rather than as run-length codes or masks, where the
    format has both; `shard_size`: pairs in a shard; `notes`: what the user should know of the result."""

    folder: Path
    polygons: bool = False
    shard_size: int = SHARD
    notes: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)

    def copy(self, source: Path, place: str) -> str:
        """Copy a file, packed or not, as it is. Returns `place`, its path in the folder."""
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source, target)
        return place

    def text(self, place: str, text: str) -> None:
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def json(self, place: str, content: Any) -> None:
        self.text(place, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def came_from(self, pair: ExportedPair, place: str) -> None:
        """Note that the exported image `place` is this pair's: a line of `provenance.jsonl`."""
        self._lines.append(json.dumps({"file": place, **pair.record}) + "\n")

    def finish(self) -> None:
        self.text(PROVENANCE, "".join(self._lines))


def copy_normals(run: Run, target: Target, place: str) -> int:
    """The normal images that pairs were made from, called by number, into `place`, in which `{category}` stands for
    theirs. Returns how many; a note says if some are gone."""
    count = 0
    for count, (category, path) in enumerate(run.normals(), 1):
        target.copy(path, f"{place.format(category=category)}/normal_{count:06d}{path.suffix.lower()}")
    wanted = {p.record.get("normal_source") for p in run.pairs}
    if count < len(wanted):
        target.notes.append(f"{len(wanted) - count} normal images that pairs were made from are not there any more, or "
                            "were drawn by the method: they are not in the export")  # fmt: skip
    return count
