"""Windows of a picture that a defect is drawn in."""

from __future__ import annotations

import cv2
import numpy as np

NARROWEST = 64  # side in px of the smallest window, however narrow the object is
MARGIN = 12  # px around a given mask that its defect's light may be computed from
# The rule of the mask: of a change of less than this many grey levels nobody can see anything.
SEEN = 3.0
BEHIND = 100  # pixels beside the object that tell what lies behind it


def thickness(region: np.ndarray) -> float:
    """Diameter in px of the largest circle on the object; of a picture that is all object, its shorter side."""
    framed = cv2.copyMakeBorder((region != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return 2 * float(cv2.distanceTransform(framed, cv2.DIST_L2, 5).max())


def rim(region: np.ndarray) -> np.ndarray:
    """The object's outermost pixels (H,W); what lies beyond the picture is not the object."""
    framed = np.pad((region != 0).astype(np.uint8), 1)
    return np.asarray(framed - cv2.erode(framed, np.ones((3, 3), np.uint8)), np.uint8)[1:-1, 1:-1]


def window_at(shape: tuple[int, ...], spots: np.ndarray, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A window of a picture about a random pixel of the object, given by number, kept within the picture."""
    y, x = divmod(int(rng.choice(spots)), shape[1])
    found = []
    for at, full in ((y, shape[0]), (x, shape[1])):
        own = min(side, full)
        start = int(np.clip(at - own // 2, 0, full - own))
        found.append(slice(start, start + own))
    return found[0], found[1]


def hanging_over(
    image: np.ndarray, spot: tuple[int, int], side: int
) -> tuple[np.ndarray, tuple[slice, slice], tuple[slice, slice]]:
    """The square window (side, side, 3) about a pixel (y, x), mirrored where it hangs over the picture's edge; the part
    of it that lies in the picture, and where that is."""
    inner, place, pads = [], [], []
    for at, full in zip(spot, image.shape, strict=False):
        start = at - side // 2
        place.append(slice(max(0, start), min(full, start + side)))
        pads += [max(0, -start), max(0, start + side - full)]
        inner.append(slice(pads[-2], side - pads[-1]))
    piece = image[place[0], place[1]]
    window = np.pad(piece, ((pads[0], pads[1]), (pads[2], pads[3]), (0, 0)), mode="symmetric")
    return window, (inner[0], inner[1]), (place[0], place[1])


def gone(
    before: np.ndarray, after: np.ndarray, mask: np.ndarray, region: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """`after` (h,w,3) with what lies behind the object inside the mask, if enough of it is in this window: the part is
    missing there, and the object ends sooner."""
    behind = region == 0
    if behind.sum() < BEHIND:
        return after
    colour = np.median(before[behind].astype(np.float32), axis=0)
    ground = colour + noise * rng.standard_normal((*mask.shape, 1), dtype=np.float32)
    share = cv2.GaussianBlur((mask != 0).astype(np.float32), (0, 0), 0.8)[..., None]
    return np.clip(np.rint(before + share * (ground - before)), 0, 255).astype(np.uint8)


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
    """The window of a picture around a part of a mask, with a margin and no smaller than what can be drawn in."""
    left, top, width, height = (int(v) for v in box[:4])
    found = []
    for start, size, full in ((top, height, shape[0]), (left, width, shape[1])):
        own = min(max(size + 2 * MARGIN, NARROWEST), full)
        begin = int(np.clip(start + size // 2 - own // 2, 0, full - own))
        found.append(slice(begin, begin + own))
    return found[0], found[1]


def seen(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Of a drawn mask (h,w) what changed by `SEEN` grey levels or more, and what of the mask that encloses."""
    change = np.abs(after.astype(np.int16) - before).max(2)
    shows = ((change >= SEEN) & (mask != 0)).astype(np.uint8)
    closed = cv2.morphologyEx(shows, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outlines, -1, (1,), cv2.FILLED)
    return np.asarray(closed & mask, np.uint8)
