"""Which windows of a picture have to be sampled: around its defects, at the picture's own resolution."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Components are found on cells of this side, which keeps a label map out of a large picture's memory. It is no option:
# eight bytes of a mask are read as one word.
CELL = 8
NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Region:
    """A window of a picture, in its pixels, and the defect pixels that this window has to make.

    Where the picture is smaller than the window, the window starts at 0 and reaches beyond it to the right or bottom.
    Else it lies inside.

    Args:
        top, left: its first row and column.
        height, width: its sides.
        mask: uint8 (height, width) in {0,1}, the window's own defect pixels, 0 beyond the picture.
    """

    top: int
    left: int
    height: int
    width: int
    mask: np.ndarray


@dataclass(frozen=True)
class _Rules:
    """What sides a window has; boxes are int64 (..., 4): top, left, bottom, right of defects, the ends excluded."""

    shape: tuple[int, int]
    stride: int
    margin: int
    least: int

    def context(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and last (excluded) row and column, (..., 2) each, of a defect and its margin inside the picture."""
        return np.maximum(boxes[..., :2] - self.margin, 0), np.minimum(boxes[..., 2:] + self.margin, self.shape)

    def sides(self, boxes: np.ndarray) -> np.ndarray:
        """Height and width (..., 2) of the windows, at most those of `whole`."""
        first, last = self.context(boxes)
        sides = _round_up(np.maximum(last - first, self.least), self.stride)
        return np.minimum(sides, _round_up(np.asarray(self.shape), self.stride))

    def cost(self, boxes: np.ndarray) -> np.ndarray:
        """Area (...) of the windows in pixels."""
        return self.sides(boxes).prod(axis=-1)

    def windows(self, boxes: np.ndarray) -> np.ndarray:
        """Top, left, height, width (..., 4): centred on the defect, then moved inside the picture."""
        sides = self.sides(boxes)
        start = np.clip((boxes[..., :2] + boxes[..., 2:] - sides) // 2, 0, np.maximum(self.shape - sides, 0))
        return np.concatenate([start, sides], axis=-1)

    def reach(self, boxes: np.ndarray) -> np.ndarray:
        """First and last row and column (4, ...) that another's reach has to touch for a joint window to pay.

        The joint window's area is at most the sum of both, and it is at least as wide as the wider, so it is at most
        as high as both together: the gap between them is at most what their windows have to spare.
        """
        first, last = self.context(boxes)
        spare = self.sides(boxes) - (last - first)
        return np.moveaxis(np.concatenate([first - spare, last + spare], axis=-1), -1, 0)


def plan(mask: np.ndarray, *, stride: int, margin: int, least: int) -> list[Region]:
    """Find windows that together hold every defect pixel of a mask.

    Components (8-connected) are never split, and those within a few pixels of each other (adjacent cells of 8) are
    joined. Then windows are merged as long as one costs no more than two apart, where the cost is the area. If all
    together cost at least as much as `whole`, that is returned alone.

    Args:
        mask: (H,W), nonzero = defect.
        stride: sides of windows are multiples of this, in pixels.
        margin: pixels of context on each side of a defect's bounding box, as far as the picture goes.
        least: least side of a window in pixels.

    Returns:
        The windows, ordered by (top, left).

    Raises:
        ValueError: the mask is empty.
    """
    padded = _padded(mask, CELL)
    rules = _Rules(mask.shape, stride, margin, least)
    owner, boxes = _components(padded)
    for merge in (_merge_crowds, _merge_pairs):
        groups, boxes = merge(boxes, rules)
        owner = np.append(groups, -1)[owner]  # -1, no component, stays -1
    windows = rules.windows(boxes)
    if windows[:, 2:].prod(axis=1).sum() >= _round_up(np.asarray(mask.shape), stride).prod():
        return [whole(mask, stride=stride)]
    order = np.lexsort(windows.T[::-1])
    return [_region(padded, owner, k, *windows[k].tolist()) for k in order]


def whole(mask: np.ndarray, *, stride: int) -> Region:
    """One window that covers the picture of `mask` (H,W), sides rounded up to multiples of `stride` pixels.

    Raises ValueError when the mask is empty.
    """
    padded = _padded(mask, stride)
    height, width = padded.shape
    return Region(0, 0, height, width, padded.view(np.uint8))


def cut(image: np.ndarray, region: Region) -> np.ndarray:
    """Copy (height, width, ...) of the region's window of a picture (H, W, ...).

    Beyond the picture it is mirrored at its edge, the edge pixel twice (numpy's "symmetric"), as often as needed.
    """
    part = image[region.top : region.top + region.height, region.left : region.left + region.width]
    missing = [(0, region.height - part.shape[0]), (0, region.width - part.shape[1])]
    return np.pad(part, missing + [(0, 0)] * (image.ndim - 2), mode="symmetric")


def paste(canvas: np.ndarray, made: np.ndarray, region: Region) -> None:
    """Set the pixels of `canvas` (H, W, ...) where the region's mask is 1 to those of `made` (height, width, ...).

    In place; every other byte of the canvas stays.
    """
    part = canvas[region.top : region.top + region.height, region.left : region.left + region.width]
    height, width = part.shape[:2]
    own = region.mask[:height, :width].astype(bool)
    np.copyto(part, made[:height, :width], where=own.reshape(own.shape + (1,) * (canvas.ndim - 2)))


def share_of(regions: Sequence[Region], number: int) -> np.ndarray:
    """Which pixels of its window a region of `plan` gives to the picture where windows are pasted whole.

    Where two windows overlap, a pixel belongs to the one whose own defect is nearer, or to the earlier one if both are
    as near. So no window covers another's defect, and the order of pasting does not matter.

    Returns:
        uint8 (height, width) in {0,1}.
    """
    own = regions[number]
    share = np.ones_like(own.mask)
    for other, region in enumerate(regions):
        top, left = max(own.top, region.top), max(own.left, region.left)
        bottom = min(own.top + own.height, region.top + region.height)
        right = min(own.left + own.width, region.left + region.width)
        if other == number or bottom <= top or right <= left:
            continue
        here, there = (np.s_[top - r.top : bottom - r.top, left - r.left : right - r.left] for r in (own, region))
        mine, theirs = _far(own)[here], _far(region)[there]
        share[here][(theirs < mine) | ((theirs == mine) & (other < number))] = 0
    return share


def _far(region: Region) -> np.ndarray:
    """Distance (height, width) float32 in pixels of each pixel of a window to its own defect."""
    return cv2.distanceTransform(1 - region.mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def view(regions: Sequence[Region], shape: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the bounding box of at least one window, clipped to a picture of `shape` (H, W, ...)."""
    bottom, right = max(r.top + r.height for r in regions), max(r.left + r.width for r in regions)
    rows = slice(min(r.top for r in regions), min(bottom, shape[0]))
    return rows, slice(min(r.left for r in regions), min(right, shape[1]))


def _round_up(length: np.ndarray, step: int) -> np.ndarray:
    return -(-length // step) * step


def _padded(mask: np.ndarray, step: int) -> np.ndarray:
    """bool copy of the mask, sides rounded up to multiples of `step` with False."""
    height, width = mask.shape
    padded = np.zeros(_round_up(np.array(mask.shape), step), bool)
    np.not_equal(mask, 0, out=padded[:height, :width])
    if not padded.any():
        raise ValueError("the mask holds no defect pixel")
    return padded


def _components(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Component of each cell (h, w), -1 where none, and the components' boxes (n, 4), exact to the pixel."""
    height, width = (side // CELL for side in padded.shape)
    words = padded.view(np.uint64).reshape(height, CELL, width)
    columns = np.bitwise_or.reduce(words, axis=1)
    owner = cv2.connectedComponents((columns != 0).view(np.uint8), connectivity=8)[1] - 1
    y, x = np.nonzero(columns)
    row_hit = (words != 0)[y, :, x]
    column_hit = columns[y, x].view(bool).reshape(-1, CELL)  # a word of bools again
    boxes = np.stack(
        [
            y * CELL + row_hit.argmax(axis=1),
            x * CELL + column_hit.argmax(axis=1),
            (y + 1) * CELL - row_hit[:, ::-1].argmax(axis=1),
            (x + 1) * CELL - column_hit[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    )
    return owner, _unite(boxes, owner[y, x])


def _unite(boxes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Bounding boxes (m, 4) of the boxes (n, 4) of each group, numbered 0..m-1 by `groups` (n,)."""
    united = np.empty((groups.max() + 1, 4), np.int64)
    united[groups] = boxes
    np.minimum.at(united[:, :2], groups, boxes[:, :2])
    np.maximum.at(united[:, 2:], groups, boxes[:, 2:])
    return united


def _merge_crowds(boxes: np.ndarray, rules: _Rules) -> tuple[np.ndarray, np.ndarray]:
    """Join all boxes whose centres share a square where that costs no more, in ever larger squares.

    Returns the group (n,) of each box and the groups' boxes. It leaves few enough of thousands of specks for pairs.
    """
    groups, pitch = np.arange(len(boxes)), 2 * CELL
    while pitch <= max(rules.least, 2 * rules.margin, rules.stride):
        row, column = ((boxes[:, :2] + boxes[:, 2:]) // (2 * pitch)).T
        square = np.unique(row * (rules.shape[1] // pitch + 1) + column, return_inverse=True)[1]
        pays = rules.cost(_unite(boxes, square)) <= np.bincount(square, rules.cost(boxes))
        alone = square.max() + 1 + np.arange(len(boxes))
        joined = np.unique(np.where(pays[square], square, alone), return_inverse=True)[1]
        groups, boxes, pitch = joined[groups], _unite(boxes, joined), 2 * pitch
    return groups, boxes


def _merge_pairs(boxes: np.ndarray, rules: _Rules) -> tuple[np.ndarray, np.ndarray]:
    """Join each box in turn with the one that saves most, until no two are left whose joint window costs no more.

    Returns the group (n,) of each box and the groups' boxes.
    """
    groups, boxes = np.arange(len(boxes)), boxes.copy()
    reach, cost = rules.reach(boxes).copy(), rules.cost(boxes)
    for i in range(len(boxes)):
        while groups[i] == i:
            top, left, bottom, right = reach[:, i].tolist()
            reach[:2, i] = NOWHERE  # out of its own sight, and of everybody's if it is joined
            near = np.flatnonzero((reach[0] <= bottom) & (reach[2] >= top) & (reach[1] <= right) & (reach[3] >= left))
            joint = np.concatenate(
                [np.minimum(boxes[near, :2], boxes[i, :2]), np.maximum(boxes[near, 2:], boxes[i, 2:])], axis=1
            )
            saved = cost[near] + cost[i] - rules.cost(joint)
            best = int(saved.argmax()) if len(near) else -1
            if best < 0 or saved[best] < 0:
                reach[:2, i] = top, left
                break
            j = near[best]
            reach[:2, j] = NOWHERE
            groups[groups == j] = i
            boxes[i] = joint[best]
            reach[:, i], cost[i] = rules.reach(boxes[i]), rules.cost(boxes[i])
    kept, groups = np.unique(groups, return_inverse=True)
    return groups, boxes[kept]


def _region(padded: np.ndarray, owner: np.ndarray, group: int, top: int, left: int, height: int, width: int) -> Region:
    """The window with the defect pixels of one group; `owner` (h, w) has the group of each cell."""
    part = padded[top : top + height, left : left + width]
    cells = owner[top // CELL : -(-(top + height) // CELL), left // CELL : -(-(left + width) // CELL)] == group
    pixels = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)[top % CELL :, left % CELL :]
    mask = np.zeros((height, width), np.uint8)
    mask[: part.shape[0], : part.shape[1]] = part & pixels[: part.shape[0], : part.shape[1]]
    return Region(top, left, height, width, mask)
