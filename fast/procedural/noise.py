"""Random fields the drawn materials are made of. Every field is float32 and comes from the generator it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# float32 in fact; numpy's own annotations lose that in arithmetic with Python floats.
Field = NDArray[np.floating[Any]]
Rng = np.random.Generator

WIDE = 4.0  # pixels: `wide_blur` makes the field small from twice that on
PRIOR = 1e-3  # how much a prior counts in `weighted_blur`, beside a weight of 1


def smoothstep(low: float, high: float, x: Field) -> Field:
    """0 below `low`, 1 above `high`, a smooth ramp between (a falling one when `low` > `high`)."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def unit(field: Field) -> Field:
    """Shift and scale to mean 0 and standard deviation 1."""
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur that accepts sigma 0."""
    if sigma < 0.05:
        return field
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def wide_blur(field: Field, sigma: float) -> Field:
    """About `blur`, (h, w) or (h, w, channels), of a field made small first where `sigma` is large: the time does not
    grow with it."""
    step = int(sigma // WIDE)
    if step < 2:
        return blur(field, sigma).reshape(field.shape)
    height, width = field.shape[:2]
    small: Field = np.asarray(
        cv2.resize(field, (-(-width // step), -(-height // step)), interpolation=cv2.INTER_AREA), np.float32
    )
    large = cv2.resize(blur(small, sigma / step), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32).reshape(field.shape)


def weighted_blur(field: Field, weight: Field, sigma: float, prior: Field | None = None) -> Field:
    """`wide_blur` of a field (h, w, channels) whose px count by their weight (h, w, 1). `prior` (channels): what it
    comes to where next to nothing counts; without it, what little does."""
    total, counted = wide_blur(field * weight, sigma), wide_blur(weight, sigma)
    if prior is None:
        return np.asarray(total / np.maximum(counted, 1e-6), np.float32)
    return np.asarray((total + PRIOR * prior) / (counted + PRIOR), np.float32)


def white(rng: Rng, height: int, width: int) -> Field:
    """White Gaussian noise (height, width)."""
    return rng.standard_normal((height, width), dtype=np.float32)


def _octave(rng: Rng, n: int, cell_y: float, cell_x: float) -> Field:
    rows, cols = int(np.ceil(n / cell_y)) + 4, int(np.ceil(n / cell_x)) + 4
    height, width = int(np.ceil(rows * cell_y)), int(np.ceil(cols * cell_x))
    grown = cv2.resize(white(rng, rows, cols), (width, height), interpolation=cv2.INTER_CUBIC)
    # A random sub-cell shift keeps the lattice from sitting at the same place in every picture.
    top, left = int(rng.uniform(1, 2) * cell_y), int(rng.uniform(1, 2) * cell_x)
    return np.asarray(grown[top : top + n, left : left + n], np.float32)


# Grain coarser than this many px is made on a grid this much coarser and enlarged, which costs a sixteenth.
COARSE, REDUCTION = 16.0, 4


def fractal(rng: Rng, n: int, cell: float, octaves: int = 4, gain: float = 0.5, stretch: float = 1.0) -> Field:
    """Multi-octave noise (n, n), mean 0 and deviation 1; `cell` px is the coarsest grain, `stretch` lengthens x."""
    small = -(-n // REDUCTION)
    coarse, fine, weight = np.zeros((small, small), np.float32), np.zeros((n, n), np.float32), 1.0
    for _ in range(octaves):
        if cell >= COARSE:
            coarse += np.float32(weight) * _octave(rng, small, cell / REDUCTION, cell * stretch / REDUCTION)
        else:
            fine += np.float32(weight) * _octave(rng, n, max(cell, 1.0), max(cell * stretch, 1.0))
        cell, weight = cell / 2.03, weight * gain
    if coarse.any():
        side = small * REDUCTION
        fine += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)[:n, :n]
    return unit(fine)


def streaks(rng: Rng, n: int, length: float, width: float) -> Field:
    """Noise drawn out along x: streaks about `length` px long and `width` px wide, mean 0 and deviation 1."""
    field = white(rng, n, n)
    for part in (0.7, 0.45):
        # Reflecting at the border would mirror the streaks; wrapping does not show.
        k = max(1, min(n - 1, int(length * part)))
        padded = cv2.copyMakeBorder(field, 0, 0, k, k, cv2.BORDER_WRAP)
        field = np.asarray(cv2.blur(padded, (k, 1))[:, k : k + n], np.float32)
    if width > 1:
        field = np.asarray(cv2.GaussianBlur(field, (1, 0), sigmaX=0.01, sigmaY=width / 2), np.float32)
    return unit(field)


def cover(n: int, angle: float) -> int:
    """Side of a square that still covers an (n, n) one after a turn by `angle` radians."""
    return int(np.ceil(n * (abs(np.cos(angle)) + abs(np.sin(angle))))) + 4


def turn(field: Field, angle: float, n: int) -> Field:
    """Rotate a field by `angle` radians about its centre and cut the middle (n, n) out of it."""
    size = field.shape[0]
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), float(np.degrees(angle)), 1.0)
    matrix[:, 2] -= (size - n) / 2
    flags, edge = cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
    return np.asarray(cv2.warpAffine(field, matrix, (n, n), flags=flags, borderMode=edge), np.float32)


def frame(n: int, angle: float) -> tuple[Field, Field]:
    """Centred coordinates (u, v) in px; u runs along the direction `turn(..., angle)` gives to x."""
    axis = np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)
    x, y = np.meshgrid(axis, axis)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * c - y * s, x * s + y * c


def displaced(field: Field, drift: Sequence[Field], mode: int = cv2.INTER_LINEAR) -> Field:
    """Sample `field` at positions moved by `drift`, two fields of px along x and y."""
    n = field.shape[0]
    axis = np.arange(n, dtype=np.float32)
    x, y = axis[None, :] + drift[0], axis[:, None] + drift[1]
    return np.asarray(cv2.remap(field, x, y, mode, borderMode=cv2.BORDER_REFLECT_101), np.float32)


def line_noise(rng: Rng, count: int, cell: float, octaves: int = 3) -> Field:
    """One-dimensional multi-octave noise (count,), mean 0 and deviation about 1."""
    total, weight = np.zeros(count, np.float32), 1.0
    at = np.arange(count, dtype=np.float32)
    for _ in range(octaves):
        knots = rng.standard_normal(int(count / max(cell, 1)) + 4)
        total += np.asarray(weight * np.interp(at / max(cell, 1) + rng.uniform(), np.arange(len(knots)), knots))
        cell, weight = cell / 2, weight * 0.55
    return total


def cells(rng: Rng, n: int, spacing: float, jitter: float = 0.95) -> tuple[NDArray[np.int32], Field]:
    """Voronoi cells on a jittered lattice: (n, n) labels from 0 and (n, n) distance in px to the nearest border."""
    steps = np.arange(-spacing, n + spacing, spacing)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    x = x + (np.arange(len(steps)) % 2)[:, None] * spacing / 2
    x, y = (p + rng.uniform(-0.5, 0.5, p.shape) * spacing * jitter for p in (x, y))
    seeds = np.ones((n, n), np.uint8)
    inside = (x >= 0) & (x < n) & (y >= 0) & (y < n)
    seeds[y[inside].astype(int), x[inside].astype(int)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    free = np.ones((n, n), np.uint8)
    free[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    free[1:][labels[1:] != labels[:-1]] = 0
    border = cv2.distanceTransform(free, cv2.DIST_L2, 5)
    return np.asarray(labels - 1, np.int32), np.asarray(border, np.float32)


def tint(rng: Rng, palette: Sequence[tuple[float, float, float]], spread: float = 0.1) -> Field:
    """A colour (3,) near one of the palette's, itself or between two of them; linear light."""
    first, second = rng.integers(len(palette), size=2)
    mix = rng.uniform(0, 0.35)
    colour = np.array(palette[first]) * (1 - mix) + np.array(palette[second]) * mix
    colour = colour * (1 + rng.normal(0, spread)) * (1 + rng.normal(0, spread / 3, 3))
    return np.clip(colour, 0.01, 0.95).astype(np.float32)


