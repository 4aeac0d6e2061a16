"""Masks brought onto the object."""

import cv2
import numpy as np

from fast.data.images import resize_mask
from ldm.errors import UserError

INSIDE = 0.95  # share of the defect that has to lie on the object
SHRINK, LEAST = 0.8, 0.3  # each next size and the smallest, as factors of the mask's own


def share_inside(mask: np.ndarray, region: np.ndarray) -> float:
    """Share of a mask's defect pixels (H,W) that lie in the region (H,W)."""
    found = mask != 0
    return float((region[found] != 0).mean()) if found.any() else 0.0


def overlaps(part: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How many defect pixels of a part (h,w) lie in the region (H,W), both in {0,1}, for every place that the part has
    in the picture: (H-h+1, W-w+1), by top left corner."""
    # A cross-correlation, which OpenCV computes by the Fourier transform where that is faster; counts are whole.
    counts = cv2.matchTemplate(region.astype(np.float32), part.astype(np.float32), cv2.TM_CCORR)
    return np.asarray(np.rint(counts), np.int64)


def placed(mask: np.ndarray, region: np.ndarray, rng: np.random.Generator, inside: float = INSIDE) -> np.ndarray:
    """A mask (H,W), nonzero = defect, moved at random so that at least the share `inside` of it lies in the region
    (H,W), nonzero = object: (H,W) uint8 in {0,1}, never empty.

    Every such place is equally likely. Where there is none the mask is made smaller, to 0.3 of its size at the least,
    and then the best place counts. What lies outside is cut off. Raises `UserError` where either is empty.
    """
    if not mask.any() or not region.any():
        raise UserError(f"the {'region of the object' if mask.any() else 'mask'} to place is empty; give another")
    ground = (region != 0).astype(np.uint8)
    left, top, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
    own = (mask[top : top + height, left : left + width] != 0).astype(np.uint8)
    factor = 1.0
    while True:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        part = resize_mask(own, size)
        counts = overlaps(part, ground)
        fitting = counts >= inside * part.sum()
        last = factor * SHRINK < LEAST or size == (1, 1)
        if fitting.any() or last:
            places = np.flatnonzero(fitting if fitting.any() else counts == counts.max())
            found = _at(part, mask.shape, int(rng.choice(places))) & ground
            return found if found.any() else _dot(ground, rng)
        factor *= SHRINK


def _at(part: np.ndarray, shape: tuple[int, ...], place: int) -> np.ndarray:
    """The part in an empty mask of `shape`, at one of its places, counted row by row."""
    top, left = divmod(place, shape[1] - part.shape[1] + 1)
    out = np.zeros(shape, np.uint8)
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def _dot(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One pixel of the region: what is left where a mask meets the object nowhere."""
    out = np.zeros(region.shape, np.uint8)
    out.flat[int(rng.choice(np.flatnonzero(region)))] = 1
    return out
