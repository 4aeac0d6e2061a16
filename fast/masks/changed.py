"""The mask of what really changed: of an image-mask pair whose method was asked for more than it did."""

from __future__ import annotations

import cv2
import numpy as np

SIGMA = 0.7  # pixels: of the smoothing that takes the sensor's noise off
HIGH, LOW = 4.0, 2.0  # in units of the surface's noise: what a changed region must reach, and what belongs to it
NOISE = 1.0  # grey levels: no less is taken for the noise, on however even a surface
REACH = 24  # pixels around the mask in which the surface's noise is measured
GAP = 2  # pixels: gaps of up to twice this width are closed
HOLE = 30  # pixels: holes of up to so many are filled
MARGIN = 4  # pixels around the mask in which a change counts where a method may change what lies outside
NEARLY = 0.1  # share of the asked mask below which next to nothing was done


def changed_mask(normal: np.ndarray, image: np.ndarray, asked: np.ndarray, margin: int = 0) -> np.ndarray:
    """Where `image` differs from `normal` visibly: uint8 (H,W) in {0,1}, inside `asked` grown by `margin` pixels.

    normal, image: uint8 (H,W,3); asked: (H,W), nonzero = defect. The difference, slightly smoothed, is taken in units
    of the surface's noise (per channel, the largest counts). A region of more than `LOW` that reaches `HIGH` somewhere
    is kept (hysteresis, Canny 1986), its narrow gaps and small holes closed. The mask may be empty.
    """
    allowed = (asked != 0).astype(np.uint8)
    if margin:
        allowed = cv2.dilate(allowed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1)))
    found = np.zeros(allowed.shape, np.uint8)
    if allowed.any():
        box = around(allowed, REACH)
        apart = _apart(normal[box], image[box], allowed[box])
        found[box] = _closed(_hysteresis(apart, allowed[box])) * allowed[box]
    return found


def around(mask: np.ndarray, reach: int) -> tuple[slice, slice]:
    """The bounding box of a mask (H,W) with a defect, grown by `reach` pixels as far as the image goes."""
    left, top, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
    return slice(max(0, top - reach), top + height + reach), slice(max(0, left - reach), left + width + reach)


def _apart(normal: np.ndarray, image: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The smoothed difference (h,w) in units of the noise, 0 where the pixel itself is as it was; smoothed among
    `allowed` pixels alone, so that what was left as it is outside does not weaken it at the border."""
    before, inside = normal.astype(np.float32), allowed.astype(np.float32)
    change = (image.astype(np.float32) - before) * inside[..., None]
    weight = np.maximum(_smooth(inside, SIGMA), 1e-6)
    smooth = np.abs(_smooth(change, SIGMA)) / weight[..., None]
    own = np.abs(change).max(axis=2) > NOISE
    return np.asarray((smooth / surface_noise(before)).max(axis=2) * own)


def surface_noise(normal: np.ndarray) -> np.ndarray:
    """Noise (3,) of a surface, float32 (h,w,3), in grey levels: half the range of the middle 68 % of what the smoothing
    by `SIGMA` leaves and one of three times its width takes away."""
    ground = _smooth(normal, SIGMA)
    low, high = np.percentile(ground - _smooth(ground, 3 * SIGMA), [16, 84], axis=(0, 1))
    return np.asarray(np.maximum((high - low) / 2, NOISE))


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _hysteresis(apart: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Regions (h,w) of `allowed` pixels above `LOW` that hold one above `HIGH`, 8-connected."""
    number, labels = cv2.connectedComponents(((apart > LOW) & (allowed != 0)).astype(np.uint8), connectivity=8)
    starts = np.unique(labels[(apart > HIGH) & (labels > 0)])
    keep = np.zeros(number, np.uint8)
    keep[starts] = 1
    return keep[labels]


def _closed(mask: np.ndarray) -> np.ndarray:
    """A mask (h,w) in {0,1} with gaps of `GAP` and holes of at most `HOLE` pixels filled."""
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GAP + 1, 2 * GAP + 1))
    mask = cv2.morphologyEx(np.pad(mask, 2 * GAP), cv2.MORPH_CLOSE, reach)[2 * GAP : -2 * GAP, 2 * GAP : -2 * GAP]
    number, labels, stats, _ = cv2.connectedComponentsWithStats(np.pad(1 - mask, 1, constant_values=1), connectivity=4)
    small = np.zeros(number, np.uint8)
    small[1:] = stats[1:, cv2.CC_STAT_AREA] <= HOLE
    return mask | small[labels][1:-1, 1:-1]
