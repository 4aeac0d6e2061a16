"""How good a picture of a defect is, without a network: PSNR and SSIM, visibility inside the mask, distance to true
defects. Pictures are uint8 (H,W,3), masks (H,W), nonzero = defect; changes are in grey levels of 255."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from ldm.metrics import decibels

Floats = NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels
FINE = 1.0  # pixels: what is finer than a Gaussian of this width is detail
AROUND = 8  # pixels: how far the surroundings of a defect reach
FEATURES = ("mean", "std", "p5", "p95", "gradients")


def psnr(image: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """dB for a peak of 255, of all pixels or of those in the mask; 100 at most, for equal pictures."""
    squares = np.square(image.astype(np.float64) - other)
    error = (squares if mask is None else squares[mask != 0]).mean()
    return float(decibels(torch.tensor(error), 255))


def ssim_map(image: np.ndarray, other: np.ndarray) -> Floats:
    """SSIM (H,W) about each pixel, the mean of the channels (Wang et al. 2004); mirrored beyond the picture's edge."""

    def local(x: Floats) -> Floats:
        blurred = cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred, np.float64)

    a, b = image.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    shared = local(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    return np.asarray((alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean(2), np.float64)


def ssim(image: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean of the map, of all pixels or of those in the mask."""
    found = ssim_map(image, other)
    return float((found if mask is None else found[mask != 0]).mean())


def change(normal: np.ndarray, image: np.ndarray) -> Floats:
    """Absolute change (H,W) from `normal` to `image`, the mean of the channels."""
    return np.abs(image.astype(np.float64) - normal).mean(2)


@dataclass(frozen=True)
class Contrast:
    """Mean absolute change inside the mask, and outside it (0 where there is no outside)."""

    inside: float
    outside: float


def contrast(normal: np.ndarray, image: np.ndarray, mask: np.ndarray) -> Contrast:
    found, own = change(normal, image), mask != 0
    return Contrast(float(found[own].mean()), float(found[~own].mean()) if not own.all() else 0.0)


def seam(image: np.ndarray, mask: np.ndarray, filled: np.ndarray | None = None) -> float | None:
    """The step across a mask's border over the steps next to it, on the same row or column. 1 is no seam.

    A step is the absolute difference of two neighbouring pixels, the mean of the channels. The result is the mean of
    the steps across the border over that of the steps beside it, with 1 grey level added to both. A lens spreads a real
    edge over some pixels, while a paste changes within one.

    Args:
        image, mask: the picture, uint8 (H,W,3), and its mask (H,W), nonzero = defect.
        filled: (H,W), where the picture was changed, if that is more than the mask. Of the two borders the one counts
            that shows more.

    Returns:
        The ratio. None when no step of the border has a neighbour that is not of the border itself.
    """
    if filled is not None:
        return max((s for m in (mask, filled) if (s := seam(image, m)) is not None), default=None)
    across, beside = [], []
    for axis in (0, 1):
        values, own = np.moveaxis(image.astype(np.float32), axis, 0), np.moveaxis(mask != 0, axis, 0)
        step, border = np.abs(np.diff(values, axis=0)).mean(2), own[1:] != own[:-1]
        across.append(step[border])
        beside += [step[:-1][border[1:] & ~border[:-1]], step[1:][border[:-1] & ~border[1:]]]
    crossing, near = np.concatenate(across), np.concatenate(beside)
    return float((crossing.mean() + 1) / (near.mean() + 1)) if len(crossing) and len(near) else None


def texture(image: np.ndarray, mask: np.ndarray) -> float | None:
    """The fine detail inside a mask over that around it. 1 is as much as the surface has, below 1 is smoother.

    Detail is the mean square of what a Gaussian of `FINE` pixels takes away, the mean of the channels. The result is
    the detail inside over that outside, with the square of a grey level added to both. Inside, pixels next to the
    border are left out where others remain. Outside, the `AROUND` pixels beyond the first two count.

    Args:
        image, mask: the picture, uint8 (H,W,3), and its mask (H,W), nonzero = defect.

    Returns:
        The ratio. None where there is no such pixel on one side.
    """
    near, far = (
        cv2.dilate((mask != 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)))
        for r in (2, 2 + AROUND)
    )
    ring, inner = (far > 0) & (near == 0), cv2.erode((mask != 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    own = inner if inner.any() else mask != 0
    if not ring.any() or not own.any():
        return None
    x = image.astype(np.float32)
    detail = np.square(x - cv2.GaussianBlur(x, (0, 0), FINE, borderType=cv2.BORDER_REFLECT_101)).mean(2)
    return float((detail[own].mean() + 1) / (detail[ring].mean() + 1))


def noise_limit(errors: np.ndarray, mask: np.ndarray, percent: float = 95.0) -> float:
    """The change inside this mask below which nothing was done but coding and decoding: of `errors` (N,H,W), those of
    N flawless pictures that went through the first stage, each one's mean inside the mask, the percentile."""
    return float(np.percentile(errors[:, mask != 0].mean(1), percent))


def features(normal: np.ndarray, image: np.ndarray, mask: np.ndarray) -> Floats:
    """What a defect does to its ground, (5,) in the order of `FEATURES`.

    The mean, standard deviation, 5th and 95th percentile of the signed change of luminance inside the mask; and the
    natural logarithm of the picture's mean squared gradient there over that within `AROUND` pixels around it, 1 added
    to both, the square of a grey level per pixel; 0 where the mask leaves no surroundings.
    """
    own = mask != 0
    grey, before = _luminance(image), _luminance(normal)
    moved = (grey - before)[own]
    rows, columns = np.gradient(grey)
    energy = np.asarray(rows**2 + columns**2)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * AROUND + 1, 2 * AROUND + 1))
    ring = (cv2.dilate(own.astype(np.uint8), reach) != 0) & ~own
    rough = np.log((energy[own].mean() + 1) / (energy[ring].mean() + 1)) if ring.any() else 0.0
    low, high = np.percentile(moved, [5, 95])
    return np.array([moved.mean(), moved.std(), low, high, rough])


def _luminance(image: np.ndarray) -> Floats:
    return np.asarray(image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]), np.float64)


