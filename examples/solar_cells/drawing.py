"""Defects of solar cells as electroluminescence images show them, drawn into images of functional cells.

A cell glows where current flows, so a defect only takes light away: cracks are dark lines, areas that a crack or a
failed contact cuts off are dark up to the next finger, busbar or crack, interrupted fingers are dark streaks.
Every drawing is a gain (h, w) in 0..1 that the image is multiplied by. Busbars run along rows, fingers along columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from fast.procedural.noise import Field, Rng, blur, fractal

Mask = np.ndarray
OVERSAMPLE, TRIES = 4, 32
BAR = 21  # px: busbars up to this wide are part of the wafer
LEAST_CHANGE, LEAST_AREA = 3.0, 40  # grey levels from which a change shows; pixels


@dataclass(frozen=True)
class Cell:
    """What a drawing needs to know of a cell: `wafer`, bool (h, w), the lit part with busbars; `bars`, rows of busbars;
    `mono`: of one crystal, whose cracks run straight and mostly along its diagonals."""

    wafer: Mask
    bars: tuple[int, ...]
    mono: bool

    @property
    def strips(self) -> list[tuple[int, int]]:
        """(first row, end) of what lies between edge, busbars and edge."""
        rows = np.flatnonzero(self.wafer.any(axis=1))
        bounds = [int(rows[0]), *self.bars, int(rows[-1]) + 1]
        return [(a, b) for a, b in pairwise(bounds) if b - a > 10]


def look(image: np.ndarray, mono: bool) -> Cell:
    """Read the cell in a grey image, uint8 (h, w)."""
    soft = blur(image.astype(np.float32), 2.0)
    lit = (soft > 0.6 * np.median(soft)).astype(np.uint8)
    # Dark all around, so that the frame is not closed too.
    wide = cv2.copyMakeBorder(lit, BAR, BAR, BAR, BAR, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((BAR, BAR), np.uint8))[BAR:-BAR, BAR:-BAR]
    count, parts, boxes, _ = cv2.connectedComponentsWithStats(closed)
    largest = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA])) if count > 1 else 0
    wafer = cv2.erode((parts == largest).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    if wafer.mean() < 0.3:
        wafer = np.ones(image.shape, bool)
    return Cell(wafer, _busbars(image), mono)


def _busbars(image: np.ndarray) -> tuple[int, ...]:
    """Rows of the dark lines that cross the cell; where it shows none, those of three evenly spaced ones."""
    height = len(image)
    profile = np.median(image, axis=1).astype(np.float32)
    dip = blur(profile[:, None], height / 25)[:, 0] - profile
    found: list[int] = []
    for row in np.argsort(-dip):
        if dip[row] < 0.08 * np.median(profile) or len(found) == 5:
            break
        if 0.08 * height < row < 0.92 * height and all(abs(row - other) > height / 8 for other in found):
            found.append(int(row))
    return tuple(sorted(found)) or tuple(round(height * share) for share in (1 / 6, 1 / 2, 5 / 6))


def _path(cell: Cell, rng: Rng, start: np.ndarray | None = None, angle: float | None = None) -> np.ndarray:
    """Points (n, 2), x and y, along a crack."""
    side = min(cell.wafer.shape)
    rows, columns = np.nonzero(cell.wafer)
    if start is None:
        chosen = int(rng.integers(len(rows)))
        start = np.array([columns[chosen], rows[chosen]], float)
    if angle is None:
        diagonal = np.pi / 4 + np.pi / 2 * rng.integers(4) + rng.normal(0, 0.2)
        angle = float(diagonal if cell.mono and rng.random() < 0.6 else rng.uniform(0, 2 * np.pi))
    length, step = side * float(np.exp(rng.uniform(np.log(0.12), np.log(1.1)))), side / 60
    rough = rng.uniform(0.02, 0.15) if cell.mono else rng.uniform(0.08, 0.35)
    turn, points = 0.0, [start]
    for _ in range(int(length / step)):
        turn = 0.75 * turn + rng.normal(0, rough)
        points.append(points[-1] + step * np.array([np.cos(angle + turn), np.sin(angle + turn)]))
    return np.array(points)


def _line(shape: tuple[int, ...], path: np.ndarray, width: float, softness: float) -> Field:
    """Cover (h, w) in 0..1 of a line along a path, `width` px wide."""
    canvas = np.zeros((shape[0] * OVERSAMPLE, shape[1] * OVERSAMPLE), np.uint8)
    cv2.polylines(
        canvas, [np.rint(path * OVERSAMPLE).astype(np.int32)], False, (255,), max(1, round(width * OVERSAMPLE))
    )
    small = cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return blur(small.astype(np.float32) / 255, softness)


def _dark_line(cell: Cell, rng: Rng, path: np.ndarray) -> Field:
    shape, scale = cell.wafer.shape, min(cell.wafer.shape) / 300
    cover = _line(shape, path, scale * rng.uniform(1.0, 3.2), scale * rng.uniform(0.6, 1.3))
    uneven = np.clip(1 + 0.25 * fractal(rng, max(shape), 25 * scale, 2)[: shape[0], : shape[1]], 0.4, 1.5)
    return 1 - np.clip(cover * uneven * rng.uniform(0.25, 0.95), 0, 1)


def crack(cell: Cell, rng: Rng) -> Field:
    """A crack, with branches or crossed by another at times."""
    path = _path(cell, rng)
    gain = _dark_line(cell, rng, path)
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.45, 0.3, 0.15, 0.1]))):
        heading = path[-1] - path[0]
        side = np.arctan2(heading[1], heading[0]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.6)
        gain = gain * _dark_line(cell, rng, _path(cell, rng, path[int(rng.integers(len(path)))], float(side)))
    return gain


def _shade(cell: Cell, rng: Rng, area: Mask, low: float = 0.08, high: float = 0.8) -> Field:
    """Gain of a darkened area: nearly even, darker to one side, with a soft edge."""
    shape, scale = cell.wafer.shape, min(cell.wafer.shape) / 300
    rows = np.linspace(-0.5, 0.5, shape[0])[:, None] * rng.normal(0, 0.4)
    columns = np.linspace(-0.5, 0.5, shape[1])[None] * rng.normal(0, 0.3)
    cloud = 0.06 * fractal(rng, max(shape), 60 * scale, 3)[: shape[0], : shape[1]]
    level = np.clip(rng.uniform(low, high) * (1 + rows + columns + cloud), 0.03, 0.92)
    cover = blur(area.astype(np.float32), scale * float(np.exp(rng.uniform(np.log(0.7), np.log(6)))))
    return 1 - cover * (1 - level)


def _edge(cell: Cell, rng: Rng, column: float) -> np.ndarray:
    """A border of a dark area that runs down the image, x for each row: along a finger, or a crack."""
    height = cell.wafer.shape[0]
    if rng.random() < 0.5:
        return np.full(height, column)
    walk = np.cumsum(rng.normal(0, 0.35, height))
    slope = rng.normal(0, 0.5) * (np.arange(height) - height / 2)
    return column + slope + blur((walk - walk.mean())[:, None].astype(np.float32), 2)[:, 0]


def dead_area(cell: Cell, rng: Rng) -> Field:
    """An area without current, between fingers or cracks and in one strip or several next to each other."""
    height, width = cell.wafer.shape
    strips = cell.strips
    first = int(rng.integers(len(strips)))
    last = min(len(strips) - 1, first + int(rng.choice([0, 1, 3], p=[0.7, 0.2, 0.1])))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    top, bottom = strips[first][0], strips[last][1]
    if rng.random() < 0.3:  # a crack along the strip keeps part of it lit
        cut = rng.uniform(0.25, 0.75) * (bottom - top)
        bend = np.interp(np.arange(width), np.linspace(0, width, 12), rng.normal(0, 0.06 * (bottom - top), 12))
        slope = rng.normal(0, 0.15) * (np.arange(width) - width / 2)
        border = (top + cut + bend + slope)[None]
        vertical = (rows >= border) & (rows < bottom) if rng.random() < 0.5 else (rows >= top) & (rows < border)
    else:
        vertical = (rows >= top) & (rows < bottom)
    wide = width * float(np.exp(rng.uniform(np.log(0.06), np.log(1.0))))
    left = rng.uniform(-0.3 * wide, width - 0.7 * wide)
    area = vertical & (columns >= _edge(cell, rng, left)[:, None]) & (columns < _edge(cell, rng, left + wide)[:, None])
    return _shade(cell, rng, area)


def cut_off(cell: Cell, rng: Rng) -> Field:
    """A crack through the cell and the area on one side of it, up to a busbar or the edge, darker."""
    height, width = cell.wafer.shape
    path = _path(cell, rng)
    a, b = path[0], path[-1]
    heading = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
    long = np.concatenate([[a - heading * 2 * width], path, [b + heading * 2 * width]])
    normal = np.array([-heading[1], heading[0]]) * 3 * width * rng.choice([-1, 1])
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.rint(np.concatenate([long, (long + normal)[::-1]])).astype(np.int32)], (1,))
    top, bottom = cell.strips[int(rng.integers(len(cell.strips)))]
    if rng.random() < 0.7:
        canvas[:top] = 0
        canvas[bottom:] = 0
    return _shade(cell, rng, canvas > 0) * _dark_line(cell, rng, long)


def broken_fingers(cell: Cell, rng: Rng) -> Field:
    """Interrupted fingers side by side: streaks from somewhere to the next busbar or edge."""
    shape, scale = cell.wafer.shape, min(cell.wafer.shape) / 300
    top, bottom = cell.strips[int(rng.integers(len(cell.strips)))]
    gain = np.ones(shape, np.float32)
    x = rng.uniform(0, shape[1])
    ends = (top, bottom) if rng.random() < 0.5 else (bottom, top)
    for _ in range(int(rng.integers(5, 26))):
        x += scale * rng.uniform(2, 8)
        reach = rng.uniform(0.3, 1.0)
        path = np.array([[x, ends[0]], [x, ends[0] + reach * (ends[1] - ends[0])]])
        cover = _line(shape, path, scale * rng.uniform(1.5, 4.5), scale * rng.uniform(0.9, 2.2))
        gain = gain * (1 - cover * rng.uniform(0.2, 0.7))
    return gain


def burn(cell: Cell, rng: Rng) -> Field:
    """A dark spot, mostly at a busbar, where current ran hot or a contact is missing."""
    height, width = cell.wafer.shape
    scale = min(height, width) / 300
    y = rng.choice(cell.bars) + rng.normal(0, 6 * scale) if rng.random() < 0.7 else rng.uniform(0, height)
    x, radius = rng.uniform(0, width), scale * float(np.exp(rng.uniform(np.log(6), np.log(35))))
    rows, columns = np.arange(height)[:, None] - y, np.arange(width)[None] - x
    uneven = 1 + 0.2 * fractal(rng, max(height, width), 2 * radius + 4, 3)[:height, :width]
    far = np.hypot(rows * rng.uniform(0.7, 1.8), columns) / radius * np.clip(uneven, 0.4, 1.8)
    spot = 1 / (1 + far ** rng.uniform(3, 10))
    return np.asarray(1 - spot * rng.uniform(0.4, 0.95), np.float32)


def dark_cell(cell: Cell, rng: Rng) -> Field:
    """The whole cell gives less light, or what lies towards its edge or one side of it."""
    height, width = cell.wafer.shape
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    kind = rng.random()
    if kind < 0.6:
        return _shade(cell, rng, np.ones_like(cell.wafer), 0.25, 0.7)
    angle = rng.uniform(0, 2 * np.pi)
    far = np.maximum(abs(rows), abs(columns)) if kind < 0.8 else np.cos(angle) * rows + np.sin(angle) * columns
    ramp = np.clip((far - rng.uniform(-0.1, 0.6)) / rng.uniform(0.3, 0.9), 0, 1)
    return np.asarray(1 - ramp * rng.uniform(0.3, 0.85), np.float32)


DRAWINGS: dict[str, Callable[[Cell, Rng], Field]] = {
    "crack": crack,
    "cut_off": cut_off,
    "dead_area": dead_area,
    "broken_fingers": broken_fingers,
    "burn": burn,
    "dark_cell": dark_cell,
}


def draw(image: np.ndarray, cell: Cell, name: str, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A grey image, uint8 (h, w), with the named defect, and its mask, uint8 (h, w) in {0,1}, never empty: the pixels
    that became darker by 3 grey levels or more. Outside it every pixel is the image's."""
    level = image.astype(np.float32)
    wide = cv2.dilate(cell.wafer.astype(np.float32), np.ones((13, 13), np.uint8), borderValue=0)
    reach = blur(np.asarray(wide, np.float32), 2.0)  # the dark gap between cells scatters the cell's own light
    for _ in range(TRIES):
        loss = reach * (1 - np.clip(DRAWINGS[name](cell, rng), 0, 1))
        made = np.rint(level * (1 - loss))
        mask = (level - made >= LEAST_CHANGE).astype(np.uint8)
        if mask.sum() >= LEAST_AREA:
            return np.where(mask > 0, made, level).astype(np.uint8), mask
    raise RuntimeError(f"no {name} came out visible in {TRIES} attempts")