def near_grey(rng: Rng, palette: Sequence[tuple[float, float, float]], spread: float = 0.1) -> Field:
    """As `tint`, for greys: they lean towards yellow or blue, hardly ever towards green or violet."""
    colour = np.array(palette[int(rng.integers(len(palette)))]) * (1 + rng.normal(0, spread))
    warm = 1 + rng.normal(0, 0.036) * np.array([1.0, 0.1, -1.15]) + rng.normal(0, 0.006, 3)
    return np.clip(colour * warm, 0.01, 0.95).astype(np.float32)


def grains(rng: Rng, n: int, size: float) -> Field:
    """Noise (n, n) with grains about `size` px wide, mean 0 and deviation 1; unlike one octave it shows no lattice."""
    return unit(blur(white(rng, n, n), 0.33 * size))


def sweep(rng: Rng, n: int, strength: float) -> Field:
    """A soft gradient of light (n, n), mean 1 and never under 0.1: a ramp to one side and one wide bright place."""
    across, along = frame(n, rng.uniform(-np.pi, np.pi))
    across, along = across / n, along / n
    ramp = across + np.float32(rng.uniform(-0.6, 0.6)) * across * across
    x, y, wide = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(0.3, 0.7)
    place = np.exp(-((across - x) ** 2 + (along - y) ** 2) / (2 * wide * wide))
    light = 1 + strength * (rng.uniform(0.3, 1.0) * ramp + rng.uniform(0.2, 0.9) * place)
    return np.asarray(np.maximum(light / light.mean(), 0.1), np.float32)


def spots(rng: Rng, n: int, count: int, least: float, greatest: float) -> Field:
    """Round spots (n, n) in [0, 1] at random places; radii in px, small ones by far the most."""
    canvas = np.zeros((n, n), np.uint8)
    places = rng.uniform(0, n, (count, 2)) * 16
    radii = least * (greatest / least) ** (rng.random(count) ** 2.2)
    shapes = rng.uniform(0.75, 1.0, count)
    for (x, y), radius, shape in zip(places, radii, shapes, strict=True):
        axes = (max(1, int(radius * 16)), max(1, int(radius * shape * 16)))
        turned = float(x) % 180
        cv2.ellipse(canvas, (int(x), int(y)), axes, turned, 0, 360, (255,), -1, cv2.LINE_AA, 4)
    return np.asarray(canvas, np.float32) / np.float32(255)
