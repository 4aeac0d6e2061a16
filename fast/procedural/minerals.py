"""Stone, ceramics and concrete. Same contract as the makers in `surfaces`."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

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
    near_grey,
    smoothstep,
    spots,
    streaks,
    sweep,
    tint,
    turn,
)

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


GLAZES = [(0.8, 0.79, 0.76), (0.72, 0.66, 0.55), (0.5, 0.52, 0.54), (0.14, 0.25, 0.32), (0.09, 0.1, 0.11)]
GLAZES += [(0.12, 0.27, 0.2), (0.45, 0.2, 0.12), (0.08, 0.12, 0.21), (0.62, 0.6, 0.58), (0.55, 0.45, 0.36)]
GROUTS = [(0.6, 0.58, 0.54), (0.35, 0.34, 0.33), (0.16, 0.16, 0.16), (0.72, 0.71, 0.69)]


def ceramic_tile(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Glazed tiles between grout lines, from mosaic to tiles wider than the picture."""
    glaze, grout = tint(dye, GLAZES, 0.06), near_grey(dye, GROUTS, 0.1)
    bricked, uneven, speckle = dye.random() < 0.35, dye.uniform(0.01, 0.1), max(0.0, dye.uniform(-0.6, 0.5))
    u, v = frame(n, rng.choice([0.0, np.pi / 2, np.pi / 4], p=[0.45, 0.45, 0.1]) + rng.normal(0, 0.05))
    side = s * (rng.uniform(24, 60) if rng.random() < 0.35 else rng.uniform(80, 230))
    wide, joint = side * (2.0 if bricked else 1.0), s * rng.uniform(0.8, 2.2) + 0.006 * side
    ragged = 0.13 * s * fractal(rng, n, 6 * s, 3)
    down = (v + ragged) / np.float32(side) + np.float32(rng.uniform(50, 99))
    row = np.floor(down)
    aside = (u + ragged) / np.float32(wide) + np.float32(rng.uniform(50, 99))
    aside = aside + np.float32(0.5 if bricked else 0.0) * np.mod(row, 2)
    column = np.floor(aside)
    # Distance to the middle of the joint, with the corner of the tile rounded off.
    du = (0.5 - np.abs(aside - column - 0.5)) * np.float32(wide)
    dv = (0.5 - np.abs(down - row - 0.5)) * np.float32(side)
    corner = np.float32(joint + 2.0 * s)
    inner = np.hypot(np.maximum(corner - du, 0), np.maximum(corner - dv, 0))
    edge = np.where(inner > 0, corner - inner, np.minimum(du, dv)) - np.float32(joint)
    tile = smoothstep(-0.5 * s, 0.5 * s, edge)
    number = (np.mod(row * 7 + column * 3, 61)).astype(np.int32)
    tones = rng.standard_normal((5, 61), dtype=np.float32)
    cloud, grit = fractal(rng, n, 45 * s, 5, 0.6), grains(rng, n, 1.7 * s)
    wave = fractal(rng, n, 28 * s, 2)
    shades = 1 + uneven * (0.6 * tones[0][number] + 0.6 * cloud) + 0.012 * grit
    if speckle > 0:
        fleck = smoothstep(1.6, 2.3, fractal(rng, n, 3 * s, 3, 0.7) + 0.4 * cloud)
        shades = shades * (1 - speckle * fleck)
    # Glaze runs thin over the edge and lets the pale body through.
    thin = np.exp(-np.maximum(edge, 0) / (1.6 * s)) * rng.uniform(0, 0.25)
    face = glaze * shades[..., None] + thin[..., None] * np.float32(0.35)
    dirt = 1 + 0.06 * grit + 0.1 * fractal(rng, n, 20 * s, 3)
    shadow = 1 - 0.35 * np.exp(-np.abs(edge) / (0.9 * s))
    albedo = face * tile[..., None] + grout * (dirt * shadow * (1 - tile))[..., None]
    # A window mirrored in the glaze: every tile lies a little otherwise and breaks its outline.
    if rng.random() < 0.6:
        x = u / n + np.float32(rng.uniform(-0.5, 0.5)) + 0.07 * tones[1][number] + np.float32(0.01) * wave
        y = v / n + np.float32(rng.uniform(-0.5, 0.5)) + 0.07 * tones[2][number] + np.float32(0.01) * wave
        soft, half_x, half_y = rng.uniform(0.02, 0.2), rng.uniform(0.08, 0.3), rng.uniform(0.1, 0.5)
        mirrored = smoothstep(soft, -soft, np.abs(x) - np.float32(half_x))
        mirrored = mirrored * smoothstep(soft, -soft, np.abs(y) - np.float32(half_y)) * tile
        albedo = albedo + (rng.uniform(0.02, 0.14) * mirrored)[..., None]
    pillow = smoothstep(0, rng.uniform(2.0, 6.0) * s, edge)
    lean = (tones[1][number] * u + tones[2][number] * v) * np.float32(0.006) * tile
    height = 1.6 * s * pillow + lean + rng.uniform(0.1, 0.7) * s * wave * tile + 0.12 * s * grit * (1 - tile)
    light = sweep(rng, n, rng.uniform(0.1, 0.9)) * (1 + tile * 0.02 * tones[3][number])
    gloss, shine = rng.uniform(0.05, 0.3), rng.uniform(25, 70)
    lit = np.asarray(light, np.float32)
    height = np.asarray(height, np.float32)
    return Scene(np.clip(albedo, 0.01, 0.95), height, gloss, shine, lit, (0.42, 0.7), defocus(rng))


