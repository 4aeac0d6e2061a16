"""The normal images that pairs are made of: none of a part that a split keeps to test on."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fast.data.category import NORMAL_DIRS
from fast.data.content import Copies
from fast.data.index import GOOD, Sample
from fast.data.layouts import holds_dataset, open_dataset
from fast.data.normals import drawn_split, normals_notes, normals_of_test, shares_parts, whole, without_tested
from fast.data.split import split_file
from fast.synthesis.sources import NormalSource
from ldm.errors import UserError


def apart_from_test(normals: Sequence[NormalSource], root: str, split: str) -> tuple[list[NormalSource], list[str]]:
    """Those of no part that the `split` (third, all or a file) of the dataset at `root` keeps to test on, copies of its
    normals among them, and what to tell of the others. Raises `UserError`."""
    file = split_file(split)
    if split == "all":
        return list(normals), []
    index = whole(open_dataset(root))
    if not index.defects:
        raise UserError(f"--split {split} is of real defects, and {root} has none; name their dataset with --defects")
    if file is not None and not {index.relative(s.image) for s in index.defects} & {*file.train, *file.test}:
        file.apply(index)  # says so
    if not shares_parts(index):
        return list(normals), []
    tested = Copies(s.image for s in normals_of_test(index, file or drawn_split(index)))
    given = {Sample(n.path, None, n.category, GOOD, str(n.path)): n for n in normals}
    index = replace(index, normals=list(given))
    seen = [sample for sample in given if tested.holds(sample.image, mask=False)]
    return [given[sample] for sample in without_tested(index, seen).normals], normals_notes(index, seen)


def ask_split(artifact: Path, data_root: str) -> None:
    """UserError where weights of the training side of a split are to fill normal images of parts that it may keep to
    test on, and nothing says whether they may."""
    root = Path(os.path.abspath(Path(data_root).expanduser()))
    while root.name.lower() in (*NORMAL_DIRS, "train"):  # as is often given
        root = root.parent
    if holds_dataset(root) and shares_parts(whole(open_dataset(root))):
        raise UserError(
            f"{artifact.name} was adapted to the training side of a split, and groups name the parts of normal images "
            f"in {data_root}; say with --split FILE, third or all of which of them pairs may be made"
        )
