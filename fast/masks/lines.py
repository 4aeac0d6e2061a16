"""What of a mask is narrow, moved as lines that stay joined."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

THIN = np.ones((3, 3), np.uint8)  # what does not hold this square is drawn as lines
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to half of a pixel's eight neighbours


def broad_of(mask: np.ndarray) -> np.ndarray:
    """The parts of a mask (h,w) in {0,1} that are at least three pixels wide."""
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, THIN), np.uint8)


def draw_narrow(
    mask: np.ndarray, broad: np.ndarray, targets: Callable[[np.ndarray], np.ndarray], out: np.ndarray
) -> None:
    """Draw into `out` (H,W) what of `mask` (h,w) in {0,1} is not in its `broad` parts, and a little way into those, so
    that nothing comes off them: lines between the centres of neighbouring pixels. `targets`: where points (k,2) of the
    mask, as x, y, come to lie in `out`."""
    near = cv2.dilate(mask - broad, np.ones((5, 5), np.uint8))
    number = np.full((mask.shape[0] + 2, mask.shape[1] + 2), -1)  # no pixel beyond the mask is a neighbour
    rows, columns = np.nonzero((mask == 1) & (near == 1))
    if not len(rows):
        return
    number[rows + 1, columns + 1] = np.arange(len(rows))
    last = np.array(out.shape[::-1]) - 1
    at = np.rint(targets(np.stack([columns, rows], axis=1))).astype(np.int32).clip(0, last)
    out[at[:, 1], at[:, 0]] = 1
    for down, right in STEPS:
        other = number[rows + 1 + down, columns + 1 + right]
        cv2.polylines(out, list(np.stack([at, at[other]], axis=1)[other >= 0]), False, 1)
