"""Scores of the image-mask pairs of a synthesis output: each by itself, beside real defects, and by a segmenter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.images import read_image, read_mask, resize_image, resize_labels
from fast.features.nearest import Defect, RealDefects, describe
from fast.features.store import FeatureStore
from fast.quality.agreement import agreement, in_window, quick_judge
from fast.quality.measure import contrast, seam, texture
from fast.quality.ranking import RATIOS, goodness, ranks
from fast.segmentation.data import SegmentationSample
from fast.synthesis.records import filled_with_edge
from ldm.errors import UserError

SCORES = ("visible", "seam", "texture", "distance", "closest", "agreement", "rank")
Row = dict[str, Any]


class Scorer:
    """Scores pairs of the folder `output` beside the real training defects `real`.

    `visible`: mean change inside the mask, grey levels of 255. `seam`, `texture`: see `fast.quality.measure`.
    `distance` from the real defects of its type and the `closest` of them: see `RealDefects.distance`. `agreement`:
    see `fast.quality.agreement`. `rank`: the mean of the ranks among the pairs of its type (`fast.quality.ranking`).
    A score that nothing can be said of is None.
    """

    def __init__(self, output: Path, real: Sequence[SegmentationSample], size: int | None = None):
        self.output, self.store = output, FeatureStore()
        self.real, self.names = [_sized(sample, size) for sample in real], [sample.name for sample in real]
        self.usual: dict[str, dict[str, float]] = {}
        self.defects: RealDefects | None = None

    def learn(self, tell: Callable[[], object]) -> None:
        """Look at the real defects; `tell` is called after each."""
        found, ratios = [], defaultdict(list)
        for sample, name in zip(self.real, self.names, strict=True):
            image, labels = sample.read()
            mask = labels == 1
            if mask.any():
                found.append(Defect(sample.kind, Path(name).name, sample.group, describe(self.store, image, mask)))
                ratios[_type(sample.kind)].append({"seam": seam(image, mask), "texture": texture(image, mask)})
            tell()
        self.defects = RealDefects(found) if found else None
        for kind, rows in ratios.items():
            known = {name: [v for r in rows if (v := r[name]) is not None] for name in RATIOS}
            self.usual[kind] = {name: float(np.median(values)) for name, values in known.items() if values}

    def look(self, row: Row) -> Row | None:
        """The scores of a pair by itself. None for one without a defect. Raises `UserError`."""
        image, mask = self._read(row)
        if not mask.any():
            return None
        edge = filled_with_edge(row)
        filled = None if edge is None else read_mask(self._place(row) / edge)
        found: Row = dict.fromkeys(SCORES)
        if (source := row.get("normal_source")) and Path(source).is_file():
            normal = resize_image(read_image(source), image.shape[:2])
            found["visible"] = round(contrast(normal, image, mask).inside, 3)
        for name, value in (("seam", seam(image, mask, filled)), ("texture", texture(image, mask))):
            found[name] = None if value is None else round(value, 3)
        if self.defects is not None:
            nearest = self.defects.distance(row["type"], describe(self.store, image, mask))
            if nearest is not None:
                found["distance"], found["closest"] = round(nearest[0], 3), nearest[1]
        return found

    def judge(self, rows: Sequence[Row], scores: Sequence[Row]) -> None:
        """Fill `agreement` and `rank` in."""
        pairs = [in_window(self._sample(row)) for row in rows]
        for found, value in zip(
            scores, agreement(pairs, [in_window(s) for s in self.real], quick_judge()), strict=True
        ):
            found["agreement"] = None if value is None else round(value, 3)
        for kind in sorted({row["type"] for row in rows}):
            own = [i for i, row in enumerate(rows) if row["type"] == kind]
            good = [goodness(scores[i], self.usual.get(_type(kind), {})) for i in own]
            for i, rank in zip(own, ranks(good), strict=True):
                scores[i]["rank"] = None if rank is None else round(rank, 4)

    def _read(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        place = self._place(row)
        return read_image(place / row["image"]), read_mask(place / row["mask"])

    def _place(self, row: Row) -> Path:
        return self.output / "rejected" if row.get("rejected") else self.output

    def _sample(self, row: Row) -> SegmentationSample:
        place, group = self._place(row), str(row.get("defect_source") or row.get("normal_source") or row["index"])
        return SegmentationSample(place / row["image"], place / row["mask"], row["type"], group=group, synthetic=True)


def _type(kind: str) -> str:
    """The defect type of "category/type": a dataset's category has not always the pairs' name."""
    return kind.rpartition("/")[2]


def _sized(sample: SegmentationSample, size: int | None) -> SegmentationSample:
    """A sample as the pairs are: in arrays, made square where they were."""
    if size is None:
        return sample
    image, labels = sample.read()
    made = resize_image(image, size), resize_labels(labels, size)
    return SegmentationSample(*made, sample.kind, group=sample.group)


def size_of(rows: Sequence[Row]) -> int | None:
    """The side of the squares that the pairs' images were resized to; None where they kept their size. Raises
    `UserError` for pairs of several sizes."""
    sizes = {row.get("size") for row in rows}
    if len(sizes) > 1:
        raise UserError(
            f"the pairs have several sizes ({', '.join(map(str, sorted(map(str, sizes))))}); score each set"
        )
    return next(iter(sizes), None)
