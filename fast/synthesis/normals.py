"""The normal images and masks that pairs are made of: none of what a split keeps to test on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from fast.data.category import NORMAL_DIRS
from fast.data.content import Copies
from fast.data.images import list_images
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.layouts import holds_dataset, open_dataset
from fast.data.normals import (
    drawn_split,
    normals_notes,
    normals_of_test,
    refuse_foreign,
    shares_parts,
    tested_names,
    without_tested,
)
from fast.data.split import Split, split_file
from fast.runtime.counts import number_of
from fast.synthesis.sources import MaskSource, NormalSource
from ldm.errors import UserError

HALVES = ("train", "validation", "images", "imgs", "data")  # names between a dataset and its normals


class HeldOut:
    """What a `split` (third, all or a file) of a `dataset`, opened or its folder, keeps to test on, away from what
    pairs are made of. The dataset is opened when something is asked for. Raises `UserError`, then too."""

    def __init__(self, dataset: str | DatasetIndex, split: str):
        self.root = dataset if isinstance(dataset, str) else str(dataset.root)
        self.split, self._file, self._dataset = split, split_file(split), dataset

    @cached_property
    def index(self) -> DatasetIndex:
        index = open_dataset(self._dataset) if isinstance(self._dataset, str) else self._dataset
        if self._file is not None:
            refuse_foreign(self._file, index.whole)
        return index

    @cached_property
    def _sides(self) -> Split:
        return self._file or drawn_split(self.index)

    def normals(self, given: Sequence[NormalSource]) -> tuple[list[NormalSource], list[str]]:
        """Normal images of no part that is tested on, copies of the dataset's own among them, and what to tell of the
        others. Copies of its defects' images are none."""
        defective = Copies(s.image for s in self.index.defects).among(n.path for n in given)
        notes = _copies_notes(len(given), defective)
        flawless = [n for n in given if n.path not in defective]
        if not flawless:
            raise UserError(f"every normal image is a copy of a defect's image of {self.root}; give normal images")
        if self.split == "all":
            return flawless, notes
        if not self.index.defects:
            raise UserError(
                f"--split {self.split} is of real defects, and {self.root} has none; name their dataset with --defects"
            )
        every = self.index.whole  # a part may have defects of other types, too
        if not shares_parts(every):
            return flawless, notes
        tested = Copies(s.image for s in normals_of_test(every, self._sides))
        sources = {Sample(n.path, None, n.category, GOOD, str(n.path)): n for n in flawless}
        index = replace(every, normals=list(sources))
        seen = [sample for sample in sources if tested.twin(sample.image)]
        kept = [sources[sample] for sample in without_tested(index, seen).normals]
        return kept, [*notes, *normals_notes(index, seen)]

    def masks(self, given: Sequence[MaskSource], folder: str) -> tuple[list[MaskSource], list[str]]:
        """Masks of no defect that is tested on, and what to tell of the others. `folder`: where they lie."""
        if self.split == "all":
            return list(given), []
        every, names = self.index.whole, tested_names(self._sides)
        theirs = [s for s in [*every.defects, *every.excluded] if every.relative(s.image) in names]
        files = [s.mask for s in theirs if s.mask is not None]
        tested = Copies(part for mask in files for part in (list_images(mask) if mask.is_dir() else [mask]))
        lost = [mask for mask in given if tested.twin(mask.path, mask=True)]
        if not lost:
            return list(given), []
        if len(lost) == len(given):
            kept = f"--split {self.split} keeps to test on"
            raise UserError(f"{folder}: every mask in it is of a defect that {kept}; give other masks")
        first, left = lost[0].path.name, set(lost)
        told = f"{len(lost)} of {number_of(len(given), 'mask')} in {folder} are of defects that are tested on"
        return [m for m in given if m not in left], [f"{told} ({first} the first): left out"]


def _copies_notes(count: int, defective: Mapping[Path, Path]) -> list[str]:
    if not defective:
        return []
    path, twin = next(iter(defective.items()))
    are = number_of(len(defective), f"of {count} normal images is a copy", f"of {count} normal images are copies")
    return [f"{are} of a defect's image ({path.name} of {twin.name} the first): left out"]


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
        return open_dataset(root).whole if holds_dataset(root) else None
    except UserError:
        return None
