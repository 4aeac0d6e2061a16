"""How good the pictures of a synthesis output are, without a network: can the defect be seen, is the rest untouched, is
there a seam, is it a copy, and how far are the defects from real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fast.bench.copies import DefectGallery
from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.data.whole import synthesized_again
from fast.masks.changed import around
from fast.quality.measure import AROUND, Floats, contrast, features, seam, set_distance, spread
from fast.segmentation.data import SegmentationSample
from fast.synthesis.records import filled_with_edge, read_records
from ldm.errors import UserError

SIGMAS = (0.8, 2.0)  # pixels: a hairline is seen sharp, a stain through the grain
QUANTILES = (2, 50, 98)  # percent: the darkest, the middle and the brightest inside the mask
REACH = 24  # pixels around the mask that the local noise is taken from
NOISE = 1.0  # grey levels: a viewer sees no less, on however even a ground
# Noise levels below which a pair looks empty. Judged by eye on magnetic tile: those below show next to nothing, and of
# those up to twice as much about half are faint.
VISIBLE = 1.7
# Likeness from which a defect counts as a copy. On magnetic tile one defect in two photographs has 0.97 and more, and
# what shares only its shape and shading up to about 0.93.
ALIKE = 0.95
_GRID = (np.arange(200) + 0.5) / 200  # at which two sets of any sizes are compared


def visibility(normal: np.ndarray, image: np.ndarray, mask: np.ndarray) -> float:
    """How far the defect stands out, in units of the normal picture's noise around it.

    Picture and normal are blurred by each of `SIGMAS`. The 2nd, 50th and 98th percentiles inside the mask are compared
    per channel, and the largest difference over the noise counts. Percentiles, not pixels: the same grain in another
    order is no defect. The noise is taken from the detail between this blur and one three times as wide, in the normal
    picture within `REACH` pixels of the mask: half the range of its middle 68 %, and at least `NOISE` grey levels.

    Args:
        normal, image: uint8 (H,W,3), the flawless picture and the one with the defect.
        mask: (H,W), nonzero = defect.
    """
    box = around(mask, REACH)
    before, after, own = normal[box].astype(np.float32), image[box].astype(np.float32), mask[box] != 0
    best = 0.0
    for sigma in SIGMAS:
        ground, shown = _blurred(before, sigma), _blurred(after, sigma)
        low, high = np.percentile(ground - _blurred(before, 3 * sigma), [16, 84], axis=(0, 1))
        apart = np.abs(np.percentile(shown[own], QUANTILES, axis=0) - np.percentile(ground[own], QUANTILES, axis=0))
        best = max(best, float((apart / np.maximum((high - low) / 2, NOISE)).max()))
    return best


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def appearance(image: np.ndarray, mask: np.ndarray) -> Floats:
    """`measure.features` (5,) against an even ground, the mean colour within `AROUND` pixels around the mask: what can
    be asked of a real defect, whose flawless picture nobody has."""
    box = around(mask, 2 * AROUND)
    shown, own = image[box], mask[box] != 0
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * AROUND + 1, 2 * AROUND + 1))
    ring = (cv2.dilate(own.astype(np.uint8), reach) != 0) & ~own
    ground = shown[ring if ring.any() else own].mean(0)
    return features(np.broadcast_to(ground, shown.shape), shown, own)


@dataclass
class TypeMeasures:
    """The measures of each picture of one type; a picture that a measure says nothing of is left out there."""

    pairs: int = 0
    visibility: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    seam: list[float] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)
    features: list[Floats] = field(default_factory=list)

    def add(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        normal: np.ndarray | None,
        alike: float | None,
        filled: np.ndarray | None = None,
    ) -> None:
        """`filled` (H,W): where the picture was changed, if that is more than the mask."""
        self.pairs += 1
        self.features.append(appearance(image, mask))
        for values, value in ((self.seam, seam(image, mask, filled)), (self.likeness, alike)):
            if value is not None:
                values.append(value)
        if normal is not None:
            self.visibility.append(visibility(normal, image, mask))
            self.outside.append(contrast(normal, image, mask if filled is None else filled).outside)

    def merge(self, other: TypeMeasures) -> None:
        self.pairs += other.pairs
        for name in ("visibility", "outside", "seam", "likeness", "features"):
            getattr(self, name).extend(getattr(other, name))

    def report(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "visibility": _over(np.median, self.visibility),
            "empty": _over(lambda x: np.mean(np.array(x) < VISIBLE), self.visibility),
            "outside": _over(np.mean, self.outside),
            "seam": _over(np.median, self.seam),
            "likeness": _over(np.median, self.likeness),
            "copied": _over(lambda x: np.mean(np.array(x) >= ALIKE), self.likeness),
        }


def _over(function: Callable[[list[float]], Any], values: list[float]) -> float | None:
    return float(function(values)) if values else None


def measures(folder: str | Path, real_pairs: Sequence[SegmentationSample], limit: int = 200) -> dict[str, Any]:
    """Measure the pictures of a synthesis output, beside the real training defects.

    When all pictures of the output have one shape, the real ones are resized to it. Else they are taken as they are.

    Args:
        folder: the output.
        real_pairs: the real training defects, with masks.
        limit: largest number of pairs to look at. They are chosen evenly.

    Returns:
        Measures by name. None where nothing can be said: without the normal picture (methods that draw it themselves),
        for defects of few pixels, or without a real defect of the type.
        - `pairs`: how many were measured.
        - `visibility`: median of the function of this name.
        - `empty`: share of pairs whose visibility is below `VISIBLE`, where a viewer would say that nothing is there.
        - `outside`: mean absolute change outside the mask, or outside what was filled, in grey levels of 255.
        - `seam`: median of `fast.quality.measure.seam`.
        - `likeness`: median likeness to the most alike real defect of the type (`DefectGallery.nearest`).
        - `copied`: share of defects whose likeness is `ALIKE` or more.
        - `set_distance`: of the defects' `appearance` from that of the real ones of their type, the mean of the
          features, in units of how much two real ones of a type differ (`fast.quality.measure.set_distance`).
        - `real`: `pairs`, `seam`, `likeness`, `copied` and `set_distance` of the real defects themselves, against the
          others or in two halves. The other numbers are to be compared with these. A part that was photographed twice
          is a copy here.
        - `types`: the same measures but `real`, of each type alone.

    Raises:
        UserError: when the folder is no output, `limit` is below 1, or the files are not where the manifest says.
    """
    rows = _rows(Path(folder), limit)
    real = _Real(real_pairs, _shape(Path(folder), rows))
    types: dict[str, TypeMeasures] = {}
    for row in rows:
        image, mask = read_image(Path(folder) / row["image"]), read_mask(Path(folder) / row["mask"])
        normal = resize_image(read_image(row["normal_source"]), image.shape[:2]) if row.get("normal_source") else None
        if mask.any():
            nearest = real.gallery(row["type"]).nearest(image, mask)
            edge = filled_with_edge(row)
            filled = None if edge is None else read_mask(Path(folder) / edge)
            found = types.setdefault(row["type"], TypeMeasures())
            found.add(image, mask, normal, nearest[0] if nearest else None, filled)
    made = {kind: found.features for kind, found in types.items()}
    total = _total(types)
    return {
        **total.report(),
        "set_distance": real.distance(made),
        "real": real.report(),
        "types": {
            kind: {**found.report(), "set_distance": real.distance({kind: found.features})}
            for kind, found in sorted(types.items())
        },
    }


def _rows(folder: Path, limit: int) -> list[dict[str, Any]]:
    rows = read_records(folder)
    if not rows or not all({"image", "mask", "type"} <= row.keys() for row in rows):
        raise UserError(f"{folder / 'manifest.jsonl'} is damaged or empty; {synthesized_again(Path(folder))}")
    if limit < 1:
        raise UserError(f"limit={limit} pairs to look at are none; raise it")
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int)]


def _shape(folder: Path, rows: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """The one shape (H,W) of all pictures, None where there are several."""
    shapes = {read_mask(folder / row["mask"]).shape for row in rows}
    return (*shapes.pop(),) if len(shapes) == 1 else None  # type: ignore[return-value]


def _total(types: dict[str, TypeMeasures]) -> TypeMeasures:
    total = TypeMeasures()
    for found in types.values():
        total.merge(found)
    return total


class _Real:
    """The real defects: their galleries and features by type."""

    def __init__(self, pairs: Sequence[SegmentationSample], shape: tuple[int, int] | None):
        self._galleries: dict[str, DefectGallery] = {}
        self._types: dict[str, TypeMeasures] = {}
        shown: list[tuple[str, np.ndarray, np.ndarray]] = []
        for pair in pairs:
            image, labels = pair.read()
            mask = (labels == 1).astype(np.uint8)
            if shape is not None:
                image, mask = resize_image(image, shape), resize_mask(mask, shape)
            if mask.any():
                self._galleries.setdefault(pair.kind, DefectGallery()).add(image, mask, len(shown))
                shown.append((pair.kind, image, mask))
        for i, (kind, image, mask) in enumerate(shown):
            nearest = self._galleries[kind].nearest(image, mask, but=i)
            self._types.setdefault(kind, TypeMeasures()).add(image, mask, None, nearest[0] if nearest else None)
        several = [(kind, f) for kind, found in self._types.items() for f in found.features if len(found.features) > 1]
        self._unit = spread([f for _, f in several], [kind for kind, _ in several]) if several else None

    def gallery(self, kind: str) -> DefectGallery:
        """Of the type's defects."""
        return self._galleries.get(kind, DefectGallery())

    def distance(self, made: dict[str, list[Floats]]) -> float | None:
        """Of defects by type, the mean over the features and over the types by their numbers."""
        return self._distance(made, {kind: found.features for kind, found in self._types.items()})

    def _distance(self, made: dict[str, list[Floats]], true: dict[str, list[Floats]]) -> float | None:
        known = [kind for kind in made if true.get(kind)]
        if self._unit is None or not known:
            return None
        apart = [
            set_distance(_quantiles(made[kind]), _quantiles(true[kind]), [kind] * len(_GRID), self._unit).mean()
            for kind in known
        ]
        return float(np.average(apart, weights=[len(made[kind]) for kind in known]))

    def report(self) -> dict[str, Any]:
        figures = _total(self._types).report()
        halves = [{kind: found.features[i::2] for kind, found in self._types.items()} for i in (0, 1)]
        keys = ("pairs", "seam", "likeness", "copied")
        return {**{key: figures[key] for key in keys}, "set_distance": self._distance(halves[0], halves[1])}


def _quantiles(found: Sequence[Floats]) -> list[Floats]:
    """A set of any size as one of `_GRID`'s, feature by feature: the same distribution."""
    return list(np.quantile(np.array(found), _GRID, axis=0, method="inverted_cdf"))
