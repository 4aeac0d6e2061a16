"""The normal images that pairs are made of: none of a part that a split keeps to test on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fast.data.category import NORMAL_DIRS
from fast.data.content import Copies
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.layouts import holds_dataset, open_dataset
from fast.data.normals import (
    drawn_split,
    normals_notes,
    normals_of_test,
    refuse_foreign,
    shares_parts,
    whole,
    without_tested,
)
from fast.data.split import split_file
from fast.synthesis.sources import NormalSource
from ldm.errors import UserError

HALVES = ("train", "validation", "images", "imgs", "data")  # names between a dataset and its normals


def apart_from_test(normals: Sequence[NormalSource], root: str, split: str) -> tuple[list[NormalSource], list[str]]:
    """Those of no part that the `split` (third, all or a file) of the dataset at `root` keeps to test on, copies of its
    normals among them, and what to tell of the others. Raises `UserError`."""
    file = split_file(split)
    if split == "all":
        return list(normals), []
    index = open_dataset(root)
    if not index.defects:
        raise UserError(f"--split {split} is of real defects, and {root} has none; name their dataset with --defects")
    every = whole(index)  # a part may have defects of other types, too
    if file is not None:
        refuse_foreign(file, every)
    if not shares_parts(every):
        return list(normals), []
    tested = Copies(s.image for s in normals_of_test(every, file or drawn_split(index)))
    given = {Sample(n.path, None, n.category, GOOD, str(n.path)): n for n in normals}
    index = replace(every, normals=list(given))
    seen = [sample for sample in given if tested.holds(sample.image, mask=False)]
    return [given[sample] for sample in without_tested(index, seen).normals], normals_notes(index, seen)


def ask_split(artifact: Path, data_root: str, normals: Sequence[NormalSource]) -> None:
    """UserError where weights of the training side of a split are to fill normal images of parts that it may keep to
    test on, and nothing says whether they may."""
    given = {n.path.resolve() for n in normals}
    for root in _around(Path(data_root).expanduser().resolve()):
        index = _dataset(root)
        own = [] if index is None else [s for s in index.normals if s.image.resolve() in given]
        if index is not None and shares_parts(replace(index, normals=own)):
            raise UserError(
                f"{artifact.name} was adapted to the training side of a split, and the parts of normal images in "
                f"{data_root} are known; say with --defects {root} and --split FILE, third or all which of them may be "
                "used"
            )


def _around(folder: Path) -> Iterator[Path]:
    """A folder, and those above it that may be the dataset of which it holds the normals."""
    yield folder
    while {folder.name.lower(), folder.parent.name.lower()} & {*NORMAL_DIRS, *HALVES}:
        folder = folder.parent
        yield folder


def _dataset(root: Path) -> DatasetIndex | None:
    """The whole dataset at a place; None where there is none, or none that can be read."""
    try:
        return whole(open_dataset(root)) if holds_dataset(root) else None
    except UserError:
        return None
