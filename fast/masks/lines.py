"""What of a mask is narrow, moved as lines that stay joined."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to half of a pixel's eight neighbours


def broad_of(mask: np.ndarray, least: int = 3) -> np.ndarray:
    """The parts of a mask (h,w) in {0,1} that are at least so many pixels wide, an odd number; nothing beyond its
    border is the mask's."""
    square = np.ones((least, least), np.uint8)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(opened, np.uint8)


def narrow_of(mask: np.ndarray, broad: np.ndarray) -> np.ndarray:
    """What of a mask (h,w) in {0,1} is not in its `broad` parts, and a little way into those, so that nothing comes off
    them: bool (h,w)."""
    return (mask == 1) & (cv2.dilate(mask - broad, np.ones((5, 5), np.uint8)) == 1)


def draw_lines(narrow: np.ndarray, targets: Callable[[np.ndarray], np.ndarray], out: np.ndarray) -> None:
    """Draw into `out` (H,W) lines between the centres of neighbouring pixels of `narrow` (h,w) bool, which stay joined
    however they are moved. `targets`: where points (k,2) of it, as x, y, come to lie in `out`."""
    left, top, width, height = cv2.boundingRect(narrow.astype(np.uint8))
    number = np.full((height + 2, width + 2), -1, np.int32)  # no pixel beyond is a neighbour
    rows, columns = np.nonzero(narrow[top : top + height, left : left + width])
    if not len(rows):
        return
    number[rows + 1, columns + 1] = np.arange(len(rows))
    at = placed(np.stack([columns + left, rows + top], axis=1), targets, out.shape)
    out[at[:, 1], at[:, 0]] = 1
    for down, right in STEPS:
        other = number[rows + 1 + down, columns + 1 + right]
        cv2.polylines(out, list(np.stack([at, at[other]], axis=1)[other >= 0]), False, 1)


def placed(points: np.ndarray, targets: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The pixels (k,2) int32, as x, y, of a picture of `shape` that points (k,2) come to lie in or nearest to."""
    last = np.array(shape[1::-1]) - 1
    return np.rint(targets(points)).astype(np.int32).clip(0, last)
