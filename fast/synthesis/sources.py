"""Normal images and masks for synthesis, and which of them meet in which pair."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fast.data.category import DEFECT_DIRS, MASK_DIRS, NORMAL_DIRS, files_of
from fast.data.check import looks_inverted
from fast.data.images import list_images, read_mask
from fast.data.index import DatasetIndex
from fast.data.labelme import is_annotation
from fast.data.layouts import holds_dataset, holds_masks, open_dataset
from fast.data.pairing import split_beside
from fast.data.reading import NAME, reading_of
from fast.synthesis.options import FIRST_COUNTERFEIT
from fast.synthesis.pair import Pair
from fast.synthesis.selection import contents, drawn, marks, order, turn
from ldm.errors import UserError
from ldm.rng import seed_of

ReadMask = Callable[[Path], np.ndarray]
IN_DATASETS = {*DEFECT_DIRS, *MASK_DIRS, "test"}  # what folders of defects and masks, or those above, are called
TYPES = 10  # in the key of the order of types


@dataclass(frozen=True)
class NormalSource:
    """An image without a defect; `category` is empty where no dataset layout names it."""

    path: Path
    category: str = ""


@dataclass(frozen=True)
class MaskSource:
    """A mask file; `kind` is the folder it lies in, which often names the defect type."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Sources:
    """What pairs are made from. `types`: all that the method knows, "category/anomaly"; `allowed`: numbers of those
    to make. There may be no normals or no masks for a method that needs none."""

    normals: list[NormalSource]
    masks: list[MaskSource]
    types: list[str]
    allowed: list[int]

    def narrowed(self) -> "Sources":
        """Only normals of the allowed types' categories, if there are any, and no masks in other types' folders, if
        any remain. Files whose folders name nothing that the weights know may serve every type.
        """
        categories, kinds = (set(names) for names in zip(*(t.split("/", 1) for t in self.types), strict=True))
        wanted = [self.types[i].split("/", 1) for i in self.allowed]
        own, own_kinds = (set(names) for names in zip(*wanted, strict=True))
        normals = [n for n in self.normals if n.category in own]
        normals = normals or [n for n in self.normals if n.category not in categories] or self.normals
        masks = [m for m in self.masks if m.kind in own_kinds or m.kind not in kinds]
        return Sources(normals, masks or self.masks, self.types, self.allowed)

    @cached_property
    def normal_contents(self) -> list[str]:
        """SHA-256 of each normal image's file."""
        return contents(n.path for n in self.normals)

    @cached_property
    def mask_contents(self) -> list[str]:
        """SHA-256 of each mask's file."""
        return contents(m.path for m in self.masks)

    @cached_property
    def _marks(self) -> tuple[np.ndarray, np.ndarray]:
        return marks(self.normal_contents), marks(self.mask_contents)

    def pair(self, index: int, seed: int) -> Pair:
        """Pair number `index`, from `FIRST_COUNTERFEIT` on the counterfeit of a pair, with its files. Its normal image
        is drawn by content (`drawn`): adding one changes the pairs that take it and no other. Masks come round in a new
        order every time through. Names and places decide nothing."""
        if index >= FIRST_COUNTERFEIT:
            return replace(self.pair(index - FIRST_COUNTERFEIT, seed), index=index, counterfeit=True)
        normals, masks = self._marks
        normal = self.normals[drawn(normals, seed, 1, index)] if self.normals else None
        mask = self.masks[self._turn(masks, index, seed)] if self.masks else None
        own = seed_of(seed, 3, index)
        category, kind = normal.category if normal else "", mask.kind if mask else ""
        files = normal.path if normal else None, mask.path if mask else None
        return Pair(index, *files, self._type(category, kind, index, seed), own)

    def _turn(self, masks: np.ndarray, index: int, seed: int) -> int:
        """The mask for a pair: all come round in an order of their own every time through, sorted once each time."""
        lap, place = divmod(index, len(masks))
        if (seed, lap) not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            self._orders[seed, lap] = order(masks, lap, seed, 2)
        return int(self._orders[seed, lap][place])

    @cached_property
    def _orders(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def _type(self, category: str, kind: str, index: int, seed: int) -> int:
        """Of the allowed types that the normal's category and the mask's folder name the one whose turn it is: they
        come round in a new order every time through, so that of n each has an n-th of the pairs."""
        tests: tuple[Callable[[str, str], bool], ...] = (
            lambda c, a: c == category and a == kind,
            lambda c, a: a == kind,
            lambda c, a: c == category,
        )
        for test in tests:
            fitting = [i for i in self.allowed if test(*self.types[i].split("/", 1))]
            if fitting:
                break
        among = np.array(fitting or self.allowed, np.uint64)
        return int(among[turn(among, index, seed, TYPES)])


def find_normals(path: str) -> list[NormalSource]:
    """Images directly in a folder (in all below it, if it is called `normal` or the like), or the training normals of a
    dataset. Masks beside them are none. Raises `UserError`."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_root {path} is not a folder; give a folder of normal images")
    if holds_dataset(folder):
        images = _of_dataset(folder)
    else:
        files = files_of(folder, folder.name.lower() in NORMAL_DIRS)
        images = [NormalSource(p) for p in split_beside(files)[0]]
        if images and {folder.name.lower(), folder.parent.name.lower()} & IN_DATASETS:
            _refuse_defects(folder)
        if not images and any(folder.iterdir()):
            images = _of_dataset(folder)
    if not images:
        raise UserError(f"--data_root {path} holds no normal image; give a folder of normal images")
    return images


def _of_dataset(folder: Path) -> list[NormalSource]:
    """The training normals of a dataset. UserError for a folder in it that holds none of them."""
    index = open_dataset(folder)
    here = Path(os.path.abspath(folder))
    if index.normals and not any(here in s.image.parents for s in index.normals):
        raise _no_normals(folder, index)
    return [NormalSource(s.image, s.category) for s in index.normals]


def _refuse_defects(folder: Path) -> None:
    """UserError for the folder of a dataset's defects, or of their masks."""
    try:
        index = open_dataset(folder)
    except UserError:
        return  # of no dataset
    here, files = Path(os.path.abspath(folder)), [(s.image, s.mask) for s in index.defects]
    if any(file is not None and file.parent == here for pair in files for file in pair):
        raise _no_normals(folder, index)


def _no_normals(folder: Path, index: DatasetIndex) -> UserError:
    return UserError(
        f"--data_root {folder} holds defects of the dataset {index.root} or their masks, no normal image; give the "
        "dataset, or its folder of normal images"
    )


def find_masks(path: str, read: ReadMask = read_mask, flag: str = "--mask_path") -> tuple[list[MaskSource], list[str]]:
    """(masks with a defect in them, the names of empty ones), from a folder and one level of folders below.

    Every mask is decoded, by `read`; LabelMe files are masks, too. Raises `UserError` for an unreadable one, a
    photograph, one that looks inverted, for a whole dataset, and where none has a defect. `flag`: what names it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{flag} {path} is not a folder; give a folder of mask images")
    if holds_masks(folder):
        raise UserError(f"{flag} {path} is a dataset; give its folder of masks, or write masks of it with "
                        f"scripts/make_masks.py --source given --masks {path}")  # fmt: skip
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    sources = [MaskSource(file, place.name) for place in [folder, *below] for file in _masks_in(place)]
    if not sources:
        raise UserError(f"{flag} {path} holds no image; give a folder of mask images")
    with ThreadPoolExecutor() as pool:
        defective = list(pool.map(lambda source: _has_defect(source.path, read), sources))
    filled = [s for s, yes in zip(sources, defective, strict=True) if yes]
    if not filled:
        told = "the only mask is" if len(sources) == 1 else f"all {len(sources)} masks are"
        raise UserError(f"{flag} {path}: {told} empty; defect pixels must be white")
    return filled, [str(s.path) for s, yes in zip(sources, defective, strict=True) if not yes]


def kinds_below(path: str | None, masks: Iterable[MaskSource]) -> list[str]:
    """The names of the folders in `path`, a folder of masks, that masks lie in; those directly in it are of none."""
    top = Path(path or "").expanduser()
    return sorted({mask.kind for mask in masks if mask.path.parent != top})


def _masks_in(folder: Path) -> list[Path]:
    return [*list_images(folder), *(p for p in sorted(folder.glob("*.json")) if is_annotation(p))]


def _has_defect(path: Path, read: ReadMask) -> bool:
    mask = read(path)
    if looks_inverted(mask) and not reading_of(path).mask_values:
        raise UserError(
            f"{path}: the defect would cover {mask.mean():.0%} of the picture; if the mask is inverted, invert it, or "
            f'say what the defect is in {path.parent / NAME}, {{"mask_values": [0]}}; if it is right, say so there too'
        )
    return bool(mask.any())
