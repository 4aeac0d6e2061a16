"""Several images of a part say together where the object is: one that is hard to read is helped by the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fast.data.images import natural_key, read_image
from fast.masks.estimate import Estimate, Finding, estimate, everything, full_size, resized
from fast.masks.ground import SIDE, shrunk

VOTERS, FEWEST = 9, 3  # images asked, and fewest whose vote counts
NONE, MOST = 0.25, 0.5  # share with a ground up to which none is believed to have one, and from which all are
LENIENCY = 2.0  # what an object must show is divided by this once most images have a ground
ALIKE = 0.9  # median overlap (IoU) with their common object from which the part lies in one place
ODD = 0.8  # overlap (IoU) with it below which an image's own object is not believed
SAME_COLOUR = 10.0  # Lab units


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks (h,w) in {0,1}; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


class Vote:
    """What a few images (H,W,3) of a part agree on; asked again about any image of the part by `estimate`.

    `share`: of the images that have a ground. `colour` (3,): the ground's, Lab, where they agree on it. `common` (h,w)
    uint8 in {0,1}: the object, where it lies in the same place in nearly all of them.
    """

    def __init__(self, images: Sequence[np.ndarray]):
        findings = [Finding(image) for image in images if min(image.shape[:2]) >= 16]
        grounded = [f for f in findings if not f.why_not()]
        self.counts = len(findings) >= FEWEST
        self.share = len(grounded) / max(len(findings), 1)
        self.colour = _common_colour([f.model.colour for f in grounded])
        self.common = _common_object([f.found for f in grounded])

    def estimate(self, image: np.ndarray) -> Estimate:
        """Where the object is in an image (H,W,3) of the part."""
        if not self.counts or NONE < self.share < MOST:
            return estimate(image)
        if self.share <= NONE:
            return everything(image, "most images of the part have no ground")
        own = estimate(image, LENIENCY, self.colour)
        if self.common is None or not _same_form(self.common, image):
            return own
        small = resized(own.mask, self.common.shape)
        if not own.everything and overlap(small, self.common) >= ODD:
            return own
        mask = full_size(image, self.common)
        return Estimate(mask) if mask.any() else own


def _common_colour(colours: list[np.ndarray]) -> np.ndarray | None:
    if len(colours) < FEWEST:
        return None
    middle = np.median(colours, axis=0)
    away = np.linalg.norm(np.array(colours) - middle, axis=1)
    # Nearly all: where grounds differ, that of the many would mislead about the few.
    return np.asarray(middle) if np.quantile(away, 0.9) < SAME_COLOUR else None


def _common_object(found: list[np.ndarray]) -> np.ndarray | None:
    if len(found) < FEWEST or len({f.shape for f in found}) > 1:
        return None
    common = (np.mean(found, axis=0) > 0.5).astype(np.uint8)
    return common if np.median([overlap(f, common) for f in found]) >= ALIKE else None


def _same_form(mask: np.ndarray, image: np.ndarray) -> bool:
    ratio = (mask.shape[0] / mask.shape[1]) / (image.shape[0] / image.shape[1])
    return abs(ratio - 1) < 0.02


class Votes:
    """Votes of images by folder, as parts are kept: `of(path)` is that of the folder of an image, made when first asked
    for, from images that lie evenly among those given; None for an image of another folder."""

    def __init__(self, paths: Sequence[Path]):
        self.folders: dict[Path, list[Path]] = {}
        for path in sorted(set(paths), key=natural_key):
            self.folders.setdefault(path.parent, []).append(path)
        self.made: dict[Path, Vote] = {}

    def of(self, path: Path | None) -> Vote | None:
        """The vote for an image's file. Raises `UserError` for an image that cannot be read."""
        if path is None or path.parent not in self.folders:
            return None
        if path.parent not in self.made:
            files = self.folders[path.parent]
            chosen = [files[i * len(files) // VOTERS] for i in range(VOTERS)] if len(files) > VOTERS else files
            # The vote is taken at a small size: so many large images need not lie in memory.
            self.made[path.parent] = Vote([shrunk(read_image(file), SIDE) for file in chosen])
        return self.made[path.parent]
