"""Image-mask pairs from everywhere: a synthesis output, samples of a dataset, arrays; and the views of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.content import Copies
from fast.data.index import GOOD, Sample
from fast.data.samples import SampleImages, read_sample
from fast.data.shown import figure
from fast.data.transforms import Window, augmentation
from fast.data.whole import check_made
from fast.synthesis.records import damaged, each_record, file_of
from ldm.errors import UserError

DRAWS = ("parts", "images")  # what of the real defects is drawn equally often, see `merged`


@dataclass(frozen=True, eq=False)
class SegmentationSample:
    """An image and its mask, as files or as arrays.

    Args:
        image: a file, or RGB uint8 (H,W,3).
        mask: a file, or uint8 (H,W) with nonzero = defect. None: the image has no defect.
        kind: "category/defect type".
        weight: how often training draws it, relative to others.
        label: class of its defect pixels in a network that tells types apart. It is 1 for all where there are only
            defect and background.
        group: the physical part that it shows, empty where that is not known.
        synthetic: whether it was made rather than photographed.
        sources: the files that a made one was made from.
    """

    image: Path | np.ndarray
    mask: Path | np.ndarray | None
    kind: str = ""
    weight: float = 1.0
    label: int = 1
    group: str = ""
    synthetic: bool = False
    sources: frozenset[Path] = field(default_factory=frozenset)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """See `fast.data.samples.read_sample`; pixels to ignore are 255."""
        return read_sample(self, self.name, ignored=True)

    def _repr_html_(self) -> str:
        """For notebooks: the image, and it with the outline of its defect."""
        return str(figure(*self.read(), f"{self.kind.strip('/')}, {self.name}"))

    @property
    def name(self) -> str:
        return str(self.image) if isinstance(self.image, Path) else f"array of '{self.kind}'"


def from_arrays(
    images: Iterable[np.ndarray], masks: Iterable[np.ndarray | None], kind: str = ""
) -> list[SegmentationSample]:
    """Pairs in memory: uint8 (H,W,3) and (H,W), nonzero = defect."""
    return [SegmentationSample(image, mask, kind) for image, mask in zip(images, masks, strict=True)]


def from_samples(samples: Iterable[Sample]) -> list[SegmentationSample]:
    """Samples of `fast.data.layouts`; take them from `check(...).usable`."""
    return [SegmentationSample(s.image, s.mask, f"{s.category}/{s.anomaly}", group=s.group) for s in samples]


def check_pairs(pairs: Iterable[SegmentationSample]) -> None:
    """Raises `UserError` for pairs of a synthesis output whose image or mask is damaged, before hours are spent."""
    check_made(path for pair in pairs for path in (pair.image, pair.mask) if isinstance(path, Path))


def from_output(folder: str | Path, held_out: Copies | None = None) -> tuple[list[SegmentationSample], int]:
    """Read the pairs of a synthesis output, whether it lies in folders or in shards.

    Counterfeits come along as made normals. With `held_out`, pairs are left out that the manifest says were made from a
    file that tests are done on, or from a copy of one under any name: a segmenter that has seen its shape or surface
    would have an advantage. A method that draws normal image or mask itself names no such file. What it was trained on
    is recorded by its weights.

    Args:
        folder: the output.
        held_out: the masks and images that tests are done on. None: no pair is left out.

    Returns:
        The pairs, and how many were left out.

    Raises:
        UserError: when the folder is no output, a line of its manifest is damaged, or with `held_out` a pair does not
            say its sources or one of them is not where it says.
    """
    folder, copies = Path(folder), held_out or Copies([])
    files, told = _Sources(), True  # by every pair, what it was made from
    found: list[tuple[_Used, SegmentationSample]] = []
    for row in each_record(folder, counterfeits=True):
        try:
            used = files.of(row)
            told = told and {"normal_source", "mask_source"} <= row.keys()
            image, mask = folder / row["image"], folder / row["mask"]
            found.append((used, SegmentationSample(image, mask, row["type"], synthetic=True, sources=used.paths)))
        except (KeyError, TypeError) as error:
            raise damaged(file_of(folder, row), repr(error)) from None
    lost = files.lost() if copies.files else None
    if lost or (copies.files and not told):
        what = f"{lost}, which a pair was made from, is not there" if lost else "a pair does not say its sources"
        raise UserError(f"{folder}: {what}; without it nobody can tell test pictures apart: run where it was made")
    kept = [pair for used, pair in found if not any(copies.twin(path, mask) for path, mask in used.files)]
    return kept, len(found) - len(kept)


@dataclass(frozen=True)
class _Used:
    """The files that a pair was made from, each with whether it is a mask."""

    files: list[tuple[Path, bool]]
    paths: frozenset[Path]


class _Sources:
    """What pairs were made from; the same files are the same object, for thousands of pairs share some."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, bool], ...], _Used] = {}
        self._paths: dict[str, Path] = {}

    def of(self, row: dict[str, Any]) -> _Used:
        named = [(row.get("normal_source"), False), (row.get("mask_source"), True), (row.get("defect_source"), False)]
        key = tuple((name, mask) for name, mask in named if name)
        if key not in self._known:
            files = [(self._path(name), mask) for name, mask in key]
            self._known[key] = _Used(files, frozenset(path for path, _ in files))
        return self._known[key]

    def _path(self, name: str) -> Path:
        if name not in self._paths:
            self._paths[name] = Path(name).resolve()
        return self._paths[name]

    def lost(self) -> Path | None:
        """One of them that is not there."""
        return next((path for path in self._paths.values() if not path.exists()), None)


