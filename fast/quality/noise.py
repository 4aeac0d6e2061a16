"""Whether the grain inside a mask is that of its surroundings, by bands of spatial frequency."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from fast.quality.measure import Floats

# Gaussians (pixels) whose differences are the bands: the finest holds sensor noise, the coarsest a surface's texture.
SIGMAS = (0.0, 0.7, 1.4, 2.8)
CLEAR, REACH = 3, 24  # pixels: away from the border, and how far the surroundings reach


def band_levels(image: np.ndarray, mask: np.ndarray) -> Floats | None:
    """How strong each band is inside the mask over its strength around it, in dB, (3,) from fine to coarse.

    image uint8 (H,W,3), mask (H,W). 0 is the same grain, below 0 it is smoother inside. Neither side counts pixels
    within `CLEAR` of the border, where the seam is. None where that leaves either of them fewer than 20.
    """
    own = (mask != 0).astype(np.uint8)
    inside = cv2.distanceTransform(np.pad(own, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1] > CLEAR
    away = cv2.distanceTransform(1 - own, cv2.DIST_L2, 5)
    around = (away > CLEAR) & (away <= REACH)
    if min(inside.sum(), around.sum()) < 20:
        return None
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    smooth = [grey if s == 0 else cv2.GaussianBlur(grey, (0, 0), s, borderType=cv2.BORDER_REFLECT_101) for s in SIGMAS]
    energy = [((a - b)[inside] ** 2).mean() / max(((a - b)[around] ** 2).mean(), 1e-6) for a, b in pairwise(smooth)]
    return np.asarray(10 * np.log10(np.maximum(energy, 1e-6)))
