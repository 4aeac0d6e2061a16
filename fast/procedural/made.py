"""Glass and circuit boards. Same contract as the makers in `surfaces`."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.camera import Scene, defocus
from fast.procedural.noise import (
    Field,
    Rng,
    blur,
    cells,
    cover,
    displaced,
    fractal,
    frame,
    grains,
    smoothstep,
    spots,
    streaks,
    sweep,
    tint,
    turn,
)

TINTS = [(0.5, 0.56, 0.55), (0.42, 0.52, 0.5), (0.55, 0.56, 0.57), (0.42, 0.48, 0.56), (0.5, 0.45, 0.38)]
TINTS += [(0.3, 0.42, 0.37)]


def _behind(rng: Rng, n: int, s: float, busy: float) -> Field:
    """What is seen through or in a pane, out of focus (n, n): a gradient, dim shapes, a lamp or a window."""
    view = sweep(rng, n, rng.uniform(0.5, 1.4)) + 0.06 * busy * fractal(rng, n, 110 * s, 2)
    for _ in range(int(rng.integers(1, 4))):
        u, v = (f / np.float32(n) for f in frame(n, rng.uniform(-np.pi, np.pi)))
        soft = 0.2 * rng.random() ** 1.5 + 0.01
        half_u, half_v = rng.uniform(0.5, 1.5), rng.uniform(0.03, 0.4)
        x, y = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
        shape = smoothstep(soft, -soft, np.abs(u - np.float32(x)) - np.float32(half_u))
        shape = shape * smoothstep(soft, -soft, np.abs(v - np.float32(y)) - np.float32(half_v))
        view = view * (1 + busy * rng.uniform(-0.35, 0.7) * shape)
    return np.asarray(np.maximum(view, 0.05), np.float32)


def _pattern(rng: Rng, dye: Rng, n: int, s: float) -> Field:
    """The relief (n, n) px of rolled glass: hammered, ribbed, pebbled or drawn."""
    kind = int(dye.integers(4))
    if kind == 0:
        size = s * rng.uniform(9, 20)
        _, border = cells(rng, n, size, 1.2)
        return np.asarray(0.35 * blur(np.minimum(border, 0.4 * size), 0.12 * size), np.float32)
    if kind == 1:
        u, _ = frame(n, rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.05))
        pitch = s * rng.uniform(7, 22)
        phase = (u + 0.06 * pitch * fractal(rng, n, 90 * s, 2)) / np.float32(pitch)
        return np.asarray(0.16 * pitch * np.abs(np.sin(np.float32(np.pi) * phase)), np.float32)
    size = s * (rng.uniform(3, 6) if kind == 2 else rng.uniform(7, 13))
    return np.asarray(0.12 * size * grains(rng, n, 2 * size), np.float32)


def glass(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A pane: etched, with a rolled pattern, or clear with soft reflections."""
    style, colour = int(dye.integers(3)), tint(dye, TINTS, 0.08)
    dust = spots(rng, n, int(rng.integers(0, 30)), 0.35 * s, 0.9 * s)
    if style == 0:
        view = blur(_behind(rng, n, s, 1.0), rng.uniform(6, 20) * s)
        grain = grains(rng, n, s * rng.uniform(1.0, 2.2))
        cloud = fractal(rng, n, 60 * s, 4)
        light = view * (1 + rng.uniform(0.015, 0.05) * grain + 0.015 * cloud)
        height = s * rng.uniform(0.01, 0.06) * grain
        gloss, shine = 0.05, 8.0
    elif style == 1:
        height = _pattern(rng, dye, n, s)
        dx, dy = (np.asarray(cv2.Sobel(height, cv2.CV_32F, *d, scale=1 / 8), np.float32) for d in ((1, 0), (0, 1)))
        bend = s * rng.uniform(12, 45)
        beyond = _behind(rng, n, s, 1.0) * (1 + 0.12 * fractal(rng, n, 24 * s, 3))
        view = displaced(np.asarray(beyond, np.float32), [bend * dx, bend * dy])
        way, push = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.8)
        view = view * np.maximum(1 + push * (np.float32(np.cos(way)) * dx + np.float32(np.sin(way)) * dy), 0.2)
        # Steep places send the eye to the dark edge of the scene.
        light = view * (1 - np.minimum(rng.uniform(0.5, 1.4) * (dx * dx + dy * dy), 0.5))
        gloss, shine = rng.uniform(0.15, 0.5), rng.uniform(30, 90)
    else:
        wave = fractal(rng, n, 70 * s, 2)
        view = displaced(_behind(rng, n, s, 1.0), [5 * s * wave, 3 * s * wave])
        smear = fractal(rng, n, 70 * s, 5, 0.5)
        light = view * (1 + rng.uniform(0.003, 0.015) * smear) + 0.25 * blur(dust, 0.4 * s)
        # The cloth that wiped the pane last left its strokes, seen only against the light.
        angle = rng.uniform(-np.pi, np.pi)
        wiped = turn(streaks(rng, cover(n, angle), s * rng.uniform(60, 250), 1.5 * s), angle, n)
        wiped = displaced(wiped, [14 * s * wave, 14 * s * wave])
        light = light * (1 + rng.uniform(0, 0.03) * wiped * smoothstep(-0.5, 1.5, smear))
        height = 1.2 * wave
        gloss, shine = 0.15, 60.0
    light = light * (1 - 0.15 * dust)
    albedo = np.asarray(np.ones((n, n, 1), np.float32) * colour, np.float32)
    lit, height = np.asarray(np.maximum(light, 0.04), np.float32), np.asarray(height, np.float32)
    return Scene(albedo, height, gloss, shine, lit, (0.38, 0.72), defocus(rng))


