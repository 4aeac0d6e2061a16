"""Where in another picture of a part the surroundings of a defect are found again: the same flank, the same edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 96  # px, at most, of the longer side of surroundings: structure, no grain
LEAST = 48  # px of them on each side of a defect, and at least its own size, at most a quarter of the picture
HIDDEN = 3  # px around marks whose look is the defect's
# Correlation from which a place is taken for the same; of pores on tiles, which have none, the median best is 0.3.
FOUND = 0.6
NEARLY = 0.03  # by which others may be less alike than the best: along a groove any place is as good
AREA = 384  # px, at most, of the longer side of what is searched
FARTHER = 0.3  # that a place counts as less alike at the end of the reach
NOWHERE = np.zeros((0, 2))


class Surroundings(NamedTuple):
    """`grey` (h,w) uint8 around a defect at `scale` of its picture's size, `known` (h,w) in {0,1}: where no defect is;
    `middle`: (y, x) of the defect's box in it, in the picture's pixels."""

    grey: np.ndarray
    known: np.ndarray
    scale: float
    middle: tuple[float, float]


def surroundings_of(image: np.ndarray, mask: np.ndarray, box: Sequence[int]) -> Surroundings:
    """Those of the defect in a `box` (left, top, width, height) of image (H,W,3) uint8, whose defects `mask` (H,W)
    marks."""
    left, top, width, height = box
    margin = min(max(LEAST, width, height), min(image.shape[:2]) // 4)  # else there is nowhere to look for them
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    grey = _grey(image[rows, columns])
    hidden = cv2.dilate((mask[rows, columns] != 0).astype(np.uint8), np.ones((2 * HIDDEN + 1,) * 2, np.uint8))
    scale = min(1.0, SIDE / max(grey.shape))
    small = _smaller(grey, scale)
    known = 1 - cv2.resize(hidden, small.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return Surroundings(small, known, scale, (top + height / 2 - rows.start, left + width / 2 - columns.start))


def found_again(own: Surroundings, image: np.ndarray, middle: Sequence[float], reach: Sequence[float]) -> np.ndarray:
    """Middles (n,2), (y, x) in px, at which a defect would have such surroundings in image (H,W,3) uint8; looked for
    within `reach` (y, x) px of `middle`. None where the best correlates by less than `FOUND`.

    Normalized correlation of light and dark, the defect's own place left out, so that another exposure does not matter.
    """
    size = [side / own.scale for side in own.grey.shape]
    begin = [max(0, int(middle[i] - own.middle[i] - reach[i])) for i in (0, 1)]
    end = [int(np.ceil(middle[i] - own.middle[i] + size[i] + reach[i])) for i in (0, 1)]
    part = image[begin[0] : max(end[0], 0), begin[1] : max(end[1], 0)]
    if 0 in part.shape or not own.known.any():
        return NOWHERE
    coarse = min(1.0, AREA / (max(part.shape[:2]) * own.scale))
    scale, there = own.scale * coarse, _smaller(_grey(part), own.scale * coarse)
    template, known = (_smaller(a.astype(np.float32), coarse) for a in (own.grey, own.known))
    if there.shape[0] < template.shape[0] or there.shape[1] < template.shape[1]:
        return NOWHERE
    alike = cv2.matchTemplate(there.astype(np.float32), template, cv2.TM_CCOEFF_NORMED, mask=np.floor(known))
    alike = np.where(np.isfinite(alike) & (np.abs(alike) <= 1.01), alike, -1.0)  # what is plain has no correlation
    if alike.max() < FOUND:
        return NOWHERE
    places = np.indices(alike.shape).transpose(1, 2, 0) / scale + begin + own.middle
    off = (((places - np.asarray(middle)) / np.asarray(reach)) ** 2).sum(2)
    alike = np.where(alike < FOUND, -np.inf, alike - FARTHER * off)
    return np.asarray(places[alike >= alike.max() - NEARLY])


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))


def _smaller(grey: np.ndarray, scale: float) -> np.ndarray:
    size = [max(1, round(side * scale)) for side in grey.shape]
    return np.asarray(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_AREA))
