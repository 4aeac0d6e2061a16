"""The normal images and masks that pairs are made of: none of what a split keeps to test on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fast.data.category import NORMAL_DIRS
from fast.data.content import Copies, same_bytes
from fast.data.images import list_images
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.layouts import holds_dataset, open_dataset
from fast.data.normals import (
    drawn_split,
    held_out,
    normals_notes,
    normals_of_test,
    refuse_foreign,
    shares_parts,
    whole,
    without_tested,
)
from fast.data.split import split_file
from fast.runtime.counts import number_of
from fast.synthesis.sources import MaskSource, NormalSource
from ldm.errors import UserError

HALVES = ("train", "validation", "images", "imgs", "data")  # names between a dataset and its normals


def apart_from_test(normals: Sequence[NormalSource], root: str, split: str) -> tuple[list[NormalSource], list[str]]:
    """Those of no part that the `split` (third, all or a file) of the dataset at `root` keeps to test on, copies of its
    normals among them, and what to tell of the others. Raises `UserError`."""
    file = split_file(split)
    index = open_dataset(root)
    defective = same_bytes((n.path for n in normals), (s.image for s in index.defects))
    notes = _copies_notes(len(normals), defective)
    normals = [n for n in normals if n.path not in defective]
    if not normals:
        raise UserError(f"every normal image is a copy of a defect's image of {root}; give normal images")
    if split == "all":
        return normals, notes
    if not index.defects:
        raise UserError(f"--split {split} is of real defects, and {root} has none; name their dataset with --defects")
    every = whole(index)  # a part may have defects of other types, too
    if file is not None:
        refuse_foreign(file, every)
    if not shares_parts(every):
        return normals, notes
    tested = Copies(s.image for s in normals_of_test(every, file or drawn_split(index)))
    given = {Sample(n.path, None, n.category, GOOD, str(n.path)): n for n in normals}
    index = replace(every, normals=list(given))
    seen = [sample for sample in given if tested.holds(sample.image, mask=False)]
    kept = [given[sample] for sample in without_tested(index, seen).normals]
    return kept, [*notes, *normals_notes(index, seen)]


def _copies_notes(count: int, defective: Mapping[Path, Path]) -> list[str]:
    if not defective:
        return []
    path, twin = next(iter(defective.items()))
    are = number_of(len(defective), f"of {count} normal images is a copy", f"of {count} normal images are copies")
    return [f"{are} of a defect's image ({path.name} of {twin.name} the first): left out"]


def masks_apart_from_test(
    masks: Sequence[MaskSource], folder: str, root: str, split: str
) -> tuple[list[MaskSource], list[str]]:
    """Those of no defect that the `split` (third, all or a file) of the dataset at `root` keeps to test on, copies of
    its masks among them, and what to tell of the others. `folder`: where they lie. Raises `UserError`."""
    file = split_file(split)
    if split == "all":
        return list(masks), []
    index = open_dataset(root)
    every = whole(index)
    if file is not None:
        refuse_foreign(file, every)
    held = held_out(file or drawn_split(index))
    theirs = [s for s in [*every.defects, *every.excluded] if every.relative(s.image) in held]
    files = [s.mask for s in theirs if s.mask is not None]
    tested = Copies(part for mask in files for part in (list_images(mask) if mask.is_dir() else [mask]))
    left = [mask for mask in masks if tested.holds(mask.path, mask=True)]
    if left and len(left) == len(masks):
        raise UserError(
            f"{folder}: every mask in it is of a defect that --split {split} keeps to test on; give other masks"
        )
    if not left:
        return list(masks), []
    told = f"{len(left)} of {number_of(len(masks), 'mask')} in {folder} are of defects that are tested on"
    lost = {mask.path for mask in left}
    return [m for m in masks if m.path not in lost], [f"{told} ({left[0].path.name} the first): left out"]


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
