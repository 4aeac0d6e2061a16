"""Lines that run through a given outline and branch in it, as cracks do."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from fast.procedural.noise import Rng, line_noise
from fast.procedural.shapes import Array, Curve, dense
from fast.procedural.site import Site

MOST = 12000  # px that paths are looked for among; larger outlines are searched more coarsely
BEND = 3.5  # photo px between two bends
APART = 5.0  # photo px from the main line to where a branch may end
LEFT_OUT, MOST_LINES = 0.3, 9  # no part of the outline is farther from all lines than this share of the main one


def lines_within(site: Site, rng: Rng) -> list[Curve]:
    """A line from one end of the site's outline to the other, the way that costs least on random ground, and branches
    that leave it where there is room."""
    s = site.scale
    grid = _Grid(site, rng)
    start, end = grid.ends()
    main = grid.path(grid.ways(grid.costs, start)[1], end)
    half = float(np.median(grid.depth[main]))
    heavy = min(s * float(rng.uniform(0.6, 1.5)) + half * float(rng.uniform(0.05, 0.2)), 2.5 * s)
    curves = [_line(site, rng, grid.points[main], heavy)]
    away = grid.ways(grid.steps, main)[0]
    before = grid.ways(grid.costs, main)[1]
    count, long = int(rng.poisson(2.6)), LEFT_OUT * float(len(main))
    while len(curves) < MOST_LINES and (len(curves) <= count or away.max() > long):
        room = np.where(away > APART * s / grid.step, away, 0)
        if not room.any():
            break
        end = int(np.argmax(away) if len(curves) > count else rng.choice(len(room), p=room / room.sum()))
        path = grid.path(before, end)
        curves.append(_line(site, rng, grid.points[path], heavy * float(rng.uniform(0.4, 0.7)), branch=True))
        away = np.minimum(away, grid.ways(grid.steps, path)[0])
    return curves


class _Grid:
    """The px of the outline, or every few of them, and what it costs to go from one to the next."""

    def __init__(self, site: Site, rng: Rng) -> None:
        assert site.outline is not None
        inside = (site.outline < 0).astype(np.uint8)
        step = max(1, int(np.ceil(np.sqrt(float(inside.sum()) / MOST))))
        h, w = site.shape
        size = (-(-w // step), -(-h // step))
        small = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        y, x = np.nonzero(small)
        self.points: Array = np.stack([x, y], axis=1).astype(float) * step + (step - 1) / 2
        at = np.minimum(self.points, [w - 1, h - 1]).astype(int)
        self.depth = np.maximum(-site.outline[at[:, 1], at[:, 0]], 0.5)
        ground = np.exp(0.8 * site.noise(rng, 5, 3))[at[:, 1], at[:, 0]]
        # Along the outline itself nothing runs for long.
        price = ground * (1 + 3 * np.exp(-self.depth / (1.5 * site.scale)))
        number = np.full(small.shape, -1)
        number[y, x] = np.arange(len(y))
        self.step = step
        self.costs, self.steps = _edges(number, price), _edges(number, np.ones(len(y)))

    def ends(self) -> tuple[int, int]:
        """Two px that are as far from each other as any, by the way through the outline."""
        start = int(np.argmax(self.ways(self.steps, 0)[0]))
        return start, int(np.argmax(self.ways(self.steps, start)[0]))

    @staticmethod
    def ways(costs: csr_array, start: int | NDArray[np.int64]) -> tuple[Array, NDArray[np.int32]]:
        """What each px costs from the nearest of those, -1 where no way leads, and the px before it on the way."""
        starts = np.atleast_1d(start)
        found, before, _ = dijkstra(costs, directed=False, indices=starts, return_predecessors=True, min_only=True)
        return np.where(np.isfinite(found), found, -1.0), before

    @staticmethod
    def path(before: NDArray[np.int32], end: int) -> NDArray[np.int64]:
        """The px on the way to one, the first of them first."""
        way = [end]
        while before[way[-1]] >= 0:
            way.append(int(before[way[-1]]))
        return np.asarray(way[::-1], np.int64)


def _edges(number: NDArray[np.int64], price: Array) -> csr_array:
    """The costs between px that touch, of a picture of their numbers (h, w), -1 where there is none."""
    padded = np.pad(number, 1, constant_values=-1)
    h, w = number.shape
    rows, cols, costs = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        other = padded[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
        both = (number >= 0) & (other >= 0)
        a, b = number[both], other[both]
        rows.append(a)
        cols.append(b)
        costs.append(0.5 * (price[a] + price[b]) * float(np.hypot(dy, dx)))
    count = len(price)
    ends = (np.concatenate(rows), np.concatenate(cols))
    return csr_array(coo_array((np.concatenate(costs), ends), shape=(count, count)))


def _line(site: Site, rng: Rng, way: Array, heavy: float, branch: bool = False) -> Curve:
    """A line of straight bits along a way (k, 2) in px: thick and dark in places, thin and faint in others."""
    s = site.scale
    bends = np.unique(np.append(np.arange(0, len(way), max(1, round(BEND * s))), len(way) - 1))
    way = way[bends] if len(bends) > 1 else np.array([way[0], way[0] + [1.0, 0.0]])
    points, share = dense(way)
    ends = np.clip((1 - share) * (3 if branch else 6), 0, 1) * (1 if branch else np.clip(share * 6 + 0.2, 0, 1))
    jag = np.clip(1 + 0.35 * line_noise(rng, len(points), 7 * s), 0.3, 1.9)
    wide = np.clip(1 + 0.4 * line_noise(rng, len(points), 40 * s, 2), 0.35, 1.8)
    dark = np.clip(0.8 + 0.3 * line_noise(rng, len(points), 25 * s, 2), 0.3, 1.0)
    return Curve(points, heavy * (0.2 + 0.8 * ends**0.8) * jag * wide, (0.4 + 0.6 * np.clip(ends * 1.5, 0, 1)) * dark)
