"""The materials. Each maker returns a `Scene` of (n, n) px in which one px of a 256-px photo is `s` px.

`dye` draws what a product keeps from picture to picture, its colours; `rng` draws all the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.data.drawn.camera import Scene, photograph
from fast.data.drawn.noise import Field, Rng, blur, cells, cover, displaced, fractal, smoothstep, streaks, turn
from fast.data.drawn.woven import fabric, wood
from ldm.errors import UserError

# Side in px of the photo the sizes in this package are given for, and the smallest that can be drawn.
REFERENCE, SMALLEST = 256, 32


def _tint(rng: Rng, palette: list[tuple[float, float, float]], spread: float = 0.1) -> Field:
    """A colour (3,) near one of the palette's, itself or between two of them; linear light."""
    first, second = rng.integers(len(palette), size=2)
    mix = rng.uniform(0, 0.35)
    colour = np.array(palette[first]) * (1 - mix) + np.array(palette[second]) * mix
    colour = colour * (1 + rng.normal(0, spread)) * (1 + rng.normal(0, spread / 3, 3))
    return np.clip(colour, 0.01, 0.95).astype(np.float32)


STEELS = [(0.55, 0.56, 0.58), (0.5, 0.52, 0.56), (0.58, 0.56, 0.53), (0.6, 0.55, 0.46), (0.42, 0.43, 0.45)]


def brushed_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Rolled sheet with brush marks, a highlight across them and a few stray hairlines."""
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.16)
    m = cover(n, angle)
    fine = streaks(rng, m, s * rng.uniform(60, 160), 0.9 * s)
    hair = streaks(rng, m, s * rng.uniform(140, 330), 0.5 * s)
    short = streaks(rng, m, s * rng.uniform(12, 35), 0.7 * s)
    broad = streaks(rng, m, s * 300, s * rng.uniform(8, 26))
    mix = rng.uniform(0.6, 1.2, 3).astype(np.float32)
    brush = mix[0] * fine + mix[1] * hair + 0.6 * mix[2] * short
    # Few marks are much deeper than the rest.
    deep = -smoothstep(2.3, 3.6, hair) - 0.5 * smoothstep(2.4, 3.6, fine)
    brush, broad, deep = (turn(f, angle, n) for f in (brush, broad, deep))
    across = turn(np.tile(np.linspace(-m / n, m / n, m, dtype=np.float32), (m, 1)), angle, n)
    bend = 0.06 * fractal(rng, n, 0.5 * n, 2) + 0.012 * brush
    band = np.exp(-(((across - rng.uniform(-0.9, 0.9) + bend) / rng.uniform(0.35, 0.8)) ** 2))
    smudge = fractal(rng, n, 60 * s, 4)
    contrast = rng.uniform(0.035, 0.085)
    glow = 0.75 + rng.uniform(0.35, 0.9) * band + 0.03 * broad + 0.012 * smudge
    glow *= 1 + contrast * brush * (0.5 + 0.8 * band) + 0.35 * deep
    albedo = np.clip(_tint(dye, STEELS, 0.06) * np.ones((n, n, 1), np.float32), 0, 1)
    height = np.asarray(0.05 * s * brush + 2 * smudge, np.float32)
    return Scene(albedo, height, 0.02, 30, np.asarray(np.maximum(glow, 0.05), np.float32), (0.48, 0.68))


HIDES = [(0.36, 0.17, 0.075), (0.2, 0.085, 0.04), (0.5, 0.27, 0.12), (0.27, 0.05, 0.035), (0.12, 0.1, 0.09)]
HIDES += [(0.4, 0.3, 0.2), (0.07, 0.09, 0.13)]


def leather(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Grained hide: pebbles between creases at two scales, pores, soft folds."""
    spacing = s * rng.uniform(4.5, 8.5)
    _, border = cells(rng, n, spacing)
    _, small = cells(rng, n, spacing * rng.uniform(0.45, 0.6))
    wide = s * rng.uniform(1.0, 3.0)
    drift = [wide * 6 * fractal(rng, n, 90 * s, 2) + 0.14 * spacing * fractal(rng, n, spacing * 1.2, 3) for _ in "xy"]
    crease = np.exp(-displaced(border, drift) / (0.13 * spacing))
    minor = np.exp(-displaced(small, drift) / (0.11 * spacing))
    patch = smoothstep(-1.2, 1.2, fractal(rng, n, 45 * s, 3))
    dome = 1 - crease * (0.55 + 0.45 * patch) - 0.38 * minor * (1.1 - 0.6 * patch)
    folds = fractal(rng, n, 70 * s, 2, stretch=1.8)
    fine = fractal(rng, n, 2.2 * s, 3, 0.7)
    pores = smoothstep(2.2, 3.0, fractal(rng, n, 2.6 * s, 1))
    relief = spacing * rng.uniform(0.12, 0.22)
    height = relief * blur(np.asarray(dome, np.float32), 0.35 * s) + 0.07 * s * fine + 1.3 * s * folds - 0.5 * s * pores
    stainy = fractal(rng, n, 55 * s, 5, 0.6)
    tone = (0.62 + 0.38 * np.clip(dome, 0, 1)) * (1 + 0.05 * stainy + 0.03 * fine) * (1 - 0.3 * pores)
    base = _tint(dye, HIDES)
    # Worn high spots lose dye and turn paler and less saturated.
    worn = (np.clip(dome, 0, 1) * smoothstep(0.2, 2.2, stainy))[..., None] * np.float32(rng.uniform(0.05, 0.3))
    albedo = tone[..., None] * (base * (1 - worn) + worn * (0.7 * base + 0.12))
    gloss, shine = float(base.mean()) * rng.uniform(0.12, 0.5) + 0.008, rng.uniform(16, 40)
    return Scene(np.asarray(albedo, np.float32), np.asarray(height, np.float32), gloss, shine, None, (0.34, 0.52))