def spread(found: Sequence[Floats], groups: Sequence[Hashable]) -> Floats:
    """How much the features (5,) of two true defects of one group differ: the mean absolute difference (5,) over all
    pairs within a group. ValueError when no group has two."""
    rows: dict[Hashable, list[Floats]] = {}
    for feature, group in zip(found, groups, strict=True):
        rows.setdefault(group, []).append(feature)
    apart = [np.abs(a - b) for row in rows.values() for a, b in combinations(row, 2)]
    if not apart:
        raise ValueError("no group holds two defects")
    return np.asarray(np.maximum(np.mean(apart, axis=0), 1e-6), np.float64)


def distance(made: Sequence[Floats], true: Sequence[Floats], unit: Floats) -> Floats:
    """How far made defects are from the true ones of the same material, type and mask, (5,) in units of `spread`.

    The mean absolute difference of the features, pair by pair, divided by `unit`: 0, the same statistics; 1, as far
    apart as two true defects of one material and type are from each other. The mean of the five is the distance.
    """
    apart = [np.abs(a - b) for a, b in zip(made, true, strict=True)]
    return np.asarray(np.mean(apart, axis=0) / unit, np.float64)


def set_distance(made: Sequence[Floats], true: Sequence[Floats], groups: Sequence[Hashable], unit: Floats) -> Floats:
    """How far all made defects of a group are from all its true ones, whichever is compared with which, (5,) in units
    of `spread`.

    Per feature the distance of the two sets of values that moves least (Wasserstein), the mean over the groups weighted
    by their sizes. `distance` is smallest for the middle of what is possible; this one asks for the variety too.
    """
    a, b, number = np.array(made), np.array(true), {group: i for i, group in enumerate(dict.fromkeys(groups))}
    numbers = np.array([number[group] for group in groups])
    apart = [
        np.sum(numbers == i) * np.array(list(map(wasserstein_distance, a[numbers == i].T, b[numbers == i].T)))
        for i in number.values()
    ]
    return np.asarray(np.sum(apart, axis=0) / len(numbers) / unit, np.float64)
