"""Files of a dataset that are copies of each other: what they are not, and that they show one physical part."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fast.data.content import Copies
from fast.data.groups import GROUPS
from fast.data.index import DatasetIndex, Sample
from fast.runtime.counts import number_of

# MVTec AD 2 names a part's pictures in several lights so; they must not be divided.
LIGHT = re.compile(
    r"(?<=test_public)(/[^/]+/.*)_(regular|overexposed|underexposed|shift_[0-9]+)[.][a-z]+$", re.IGNORECASE
)


def own_part(name: str) -> str:
    """The physical part of an image of which nothing says more than its name, relative to the dataset."""
    return LIGHT.sub(r"\1", name)


def settle_copies(index: DatasetIndex) -> None:
    """Leave out, with a problem line, normals that are copies of a defect's image: they show a defect. Copies among the
    images of defects become one part, so that no split divides them; where they are listed as different parts, that is
    a doubt and stays so."""
    found: dict[Path, Path] = {}
    names: dict[tuple[str, str], str] = {}
    for category in sorted({s.category for s in index.defects}):
        defects = {s.image: s for s in index.defects if s.category == category}
        copies = Copies(defects)
        normals = [*index.normals, *index.test_normals]
        found |= copies.among(s.image for s in normals if s.category == category)
        pairs = [(defects[first], defects[copy]) for copy, first in copies.repeated().items()]
        parts, joined = _one_part(index, pairs)
        names |= {(category, part): name for part, name in parts.items()}
        if joined:
            one, other = (index.relative(s.image) for s in joined[0])
            copy = number_of(len(joined), "image of a defect is a copy", "images of defects are copies")
            which = f"{other} of {one}{' the first' if len(joined) > 1 else ''}"
            index.notes.append(f"{copy} of another ({which}): both are one part; delete what is there twice by mistake")
    index.defects[:] = [replace(s, group=names.get((s.category, s.group), s.group)) for s in index.defects]
    for path, twin in found.items():
        index.problems.append(f"{index.relative(path)}: a copy of {index.relative(twin)}, no normal; delete one")
        index.seen.add(path)
    for samples in (index.normals, index.test_normals):
        samples[:] = [replace(s, group=names.get((s.category, s.group), s.group)) for s in samples
                      if s.image not in found]  # fmt: skip


def _one_part(
    index: DatasetIndex, pairs: list[tuple[Sample, Sample]]
) -> tuple[dict[str, str], list[tuple[Sample, Sample]]]:
    """The new name of each part that gets one, since images of it are copies of another's, and the pairs that say so.
    Of two names one that was given (by groups.csv or the layout) stays; two that were given both do, with a doubt."""
    above: dict[str, str] = {}

    def now(part: str) -> str:
        while part in above:
            part = above[part]
        return part

    given = {s.group for pair in pairs for s in pair if s.group != own_part(index.relative(s.image))}
    joined = []
    for first, copy in pairs:
        one, other = now(first.group), now(copy.group)
        if one == other:
            continue
        if {one, other} <= given:
            a, b = (index.relative(s.image) for s in (first, copy))
            index.doubts.append(
                f"{a} and {b} are copies of one picture, listed as of two parts, {one} and {other}: a split may train "
                f"on one and test on the other; delete one, or say in {GROUPS} which part it is"
            )
            continue
        stays, goes = (other, one) if other in given else (one, other)
        above[goes] = stays
        joined.append((first, copy))
    return {part: now(part) for part in above}, joined
