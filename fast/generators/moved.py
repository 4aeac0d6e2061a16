"""A real defect turned, mirrored and scaled, on its way into another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from fast.generators.cutouts import LARGEST, Cutout
from fast.generators.seam import ring_of
from fast.masks.lines import broad_of, draw_lines, narrow_of, placed

UNKNOWN = 50.0  # grey levels by which a ground counts as unlike that cannot be compared


@dataclass(frozen=True)
class Moved:
    """A cutout turned, mirrored and scaled: image (h,w,3), mask (h,w), `filled` (h,w), that with its fringe, `valid`
    (h,w), where its picture is known; the place that it would take as shares of the object's box, whether it has to be
    `near` there, and the borders that it has to lie at."""

    image: np.ndarray
    mask: np.ndarray
    filled: np.ndarray
    valid: np.ndarray
    place: tuple[float, float]
    near: bool
    touches: tuple[bool, bool, bool, bool]


class Way(NamedTuple):
    """How a cutout is changed: mirrored from left to right, scaled in height and in width, then turned by degrees;
    `keep`: the rows and columns of it that are taken."""

    mirror: bool
    turn: float
    scale: tuple[float, float]
    keep: tuple[slice, slice] = (slice(None), slice(None))


def spanning(cutout: Cutout, rng: np.random.Generator, mirror: bool, scale: float, size: tuple[int, int]) -> Way:
    """The way of a cutout that goes from border to border, for an object whose box has this height and width: a shorter
    object gets a piece of it, by chance, a longer one gets it stretched. Across it is scaled by `scale`, and covers at
    most the share of the object that makes a defect movable."""
    scales, keep = [scale, scale], [slice(None), slice(None)]
    box = cv2.boundingRect(cutout.mask)[3:1:-1]
    inside = rng.choice(np.argwhere(cutout.mask))  # a piece around it is not empty
    for axis, spans in enumerate(cutout.spans):
        length = cutout.mask.shape[axis]
        if spans and size[axis] <= length:
            first = int(np.clip(inside[axis] - rng.integers(size[axis]), 0, length - size[axis]))
            keep[axis], scales[axis] = slice(first, first + size[axis]), 1.0
        elif spans:
            scales[axis] = size[axis] / length
        else:
            scales[axis] = min(scale, LARGEST * size[axis] / box[axis])
    return Way(mirror, 0.0, (scales[0], scales[1]), (keep[0], keep[1]))


def moved_by(way: Way, cutout: Cutout, near: bool) -> Moved:
    """The cutout changed so; `near`: see `Moved`."""
    y, x = cutout.place
    top, bottom, left, right = cutout.touches
    touches = (top, bottom, right, left) if way.mirror else cutout.touches
    pieces = (a[way.keep] for a in (cutout.image, cutout.mask, cutout.filled, cutout.clean))
    image, *masks = (a[:, ::-1] if way.mirror else a for a in pieces)
    turned, own, filled, valid = warped(image, masks, way.turn, way.scale)
    return Moved(turned, own, filled, valid, (y, 1 - x if way.mirror else x), near, touches)


def warped(
    image: np.ndarray, masks: Sequence[np.ndarray], degrees: float, scale: tuple[float, float]
) -> list[np.ndarray]:
    """Image (h,w,3) and masks (h,w) scaled, in height and in width, and then turned, on a canvas that holds all of
    them."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((0, 0), degrees, 1)
    turn[:, :2] *= np.array(scale[::-1])
    wide, high = (max(1, int(np.ceil(v - 1e-6))) for v in np.abs(turn[:, :2]) @ [width, height])
    turn[:, 2] = np.array([wide - 1, high - 1]) / 2 - turn[:, :2] @ [(width - 1) / 2, (height - 1) / 2]
    size, least = (wide, high), min(scale)
    soft = cv2.GaussianBlur(image, (0, 0), 0.45 / least) if least < 0.9 else np.ascontiguousarray(image)
    # OpenCV never comes back from reflecting what has one row.
    border = cv2.BORDER_REFLECT_101 if min(height, width) > 1 else cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(soft, turn, size, flags=cv2.INTER_CUBIC, borderMode=border)
    return [moved, *(_warped_mask(mask, turn, size, least) for mask in masks)]


def _warped_mask(mask: np.ndarray, turn: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    """A pixel is the mask's from half of its share on. Where narrow parts fell apart by that or are gone, a hairline
    between two rows say, they are drawn as lines."""
    found = (cv2.warpAffine(mask.astype(np.float32), turn, size, flags=cv2.INTER_LINEAR) >= 0.5).astype(np.uint8)

    def targets(points: np.ndarray) -> np.ndarray:
        return points @ turn[:, :2].T + turn[:, 2]

    narrow = narrow_of(mask, broad_of(mask, max(3, 2 * round(1 / scale) + 1)))
    at = placed(np.argwhere(narrow)[:, ::-1], targets, found.shape)
    gone = cv2.dilate(found, np.ones((3, 3), np.uint8))[at[:, 1], at[:, 0]] == 0
    if gone.any() or _pieces(found) > _pieces(mask):
        draw_lines(narrow, targets, found)
    if mask.any() and not found.any():  # much smaller, and between its pixels: where its middle is
        at = placed(np.argwhere(mask).mean(0)[None, ::-1], targets, found.shape)
        found[at[0, 1], at[0, 0]] = 1
    return found


def _pieces(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask, connectivity=8)[0]


def overlap(
    shape: tuple[int, ...], size: tuple[int, ...], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a piece of `size` at a corner lies in a picture of `shape`, and which part of the piece that is."""
    here, there = [], []
    for axis in (0, 1):
        begin, end = max(0, corner[axis]), min(shape[axis], corner[axis] + size[axis])
        end = max(begin, end)
        here.append(slice(begin, end))
        there.append(slice(begin - corner[axis], end - corner[axis]))
    return (here[0], here[1]), (there[0], there[1])


def unlike(image: np.ndarray, moved: Moved, corner: tuple[int, int]) -> float:
    """How far the ground at a place differs from the piece's own, in grey levels: by its level and by its texture."""
    here, there = overlap(image.shape, moved.mask.shape, corner)
    ring = ring_of(moved.filled)[there] & (moved.valid[there] > 0)
    if ring.sum() < 8:
        return UNKNOWN
    own, other = (p[ring].astype(np.float32).mean(1) for p in (moved.image[there], image[here]))
    return abs(float(own.mean() - other.mean())) + abs(float(own.std() - other.std()))


def grey_of(image: np.ndarray) -> np.ndarray:
    """As a grey camera would have taken it."""
    return np.repeat(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
