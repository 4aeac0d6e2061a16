"""What a segmenter finds away from every mark: a defect that nobody marked, or a false alarm."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from fast.segmentation.data import SegmentationSample
from fast.segmentation.parts import part_of

NEAR = 1 / 32  # of a picture's longer side, as the network sees it: what is found so near to a mark belongs to it
LEAST = 0.002  # of a picture: less is not worth a look
LISTED = 6  # pictures


class Unmarked:
    """The pictures in which most was found where nothing is marked, one of a physical part.

    An IoU takes every pixel found outside the marks for a mistake. Where marks are missing it is too low, and lowest
    for whoever finds most; only somebody who looks at the pictures can tell."""

    def __init__(self) -> None:
        self._most: dict[tuple[str, str], tuple[float, SegmentationSample]] = {}

    def add(self, sample: SegmentationSample, found: np.ndarray, labels: np.ndarray) -> None:
        """What was `found` (H,W) bool in a picture with these labels (H,W), 0, 1 or 255 for pixels to ignore."""
        if float((found & (labels == 0)).mean()) < LEAST:  # what every test goes through: most end here
            return
        share = away(found, labels)
        part = part_of(sample)
        if share >= LEAST and share > self._most.get(part, (0.0, sample))[0]:
            self._most[part] = (share, sample)

    def report(self) -> list[dict[str, Any]]:
        """`image`, `type` and `share` of the picture, the largest first."""
        most = sorted(self._most.values(), key=lambda item: -item[0])[:LISTED]
        return [{"image": s.name, "type": s.kind, "share": round(share, 4)} for share, s in most]


def away(found: np.ndarray, labels: np.ndarray) -> float:
    """The share of a picture's pixels in regions of `found` (H,W) that touch nothing marked or to be ignored in
    `labels` (H,W), nor come within `NEAR` of it."""
    near = np.zeros(labels.shape, bool)
    if labels.any():
        distance = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = distance <= NEAR * max(labels.shape)
    _, regions, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0  # what was not found
    areas[np.unique(regions[near])] = 0
    return float(areas.sum() / found.size)
