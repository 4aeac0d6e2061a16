"""What a row of scores is measured on: the two sides of a split, or of splits inside its training side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fast.data.content import Copies
from fast.data.index import DatasetIndex, Sample
from fast.data.layouts import check
from fast.data.normals import apart
from fast.data.split import Split, nested_splits
from ldm.errors import UserError


@dataclass(frozen=True)
class Sides:
    """The defects of `index` to train and to test on, by `split`; its normals are `apart` from what is tested on.
    `forbidden`: finds copies of files that no pair may be made from."""

    index: DatasetIndex
    split: Split
    train: list[Sample]
    test: list[Sample]
    forbidden: Copies


def sides_of(index: DatasetIndex, split: Split) -> Sides:
    """The sides of a split. UserError where one is empty."""
    train, test = split.apply(index)
    if not train or not test:
        raise UserError("the split leaves no defects on one side; make it anew with scripts/prepare_data.py")
    used = apart(index, split)
    return Sides(used, split, train, test, Copies.of_samples([*test, *used.tested_normals]))


def nested_sides(index: DatasetIndex, split: Split, count: int) -> list[Sides]:
    """The sides of `count` nested splits of a split. The index of each lacks the test side, whose files are forbidden
    as those of the inner test side are. Raises `UserError`."""
    outer = sides_of(index, split)
    inside = training_side(index, split)
    found = []
    for inner in nested_splits(index, split, count):
        sides = sides_of(inside, inner)
        found.append(replace(sides, forbidden=Copies([*outer.forbidden.files, *sides.forbidden.files])))
    return found


def told_again(sides: Sequence[Sides]) -> list[str]:
    """What to tell of splits some of which test what others do, because there are so few parts."""
    splits = len({own.split.hash for own in sides})
    different = len({frozenset(own.split.test) for own in sides})
    if different == splits:
        return []
    return [
        f"note: of {splits} nested splits {different} differ, because the real defects to train on are of few parts; "
        "the others test the same parts again, and a choice hangs on those: defects of other parts would tell more"
    ]


def training_side(index: DatasetIndex, split: Split) -> DatasetIndex:
    """What of a dataset may be seen before the test: the normals to train on and the defects of the training side."""
    return replace(apart(index, split), defects=split.apply(index)[0], test_normals=[], excluded=[])


def usable_training_side(index: DatasetIndex, split: Split) -> DatasetIndex:
    """`training_side` of an index that was not checked, checked: no file of the test side is opened."""
    return check(training_side(index, split)).usable


def save_nested(index: DatasetIndex, split: Split, count: int, folder: Path) -> list[Path]:
    """Write the nested splits as `0.json`, `1.json`, ..., for `main.py --split`. Raises `UserError`."""
    files = []
    for seed, inner in enumerate(nested_splits(index, split, count)):
        files.append(folder / f"{seed}.json")
        inner.save(files[-1])
    return files


def content_beside(content: str, seen: DatasetIndex, sides: Sides) -> str:
    """The `content` of the files of an index, or where the sides leave normals of it out, a hash of that, too."""
    used = [seen.relative(s.image) for s in sides.index.normals]
    if len(used) == len(seen.normals):
        return content
    return hashlib.sha256(f"{content} {json.dumps(used)}".encode()).hexdigest()


def beside(sides: Sides, real: Sequence[Sample]) -> Sides:
    """The same with the defects `real` of the training side alone to learn from: its split excludes the others."""
    kept = {sides.index.relative(s.image) for s in real}
    split = sides.split
    left = [name for name in split.train if name not in kept]
    fewer = replace(
        split, train=[name for name in split.train if name in kept], excluded=sorted({*split.excluded, *left})
    )
    return replace(sides, split=fewer, train=list(real))
