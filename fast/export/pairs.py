"""Image-mask pairs of a finished run, as exports take them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.decode import image_size
from fast.data.formats.outlines import parts
from fast.data.images import natural_key, read_mask
from fast.data.packed import is_packed
from fast.data.whole import check_made, synthesized_again
from fast.runtime.folders import parse_json
from fast.synthesis.records import damaged, each_line, file_of, is_finished, manifests
from ldm.errors import UserError


@dataclass(frozen=True)
class Instance:
    """A part of a mask that touches no other, not with a corner either: `box` (rows, columns) in the image, and `mask`
    (h,w) uint8 in {0,1} there."""

    box: tuple[slice, slice]
    mask: np.ndarray

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        rows, columns = self.box
        return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


@dataclass
class ExportedPair:
    """One pair: its files, defect type, and `line` of the manifest, as text, for a hundred thousand parsed ones take
    gigabytes. `name`: what its files are called in an export."""

    image: Path
    mask: Path
    category: str
    defect_type: str
    line: str

    @property
    def record(self) -> dict[str, Any]:
        return dict(parse_json(self.line))

    @property
    def name(self) -> str:
        return self.image.name.partition(".")[0] if is_packed(self.image) else self.image.stem

    @property
    def file(self) -> str:
        return self.name + self.image.suffix

    @property
    def label(self) -> str:
        """The type with its category, `leather/crack`; the type alone where there is no category."""
        return f"{self.category}/{self.defect_type}" if self.category else self.defect_type

    @cached_property
    def size(self) -> tuple[int, int]:
        """(H,W)."""
        return image_size(self.image)

    def read_mask(self) -> np.ndarray:
        """(H,W) uint8 in {0,1}. UserError when it does not fit its image or holds no defect."""
        mask = read_mask(self.mask)
        if mask.shape != self.size or not mask.any():
            what = "is empty" if mask.shape == self.size else f"has the size {mask.shape}, its image {self.size}"
            raise UserError(f"{self.mask}: the mask {what}; synthesize the pair again")
        return mask

    def instances(self) -> list[Instance]:
        return [Instance(box, mask) for box, mask in parts(self.read_mask())]


@dataclass(frozen=True)
class Run:
    """A finished run: its pairs in order, and the normal images that they were made from, as far as they are there."""

    folder: Path
    pairs: list[ExportedPair]
    counterfeits: int = 0  # how many there are, which are left out: for segmenters of this project

    @cached_property
    def categories(self) -> list[str]:
        return sorted({pair.category for pair in self.pairs}, key=natural_key)

    def classes(self) -> list[str]:
        """Names of the defect types, sorted; with their category where there is more than one."""
        return sorted({self.class_of(pair) for pair in self.pairs}, key=natural_key)

    def class_of(self, pair: ExportedPair) -> str:
        return pair.label if len(self.categories) > 1 else pair.defect_type

    def normals(self) -> Iterator[tuple[str, Path]]:
        """(category, file) of each normal image that a pair was made from, once, if it is still there."""
        found = {(p.category, Path(source)) for p in self.pairs if (source := p.record.get("normal_source"))}
        yield from ((category, path) for category, path in sorted(found) if path.is_file())


def read_run(folder: Path) -> Run:
    """The pairs of a finished run, in folders or in shards, without those that a person has rejected. UserError for a
    folder that is none, is not finished, or lacks a file."""
    manifests(folder)  # says what is no output
    if not is_finished(folder):
        raise UserError(f"{folder}: the run is not finished; run its command again, which goes on where it stopped")
    pairs, counterfeits = [], 0
    for line, row in each_line(folder, counterfeits=True):
        if row.get("counterfeit"):
            counterfeits += 1
        else:
            pairs.append(_pair(folder, line, row))
    if not pairs:
        raise UserError(f"{folder}: holds no pair; synthesize some")
    check_made(pair.image for pair in pairs)  # which are copied as they are; masks are decoded
    times = Counter(pair.name for pair in pairs)
    if len(times) < len(pairs):
        twice = next(name for name, count in times.items() if count > 1)
        raise UserError(f"{folder}: its manifest names the image {twice} twice; {synthesized_again(folder)}")
    return Run(folder, pairs, counterfeits)


def _pair(folder: Path, line: str, record: dict[str, Any]) -> ExportedPair:
    label, manifest = record.get("type"), file_of(folder, record)
    if not isinstance(label, str) or not label or not {"image", "mask"} <= record.keys():
        raise damaged(manifest, "a line without image, mask or type")
    category, _, defect_type = label.rpartition("/")
    for kind in (category, defect_type):
        if kind.startswith(".") or re.search(r'[/\\:*?"<>|\x00-\x1f]', kind) or (kind is defect_type and not kind):
            raise damaged(manifest, f"type {label!r} names no folder")
    pair = ExportedPair(folder / record["image"], folder / record["mask"], category, defect_type, line)
    for path in (pair.image, pair.mask):
        if not is_packed(path) and not path.is_file():  # a shard is there whole or not at all
            raise UserError(f"{path}: the manifest names it, and it is not there; run the command again, which makes "
                            "what is missing")  # fmt: skip
    return pair