# (ground, veins, a second tone of the ground), linear light.
MARBLES = [
    ((0.76, 0.76, 0.75), (0.27, 0.28, 0.3), (0.62, 0.63, 0.64)),  # Carrara
    ((0.72, 0.65, 0.53), (0.42, 0.27, 0.14), (0.62, 0.53, 0.4)),  # cream
    ((0.035, 0.035, 0.038), (0.62, 0.6, 0.57), (0.06, 0.06, 0.065)),  # black
    ((0.05, 0.13, 0.09), (0.45, 0.55, 0.47), (0.09, 0.19, 0.13)),  # green
    ((0.22, 0.12, 0.075), (0.6, 0.48, 0.36), (0.3, 0.17, 0.11)),  # brown
    ((0.4, 0.41, 0.43), (0.72, 0.72, 0.72), (0.31, 0.32, 0.34)),  # grey
    ((0.62, 0.42, 0.35), (0.72, 0.66, 0.6), (0.5, 0.31, 0.26)),  # rose
]


def _veins(rng: Rng, n: int, cell: float, width: float, angle: float, drift: list[Field]) -> Field:
    """A net of veins (n, n) in [0, 1]: lines of uneven width that swell, thin out and break off."""
    m = cover(n, angle)
    field = displaced(turn(fractal(rng, m, cell, 3, 0.45, stretch=3.6), angle, n), drift)
    dy, dx = np.gradient(field)
    # Divided by its slope the field is a distance in px, so veins keep their width where it is flat.
    away = np.abs(field) / (np.hypot(dx, dy) + np.float32(0.25 / cell))
    swell = fractal(rng, n, 0.8 * cell, 4, 0.6)
    wide = width * np.exp(0.6 * swell)
    return np.asarray(
        np.exp(-((away / wide) ** 1.4)) * smoothstep(-1.4, 1.3, fractal(rng, n, 0.9 * cell, 2)), np.float32
    )