def merged(
    synthetic: Sequence[SegmentationSample],
    real: Sequence[SegmentationSample],
    normals: Sequence[SegmentationSample] = (),
    real_share: float | None = None,
    normal_share: float = 0.0,
    draw: str = "images",
) -> list[SegmentationSample]:
    """Put all pairs to train on together and weight them.

    Args:
        synthetic: made pairs. A counterfeit among them is drawn as often as a synthetic defect, beside the defects.
        real: real pairs with a defect.
        normals: real images without a defect.
        real_share: share of the defects drawn that are real, between 0 and 1. None: every defect is drawn equally
            often.
        normal_share: share of all that is drawn that are `normals`, from 0 to below 1. At 0 they are left out.
        draw: what of the real defects is drawn equally often. "images": every image. "parts": every type, and of a type
            every physical part, which may have been photographed once or ten times.

    Raises:
        UserError: when a share lies out of range or the pairs that it is of are missing, or the synthetic pairs are
            counterfeits alone.
    """
    if real_share is not None and not (0 < real_share < 1 and synthetic and real):
        raise UserError(f"real_share={real_share} needs synthetic and real pairs and a share between 0 and 1")
    if not 0 <= normal_share < 1 or (normal_share and not normals):
        raise UserError(f"normal share {normal_share} needs normal images and a share from 0 to below 1")
    fakes = [pair for pair in synthetic if pair.synthetic and is_normal(pair)]
    defects = [pair for pair in synthetic if not (pair.synthetic and is_normal(pair))]
    if fakes and not defects:
        raise UserError("the synthetic pairs are counterfeits alone; make pairs with defects beside them")
    share = len(real) / max(1, len(real) + len(defects)) if real_share is None else real_share
    beside = (1 - share) * len(fakes) / max(1, len(defects))
    parts = [
        (real, share * (1 - normal_share)),
        (defects, (1 - share) * (1 - normal_share)),
        (fakes, beside * (1 - normal_share)),
        (normals if normal_share else (), normal_share * (1 + beside)),
    ]
    weighted = [replace(pair, weight=total / len(part)) for part, total in parts for pair in part]
    return weighted if draw == "images" else [*_by_parts(weighted[: len(real)]), *weighted[len(real) :]]


def _by_parts(pairs: Sequence[SegmentationSample]) -> list[SegmentationSample]:
    """Pairs of a weight, with the same sum of weights: every type has as much of it, and of a type every part."""
    parts = [(pair.kind, pair.group or number) for number, pair in enumerate(pairs)]
    images, types = Counter(parts), Counter(kind for kind, _ in dict.fromkeys(parts))
    total = sum(pair.weight for pair in pairs)
    shares = [1 / len(types) / types[part[0]] / images[part] for part in parts]
    return [replace(pair, weight=total * share) for pair, share in zip(pairs, shares, strict=True)]


def is_normal(pair: SegmentationSample) -> bool:
    return pair.mask is None or pair.kind.rpartition("/")[2] == GOOD


class Views(SampleImages[SegmentationSample]):
    """What a network sees of pairs: images uint8 (H,W,3), and labels uint8 (H,W) of 0, 1, or 255 for ignored.

    Whole pictures are resized to squares. A pixel of the resized mask is defect if any source pixel that it overlaps
    is, so that no hairline is lost. Training sees windows if there is a `crop` or with `native`. With a probability of
    one half a window is laid over a defect pixel, if there is any, and else it lies anywhere.

    Args:
        pairs: the pairs, by whose number views are asked for.
        size: side in pixels of the squares, or with `native` of the windows that training sees. At least 16.
        native: resize nothing. `plain` then gives pictures at their own size.
        crop: side in pixels of the windows of the square that training sees, from 16 to `size`. None: all of it.

    Raises:
        UserError: when the sizes do not fit, or `crop` comes with `native`.
    """

    def __init__(self, pairs: Sequence[SegmentationSample], size: int, native: bool = False, crop: int | None = None):
        if size < 16:
            raise UserError(f"size={size} is below 16 pixels; raise it")
        if crop is not None and native:
            raise UserError(f"crop={crop} is a window of a resized picture; with native, size is the window's: use it")
        if crop is not None and not 16 <= crop <= size:
            raise UserError(f"crop={crop} lies outside 16..{size}, the side of the picture; change it")
        super().__init__(pairs, None if native else size, ignored=True)
        self.side, self.native = crop or size, native
        self._windows = [Window(self.side, on_defect=0.5)] if native or crop else []

    def draw(self, index: int, rng: np.random.Generator, augment: str = "light") -> tuple[np.ndarray, np.ndarray]:
        """A training view by one of `fast.data.transforms.AUGMENT`. Raises `UserError` for another name."""
        return self.drawn(index, [*self._windows, *augmentation(augment, self.side, self.native)], rng)
