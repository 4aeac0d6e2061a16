"""Windows of a picture that a defect is drawn in."""

from __future__ import annotations

import cv2
import numpy as np

NARROWEST = 64  # side in px of the smallest window, however narrow the object is
MARGIN = 12  # px around a given mask that its defect's light may be computed from
# The rule of the mask: of a change of less than this many grey levels nobody can see anything.
SEEN = 3.0
OUTLINE = 4  # px beyond the object's outline that are still a mixture of it and of what lies behind


def depth_in(region: np.ndarray) -> np.ndarray:
    """How many px each pixel (H,W) lies from the object's edge, 0 beyond it; the picture's border is an edge."""
    framed = cv2.copyMakeBorder((region != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], np.float32)


def thickness(region: np.ndarray) -> float:
    """Diameter in px of the largest circle on the object; of a picture that is all object, its shorter side."""
    return 2 * float(depth_in(region).max())


def rim(region: np.ndarray) -> np.ndarray:
    """The object's outermost pixels (H,W); what lies beyond the picture is not the object."""
    framed = np.pad((region != 0).astype(np.uint8), 1)
    return np.asarray(framed - cv2.erode(framed, np.ones((3, 3), np.uint8)), np.uint8)[1:-1, 1:-1]


def widened(region: np.ndarray) -> np.ndarray:
    """The object (H,W), and the part of its outline that lies beyond it."""
    return np.asarray(cv2.dilate(region, np.ones((2 * OUTLINE + 1,) * 2, np.uint8)), np.uint8)


def corner_first(region: np.ndarray, spots: np.ndarray, reach: int) -> int:
    """Of the pixels `spots` at the object's edge, the one with the least object around it: where the object sticks out.

    `spots` are numbers of pixels in `region` (H,W), counted row by row, and `reach` is the side in px of the square
    that is looked at around each. Returns a number like those.
    """
    about = cv2.boxFilter((region != 0).astype(np.float32), -1, (reach, reach), borderType=cv2.BORDER_CONSTANT)
    return int(spots[int(np.argmin(about.ravel()[spots]))])


def window_at(shape: tuple[int, ...], spot: int, side: int) -> tuple[slice, slice]:
    """The window with this `side` in px around a pixel, moved so that it lies within the picture.

    `spot` is the pixel's number in a picture of this `shape`, counted row by row. A picture smaller than `side` has all
    of it.
    """
    y, x = divmod(spot, shape[1])
    found = []
    for at, full in ((y, shape[0]), (x, shape[1])):
        own = min(side, full)
        start = int(np.clip(at - own // 2, 0, full - own))
        found.append(slice(start, start + own))
    return found[0], found[1]


def cut_off(mask: np.ndarray, place: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    """Whether a defect ends at a side of its window where the picture goes on."""
    rows, cols = place
    return bool(
        (rows.start > 0 and mask[0].any())
        or (rows.stop < shape[0] and mask[-1].any())
        or (cols.start > 0 and mask[:, 0].any())
        or (cols.stop < shape[1] and mask[:, -1].any())
    )


def around(box: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The window around a part of a mask whose `box` is given, with a margin and large enough to be drawn in.

    The margin is `MARGIN` px, and a side is at least `NARROWEST` px, or all of a smaller picture.
    """
    left, top, width, height = (int(v) for v in box[:4])
    found = []
    for start, size, full in ((top, height, shape[0]), (left, width, shape[1])):
        own = min(max(size + 2 * MARGIN, NARROWEST), full)
        begin = int(np.clip(start + size // 2 - own // 2, 0, full - own))
        found.append(slice(begin, begin + own))
    return found[0], found[1]


def seen(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of a drawn mask (h,w) that shows: what changed by `SEEN` grey levels or more.

    Gaps of a pixel in it are closed, and what of the mask it encloses is part of it.
    """
    change = np.abs(after.astype(np.int16) - before).max(2)
    shows = ((change >= SEEN) & (mask != 0)).astype(np.uint8)
    closed = cv2.morphologyEx(shows, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outlines, -1, (1,), cv2.FILLED)
    return np.asarray(closed & mask, np.uint8)


def faded(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The drawn mask (h,w) of a change that fades out towards its border: all of it or nothing.

    It is kept if the change inside it is `SEEN` grey levels or more on average.
    """
    change = np.abs(after.astype(np.int16) - before).max(2)
    return mask if mask.any() and change[mask != 0].mean() >= SEEN else np.zeros_like(mask)