# (mask over the bare board, mask over copper), linear light.
MASKS = [
    ((0.012, 0.085, 0.035), (0.025, 0.17, 0.06)),
    ((0.01, 0.11, 0.06), (0.03, 0.2, 0.1)),
    ((0.01, 0.03, 0.12), (0.02, 0.065, 0.22)),
    ((0.16, 0.012, 0.015), (0.27, 0.025, 0.022)),
    ((0.014, 0.014, 0.016), (0.034, 0.034, 0.036)),
    ((0.05, 0.1, 0.02), (0.1, 0.19, 0.04)),
]
FINISHES = [(0.62, 0.45, 0.16), (0.52, 0.52, 0.51), (0.6, 0.58, 0.54), (0.58, 0.4, 0.22)]

Layer = NDArray[np.uint8]


class _Board:
    """The layers of a board as it is drawn: (n, n) grey levels, 255 where there is copper, metal, a hole or ink."""

    def __init__(self, n: int, grid: float) -> None:
        self.n, self.grid = n, grid
        self.copper, self.metal, self.drill, self.ink = (np.zeros((n, n), np.uint8) for _ in range(4))
        self.taken: list[tuple[float, float, float, float]] = []

    def line(self, layer: Layer, points: NDArray, width: float) -> None:
        """Draw a polyline through (k, 2) points in px."""
        fixed = np.rint(np.asarray(points) * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(layer, [fixed], False, (255,), max(1, round(width)), cv2.LINE_AA, 4)

    def box(self, layer: Layer, x: float, y: float, half_x: float, half_y: float) -> None:
        """Draw a filled rectangle about (x, y)."""
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half_x, half_y) + (x, y)
        cv2.fillPoly(layer, [np.rint(corners * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)

    def disc(self, layer: Layer, x: float, y: float, radius: float) -> None:
        """Draw a filled circle about (x, y)."""
        cv2.circle(layer, (round(x * 16), round(y * 16)), round(radius * 16), (255,), -1, cv2.LINE_AA, 4)

    def via(self, x: float, y: float) -> None:
        self.disc(self.copper, x, y, 0.46 * self.grid)
        self.disc(self.drill, x, y, 0.2 * self.grid)

    def claim(self, rng: Rng, half_x: float, half_y: float) -> tuple[float, float] | None:
        """A free place for something of this half size, or None where a few tries find none."""
        for _ in range(12):
            x, y = rng.uniform(0, self.n, 2)
            box = (x - half_x, y - half_y, x + half_x, y + half_y)
            if all(box[2] < o[0] or box[0] > o[2] or box[3] < o[1] or box[1] > o[3] for o in self.taken):
                self.taken.append(box)
                return float(x), float(y)
        return None


def _bundle(rng: Rng, board: _Board, width: float) -> None:
    """Parallel tracks across the board with bends of 45 degrees; some end early in a via."""
    n, g = board.n, board.grid
    count, level = int(rng.integers(2, 9)), rng.uniform(0, n)
    knots = np.sort(rng.uniform(0, n, int(rng.integers(1, 4))))
    jumps = rng.choice([-1.0, 1.0], len(knots)) * g * rng.integers(2, 12, len(knots))
    upright = rng.random() < 0.5
    stop = n if rng.random() < 0.5 else rng.uniform(0.3, 0.9) * n
    for k in range(count):
        points, y, last = [(-g, level + k * g)], level + k * g, -g
        for knot, jump in zip(knots, jumps, strict=True):
            # Shifted so that the slanted parts keep the same gap as the straight ones.
            start = knot - np.sign(jump) * k * g * 0.414
            if start < last:
                continue
            points += [(start, y), (start + abs(jump), y + jump)]
            y, last = y + jump, start + abs(jump)
        end = stop + (k % 2) * g if stop < n else n + g
        if end > last:
            points.append((end, y))
        path = np.array(points)[:, ::-1] if upright else np.array(points)
        board.line(board.copper, path, width)
        if stop < n:
            board.via(*path[-1])


def _package(rng: Rng, board: _Board, width: float) -> None:
    """The pads of one part with stubs of track, its outline and its name in ink."""
    g, turned = board.grid, rng.random() < 0.5
    kind = rng.integers(4)
    pins = int((1, 1, rng.integers(4, 11), rng.integers(2, 7))[kind])
    pitch, reach = g * (1.0, 1.0, rng.uniform(0.9, 1.3), 2.4)[kind], g * (rng.uniform(0.9, 2.2), 1.4, 3.0, 0.0)[kind]
    half = (g * rng.uniform(0.5, 1.1), g * rng.uniform(0.6, 1.3), g * 0.7, g * 0.85)[kind]
    thick = (g * rng.uniform(0.5, 1.1), g * 0.6, 0.32 * pitch, g * 0.85)[kind]
    long, high = reach + half, 0.5 * pitch * (pins - 1) + thick
    room = 1.1 * g
    place = board.claim(rng, *((high + room, long + room) if turned else (long + room, high + room)))
    if place is None:
        return

    def at(x: float, y: float) -> tuple[float, float]:
        return (place[0] + y, place[1] + x) if turned else (place[0] + x, place[1] + y)

    for pin in range(pins):
        y = (pin - 0.5 * (pins - 1)) * pitch
        for side in (-1, 1) if kind < 3 else (1,):
            x = side * reach
            if kind == 3:
                board.disc(board.metal, *at(x, y), half)
                board.disc(board.drill, *at(x, y), 0.5 * half)
            else:
                board.box(board.metal, *at(x, y), *((thick, half) if turned else (half, thick)))
            if rng.random() < 0.7:
                out = side * (reach + half + g * rng.uniform(0.6, 3.5))
                board.line(board.copper, np.array([at(x, y), at(out, y)]), width)
                if rng.random() < 0.5:
                    board.via(*at(out, y))
    frame_x, frame_y = (reach - half - 0.3 * g, high) if kind == 2 else (long + 0.5 * g, high + 0.5 * g)
    if rng.random() < 0.8 and frame_x > 0:
        corners = [at(a * frame_x, b * frame_y) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
        board.line(board.ink, np.array(corners), 0.11 * g)
    # Letters smaller than this would be blots.
    if g >= 11 and rng.random() < 0.75:
        name = f"{'RCUJ'[kind]}{rng.integers(1, 99)}"
        x, y = at(-long, -high - 0.8 * g)
        size = g / 21 * rng.uniform(0.65, 1.0)
        cv2.putText(board.ink, name, (round(x), round(y)), 0, size, (255,), max(1, round(0.1 * g)), cv2.LINE_AA)


def circuit_board(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A bare board: tracks under solder mask, vias, bright pads, drill holes, marks in ink."""
    bare, covered = (tint(dye, [c], 0.1) for c in MASKS[dye.integers(len(MASKS))])
    finish, poured = tint(dye, FINISHES, 0.06), dye.random() < 0.5
    grid = s * rng.uniform(4.5, 11)
    width = grid * rng.uniform(0.3, 0.5)
    board = _Board(n, grid)
    gap = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.4 * grid) + 1,) * 2)
    tracks = np.zeros((n, n), np.uint8)
    for _ in range(int(rng.integers(2, 7))):
        board.copper = np.zeros((n, n), np.uint8)
        _bundle(rng, board, width)
        # Copper of one layer never crosses: what was there first ends at the newcomer.
        tracks = np.maximum(np.where(cv2.dilate(board.copper, gap) > 0, 0, tracks), board.copper)
    board.copper = np.zeros((n, n), np.uint8)
    for _ in range(int(rng.integers(3, 16))):
        _package(rng, board, width)
    for x, y in rng.uniform(0, n, (int(rng.integers(2, 14)), 2)):
        board.via(float(x), float(y))
    own = np.maximum(board.copper, board.metal)
    copper = np.maximum(np.where(cv2.dilate(own, gap) > 0, 0, tracks), own)
    if poured:
        copper = np.maximum(copper, 255 - cv2.dilate(copper, gap))
    opened = cv2.dilate(board.metal, np.ones((3, 3), np.uint8))
    layers = (copper, board.metal, opened, board.drill, board.ink)
    track, metal, window, drill, ink = (blur(np.asarray(f, np.float32) / 255, 0.22 * s)[..., None] for f in layers)
    cloud, grit = fractal(rng, n, 70 * s, 3), grains(rng, n, 1.5 * s)
    u, v = (f * np.float32(2 * np.pi / (3.2 * s)) for f in frame(n, rng.normal(0, 0.04)))
    weave = np.sin(u) * np.sin(v) * np.float32(rng.uniform(0, 0.05))
    lower = bare * (1 + 0.05 * cloud + weave + 0.03 * grit)[..., None]
    albedo = lower * (1 - track) + covered * track * (1 + 0.04 * cloud + 0.02 * grit)[..., None]
    laminate = np.array([0.3, 0.25, 0.13], np.float32)
    albedo = albedo * (1 - window) + window * laminate
    plating = (1 + 0.07 * grit + 0.1 * fractal(rng, n, 7 * s, 3))[..., None]
    albedo = albedo * (1 - metal) + metal * finish * plating
    print_ink = np.float32(rng.uniform(0.55, 0.8)) * (1 + 0.05 * grit)[..., None]
    shown = ink * (1 - window) * (1 - 0.25 * smoothstep(0.8, 2, grit)[..., None])
    albedo = albedo * (1 - shown) + shown * print_ink
    albedo = albedo * (1 - 0.93 * drill)
    raised = blur(track[..., 0], 0.45 * s) + 0.5 * blur(ink[..., 0], 0.3 * s) - 1.5 * drill[..., 0]
    solder = 0.7 * blur(metal[..., 0], 1.0 * s)
    height = s * (rng.uniform(0.6, 1.3) * raised + solder + 0.03 * grit) + 2 * fractal(rng, n, 150 * s, 1)
    light = sweep(rng, n, rng.uniform(0.1, 0.9))
    gloss, shine = rng.uniform(0.01, 0.05), rng.uniform(10, 30)
    height = np.asarray(height, np.float32)
    return Scene(np.clip(albedo, 0.006, 0.95), height, gloss, shine, light, (0.28, 0.5), defocus(rng))


MADE: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {"glass": glass, "circuit_board": circuit_board}