def marble(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Polished marble: clouds of two tones, branching veins at three sizes, fine crystal grain."""
    ground, dark, second = (np.asarray(c, np.float32) for c in MARBLES[dye.integers(len(MARBLES))])
    warmth = (1 + dye.normal(0, 0.06)) * (1 + dye.normal(0, 0.03) * np.array([1, 0.1, -1.1])).astype(np.float32)
    angle = rng.uniform(-np.pi, np.pi)
    rough = [fractal(rng, n, 55 * s, 5, 0.45) for _ in "xy"]
    drift = [np.asarray(s * rng.uniform(5, 12) * f, np.float32) for f in rough]
    cloud = displaced(turn(fractal(rng, cover(n, angle), 90 * s, 5, 0.6, stretch=1.8), angle, n), drift)
    wisps, grain = displaced(fractal(rng, n, 26 * s, 5, 0.65), drift), grains(rng, n, 1.8 * s)
    smoke = _veins(rng, n, s * rng.uniform(80, 130), s * rng.uniform(5, 16), angle, drift)
    strong = _veins(rng, n, s * rng.uniform(70, 130), s * rng.uniform(0.8, 2.6), angle, drift)
    middle = _veins(rng, n, s * rng.uniform(36, 70), s * rng.uniform(0.5, 1.2), angle + rng.normal(0, 0.5), drift)
    hair = _veins(rng, n, s * rng.uniform(18, 35), 0.45 * s, angle + rng.normal(0, 0.7), drift)
    # Veins are clearest where the stone between them is cloudiest.
    amount = rng.uniform(0.35, 0.9) * (0.8 + 0.3 * smoothstep(-1, 1.5, wisps))
    mix = smoothstep(-1.2, 1.8, cloud + 0.35 * wisps)[..., None]
    body = ground * (1 - mix) + second * mix
    vein = amount * (
        0.6 * strong + 0.25 * blur(strong, 1.6 * s) + 0.4 * middle + 0.35 * hair + rng.uniform(0.1, 0.4) * smoke
    )
    vein = np.clip(vein, 0, 0.95)[..., None]
    albedo = body * (1 - vein) + dark * vein
    shades = 1 + 0.04 * wisps + rng.uniform(0.01, 0.04) * grain
    albedo = albedo * shades[..., None] * warmth
    height = 0.02 * s * grain + 2 * fractal(rng, n, 120 * s, 1)
    light = sweep(rng, n, rng.uniform(0, 0.7))
    gloss = rng.uniform(0.01, 0.12)
    height = np.asarray(height, np.float32)
    return Scene(np.clip(albedo, 0.01, 0.95), height, gloss, 40, light, (0.36, 0.68), defocus(rng))


CEMENTS = [(0.42, 0.41, 0.39), (0.33, 0.33, 0.33), (0.5, 0.47, 0.42), (0.4, 0.42, 0.44), (0.55, 0.54, 0.52)]


def concrete(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Cast or trowelled concrete: sand, air holes, damp clouds, faint marks of the board or the trowel."""
    colour = near_grey(dye, CEMENTS, 0.12)
    cloud, blotch = fractal(rng, n, 120 * s, 5, 0.6), fractal(rng, n, 26 * s, 4, 0.65)
    size = s * rng.uniform(1.2, 2.4)
    sand = 0.75 * grains(rng, n, size) + 0.65 * grains(rng, n, 2.5 * size)
    rough = rng.uniform(0.2, 1.0)
    holes = spots(rng, n, int(rng.integers(15, 160)), 0.45 * s, rng.uniform(1.5, 4.5) * s)
    holes = displaced(holes, [0.5 * s * fractal(rng, n, 4 * s, 2) for _ in "xy"])
    angle = rng.uniform(-np.pi, np.pi)
    marks = turn(streaks(rng, cover(n, angle), s * rng.uniform(40, 200), s * rng.uniform(1.0, 5.0)), angle, n)
    marks = displaced(marks, [6 * s * cloud, 6 * s * blotch])
    stones, _ = _grains(rng, n, s * rng.uniform(3.0, 6.0), 0.25)
    shown = smoothstep(0.2, 1.6, fractal(rng, n, 40 * s, 3)) * rng.uniform(0, 0.2)
    shades = 1 + rng.uniform(0.04, 0.13) * cloud + 0.05 * blotch + 0.065 * (0.5 + rough) * sand
    shades = shades + rng.uniform(0, 0.04) * marks + shown * (stones - 0.5)
    shades *= 1 - 0.6 * blur(holes, 0.3 * s)
    warm = 1 + np.float32(0.012) * blotch[..., None] * np.array([1, 0.3, -1.3], np.float32)
    albedo = np.clip(colour * shades[..., None] * warm, 0.01, 0.95).astype(np.float32)
    height = s * (0.22 * rough * sand + 0.1 * rough * blotch + 0.05 * marks - 1.6 * blur(holes, 0.6 * s)) + 2 * cloud
    light = sweep(rng, n, rng.uniform(0, 0.8))
    return Scene(albedo, np.asarray(height, np.float32), 0.0, 8, light, (0.38, 0.64), defocus(rng))


MINERALS: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {
    "stone_tile": stone_tile,
    "ceramic_tile": ceramic_tile,
    "marble": marble,
    "concrete": concrete,
}