GRANITES = [
    ((0.62, 0.6, 0.57), (0.36, 0.36, 0.36), (0.05, 0.05, 0.055)),
    ((0.58, 0.42, 0.35), (0.42, 0.39, 0.37), (0.06, 0.055, 0.05)),
    ((0.33, 0.34, 0.35), (0.2, 0.21, 0.22), (0.035, 0.035, 0.04)),
    ((0.6, 0.54, 0.43), (0.4, 0.36, 0.29), (0.09, 0.07, 0.05)),
]


def _grains(rng: Rng, n: int, size: float, ragged: float) -> tuple[Field, Field]:
    """Crystals of about `size` px: a random value in [0, 1) for each, constant on it, and distance to its border."""
    labels, border = cells(rng, n, size, 1.3)
    value = rng.random(int(labels.max()) + 1, dtype=np.float32)[labels]
    drift = [ragged * size * fractal(rng, n, size * 0.8, 3, 0.6) for _ in "xy"]
    return displaced(value, drift, cv2.INTER_NEAREST), displaced(border, drift)


def stone_tile(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Polished granite: feldspar, quartz and mica crystals at several sizes."""
    pale, grey, dark = (np.asarray(c, np.float32) for c in GRANITES[dye.integers(len(GRANITES))])
    pale, grey = (c * np.float32(1 + dye.normal(0, 0.07)) for c in (pale, grey))
    big, edge = _grains(rng, n, s * rng.uniform(9, 16), 0.16)
    mid, _ = _grains(rng, n, s * rng.uniform(4, 6.5), 0.2)
    tiny, _ = _grains(rng, n, s * rng.uniform(2.0, 3.0), 0.25)
    cloud, grit = fractal(rng, n, 40 * s, 3), fractal(rng, n, 2.5 * s, 3, 0.7)
    veil = fractal(rng, n, 9 * s, 4, 0.65)
    feldspar = (big < rng.uniform(0.4, 0.6)).astype(np.float32)
    shades = 0.8 + 0.35 * (big * 7 % 1) * feldspar + 0.3 * (mid - 0.5) * (1 - 0.75 * feldspar)
    body = np.where(feldspar[..., None] > 0, pale, grey + (pale - grey) * (0.5 * (mid * 5 % 1))[..., None])
    body = body * (shades * (1 + 0.06 * veil + 0.05 * grit))[..., None]
    limit = rng.uniform(0.06, 0.16) * (1 + 0.5 * cloud)
    mica = np.maximum((mid < limit) & (veil > -0.6), (tiny < 0.6 * limit + 0.05 * (veil > 0.8))).astype(np.float32)
    mica = blur(mica, 0.3 * s)[..., None]
    albedo = body * (1 - mica) + mica * dark * (1 + 0.5 * np.maximum(tiny - 0.05, 0))[..., None]
    albedo *= (1 - 0.12 * np.exp(-edge / (0.5 * s)))[..., None]
    height = 0.12 * s * grit * (1 + 2 * mica[..., 0]) + 4 * cloud
    return Scene(np.clip(albedo, 0.01, 0.95), np.asarray(height, np.float32), 0.06, 40, None, (0.42, 0.6))


MAKERS: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {
    "brushed_metal": brushed_metal,
    "leather": leather,
    "wood": wood,
    "fabric": fabric,
    "stone_tile": stone_tile,
}
MATERIALS: tuple[str, ...] = tuple(MAKERS)


def check_material(material: str) -> None:
    """Raise UserError unless the material is one that can be drawn."""
    if material not in MAKERS:
        raise UserError(f"unknown material {material!r}; choose from {', '.join(MATERIALS)}")


def draw_surface(material: str, rng: Rng, size: int = 256, dye: Rng | None = None) -> NDArray[np.uint8]:
    """A photo-like picture of a flawless surface: uint8 (size, size, 3) RGB.

    Pictures drawn with equal `dye` generators show one product: same colours, other light, grain and place.
    """
    check_material(material)
    if size < SMALLEST:
        raise UserError(f"size is {size}; it must be {SMALLEST} or more")
    # Below half the reference size the grain would fall under one px, so small pictures show a smaller piece instead.
    scale = 2 * max(size / REFERENCE, 0.5)
    return photograph(MAKERS[material](rng, dye or rng, 2 * size, scale), size, rng)
