"""Masks as outlines and outlines as masks, exact where the reader's rule for edges is known."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Outline = np.ndarray  # (N,2) of x, y


def fill(rings: Sequence[Outline], size: tuple[int, int]) -> np.ndarray:
    """Mask (H,W) uint8 in {0,1} of the pixels whose centre lies within polygons, as pycocotools and CVAT fill them.

    `rings`: outlines in pixels, pixel (x, y) being the square from there to (x + 1, y + 1); what an even number of them
    runs around is outside. A polygon without any pixel's centre in it is drawn as its outline, lest a hairline vanish.
    OpenCV would add half a pixel on every side.
    """
    height, width = size
    toggles = np.zeros((height, width + 1), bool)
    for ring in rings:
        start = np.asarray(ring, np.float64)
        end = np.roll(start, -1, axis=0)
        down = start[:, 1] <= end[:, 1]
        upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
        first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(int)
        count = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(int) - first
        edge = np.repeat(np.arange(len(start)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        share = (row + 0.5 - upper[edge, 1]) / (lower - upper)[edge, 1]
        x = upper[edge, 0] + share * (lower - upper)[edge, 0]
        np.logical_xor.at(toggles, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), True)
    mask = np.logical_xor.accumulate(toggles[:, :width], axis=1).astype(np.uint8)
    if not mask.any():
        for ring in rings:
            cells = np.clip(np.floor(ring), -1, [width, height]).astype(np.int32)
            cv2.polylines(mask, [cells.reshape(-1, 1, 2)], isClosed=True, color=1)
    return mask


def fill_with_edges(outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """Mask (H,W) uint8 in {0,1} of a polygon of whole pixels with its edges, as OpenCV fills and YOLO's readers do."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.asarray(outline, np.int32).reshape(-1, 1, 2)], color=1)
    return mask


def parts(mask: np.ndarray, connectivity: int = 8) -> list[tuple[tuple[slice, slice], np.ndarray]]:
    """The parts of a mask (H,W) that do not touch (with 8: not with a corner either): box (rows, columns), and the part
    alone, (h,w) in {0,1}."""
    whole = (np.asarray(mask) != 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=connectivity)
    found = []
    for number in range(1, count):
        left, top, width, height = (int(v) for v in stats[number, :4])
        box = slice(top, top + height), slice(left, left + width)
        found.append((box, (labels[box] == number).astype(np.uint8)))
    return found


def borders(mask: np.ndarray) -> list[Outline]:
    """Closed lines (N,2) along the edges of the pixels of a mask (h,w), corners only: around parts and their holes.

    `fill(borders(mask), mask.shape)` is the mask again. Where two pixels touch with a corner, each line turns back
    around its own.
    """
    padded = np.pad(np.asarray(mask) != 0, 1)
    inside = padded[1:-1, 1:-1]
    sides = ((padded[:-2, 1:-1], 0, 0, 1, 0), (padded[1:-1, 2:], 1, 0, 0, 1),
             (padded[2:, 1:-1], 1, 1, -1, 0), (padded[1:-1, :-2], 0, 1, 0, -1))  # fmt: skip
    edges = {(x + right, y + below, dx, dy) for beside, right, below, dx, dy in sides
             for y, x in np.argwhere(inside & ~beside).tolist()}  # fmt: skip
    lines = []
    for first in sorted(edges):
        corners, edge = [], first
        while edge in edges:
            edges.remove(edge)
            x, y, dx, dy = edge
            x, y = x + dx, y + dy
            ways = [(x, y, -dy, dx), (x, y, dx, dy), (x, y, dy, -dx)]  # to the right, where the mask is; on; left
            edge = next((way for way in ways if way in edges), first)
            if edge[2:] != (dx, dy):
                corners.append((x, y))
        if corners:
            lines.append(np.array(corners))
    return lines


def without_holes(part: np.ndarray) -> list[tuple[tuple[slice, slice], np.ndarray]]:
    """A mask (h,w) cut into parts (box, mask) that have no hole and whose pixels join by their sides."""
    done, left = [], parts(part, connectivity=4)
    while left:
        box, own = left.pop()
        holes = [line for line, around in contours(own) if not around]
        if not holes:
            done.append((box, own))
            continue
        cut = int(holes[0][:, 0].min()) + 1  # the hole's first column
        for columns in (slice(0, cut), slice(cut, own.shape[1])):
            for (rows, within), piece in parts(own[:, columns], connectivity=4):
                top, first = box[0].start, box[1].start + columns.start
                place = (slice(top + rows.start, top + rows.stop), slice(first + within.start, first + within.stop))
                left.append((place, piece))
    return sorted(done, key=lambda found: (found[0][0].start, found[0][1].start))


def contours(part: np.ndarray) -> list[tuple[Outline, bool]]:
    """Lines (N,2) through the pixels that border the background, all of them, and whether each runs around a part
    rather than around a hole."""
    lines, order = cv2.findContours((np.asarray(part) != 0).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [(line.reshape(-1, 2), order[0, i, 3] < 0) for i, line in enumerate(lines)]


def one_outline(part: np.ndarray) -> Outline:
    """One closed line (N,2) through the pixels of a part that touches with corners at least, its holes reached by
    bridges: `fill_with_edges` gives the part again."""
    found = contours(part)
    line = next(points for points, around in found if around).tolist()
    holes = sorted((points.tolist() for points, around in found if not around), key=lambda points: min(points))
    for hole in holes:
        x, y = min(hole)
        start = hole.index([x, y])
        known = {tuple(point): i for i, point in enumerate(line)}
        at = x
        while (at, y) not in known:  # a hole further left comes earlier, the outer line at last
            at -= 1
        i = known[at, y]
        line = [*line[: i + 1], *hole[start:], *hole[: start + 1], *line[i:]]
    return straightened(np.array(line))


def straightened(line: Outline) -> Outline:
    """A closed line without the points that lie on the way from the one before to the one after."""
    here, before = np.sign(np.roll(line, -1, axis=0) - line), np.sign(line - np.roll(line, 1, axis=0))
    kept = line[(here != before).any(axis=1)]
    return kept if len(kept) else line[:1]
