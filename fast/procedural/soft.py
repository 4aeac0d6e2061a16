"""Polymers and paint. Same contract as the makers in `surfaces`; `SOFT` adds those of `yarn` and `pressed`."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fast.procedural.camera import Scene
from fast.procedural.noise import (
    Field,
    Rng,
    blur,
    cells,
    displaced,
    fractal,
    frame,
    near_grey,
    smoothstep,
    spots,
    streaks,
)
from fast.procedural.pressed import cardboard, chipboard
from fast.procedural.yarn import carpet, dyed, knit, mesh, part

RUBBERS = [(0.03, 0.03, 0.032), (0.05, 0.05, 0.052), (0.09, 0.09, 0.095), (0.035, 0.033, 0.03), (0.16, 0.035, 0.025)]
RUBBERS += [(0.03, 0.06, 0.11), (0.03, 0.08, 0.05), (0.22, 0.13, 0.06), (0.1, 0.055, 0.035)]


def _pattern(rng: Rng, n: int, s: float, kind: int) -> Field:
    """A moulded relief (n, n) in [0, 1]: 0 none, 1 ribs, 2 diamonds or pyramids, 3 studs."""
    if kind == 0:
        return np.zeros((n, n), np.float32)
    pitch = s * rng.uniform(9, 26)
    angle = rng.choice([0.0, np.pi / 4, np.pi / 2]) + rng.normal(0, 0.1)
    u, v = (f / np.float32(pitch) for f in frame(n, angle))
    soft = 0.05 + 0.5 / (pitch / s)
    if kind == 1:
        return smoothstep(rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.3 + 2 * soft), np.abs(part(v) - 0.5))
    if kind == 2:
        a, b = np.abs(part(u) - 0.5), np.abs(part(v) - 0.5)
        ridge = np.maximum(a, b) if rng.random() < 0.5 else np.maximum(np.abs(a + b - 0.5), np.abs(a - b))
        return smoothstep(0.5, float(rng.uniform(0.25, 0.42)), np.asarray(ridge, np.float32))
    away = np.hypot(part(u + 0.5 * np.floor(v)) - 0.5, part(v) - 0.5)
    return smoothstep(0.36, 0.36 - soft * 1.6, away)


def _crumbs(rng: Rng, dye: Rng, n: int, s: float, colour: Field) -> tuple[Field, Field]:
    """Ground tyres pressed together: relief in px, and the (n, n, 3) colour with some of the crumbs dyed."""
    size, some, fleck = s * rng.uniform(2.5, 6), dye.uniform(0.02, 0.25), dyed(dye, 0.3, (0.15, 0.5))
    labels, border = cells(rng, n, size, 1.2)
    drift = [0.2 * size * fractal(rng, n, size, 3, 0.6) for _ in "xy"]
    labels = displaced(labels.astype(np.float32), drift, cv2.INTER_NEAREST).astype(np.int32)
    count = int(labels.max()) + 1
    chosen = blur((rng.random(count) < some).astype(np.float32)[labels], 0.25 * s)[..., None]
    crumb = smoothstep(0, 0.25 * size, displaced(border, drift))
    height = 0.25 * size * crumb + 0.5 * s * rng.normal(0, 1, count).astype(np.float32)[labels]
    colour = (colour + chosen * (fleck - colour)) * (0.6 + 0.4 * crumb)[..., None]
    return blur(np.asarray(height, np.float32), 0.3 * s), np.asarray(colour, np.float32)


def rubber(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Matt rubber with bloom and dust: moulded, often ribbed or patterned, or pressed from crumbs."""
    base = near_grey(dye, RUBBERS[:4] if dye.random() < 0.65 else RUBBERS[4:], 0.15)
    relief = _pattern(rng, n, s, int(dye.choice([0, 0, 0, 1, 2, 3])))
    grain = fractal(rng, n, s * rng.uniform(1.1, 2.8), 3, 0.8)
    rough = smoothstep(-1.5, 1.5, fractal(rng, n, 35 * s, 3))
    bloom = smoothstep(-0.5, 2.5, fractal(rng, n, 45 * s, 5, 0.6)) * rng.uniform(0.0, 0.5)
    dust = blur(spots(rng, n, int(rng.uniform(10, 160) * (n / s / 256) ** 2), 0.3 * s, 0.9 * s), 0.3 * s)
    wipe = streaks(rng, n, 90 * s, 1.2 * s) * rng.uniform(0, 0.06)
    pale = np.float32(0.05 + 0.4 * base.mean())
    shades = 1 + 0.08 * grain + wipe + 0.05 * fractal(rng, n, 70 * s, 3) - 0.15 * (1 - relief) * (relief.max() > 0)
    colour = np.asarray(base * np.ones((n, n, 1), np.float32), np.float32)
    height: Field = np.zeros((n, n), np.float32)
    if dye.random() < 0.2:
        height, colour = _crumbs(rng, dye, n, s, colour)
        relief = np.zeros_like(relief)
    albedo = colour * shades[..., None] + pale * (0.35 * bloom * (1 + 0.3 * grain) + 0.5 * dust)[..., None]
    height = height + s * rng.uniform(0.16, 0.36) * grain * (0.6 + 0.4 * rough)
    height += s * rng.uniform(1.2, 3) * blur(relief, 0.4 * s)
    height += 0.4 * s * dust + 0.4 * s * fractal(rng, n, 90 * s, 2)
    gloss = rng.uniform(0.01, 0.05)
    return Scene(np.clip(albedo, 0.004, 0.95), np.asarray(height, np.float32), gloss, 7, None, (0.3, 0.46))


def _room(rng: Rng, n: int) -> Field:
    """What a shiny surface mirrors, (n, n) in [0, 1]: a softbox or two and dim surroundings."""
    view = 0.25 + 0.04 * fractal(rng, n, 0.8 * n, 2)
    angle = rng.uniform(-np.pi, np.pi)
    for _ in range(rng.integers(1, 3)):
        u, v = (f / np.float32(n) for f in frame(n, angle + rng.normal(0, 0.04)))
        edge, at, wide = rng.uniform(0.02, 0.25), rng.uniform(-0.7, 0.7), rng.uniform(0.05, 0.3)
        lit = smoothstep(wide + edge, wide, np.abs(v - np.float32(at)))
        view += rng.uniform(0.2, 0.8) * lit * smoothstep(-0.9, 0.4, u)
    return np.asarray(np.clip(view, 0, 1.2), np.float32)


def _mirrored(room: Field, height: Field, reach: float) -> Field:
    """The room as bent by the slopes of the surface; `reach`: px of shift per unit of slope."""
    dy, dx = np.gradient(height)
    return displaced(room, [np.asarray(reach * d, np.float32) for d in (dx, dy)])


def plastic(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A moulded part: spark-eroded, smooth and glossy, or grained like leather."""
    base, kind = dyed(dye, 0.45, (0.03, 0.7), 0.88), dye.integers(3)
    wave, dirt = fractal(rng, n, 100 * s, 2), fractal(rng, n, 40 * s, 4)
    fine = fractal(rng, n, 1.5 * s, 2, 0.8)
    specks = blur(spots(rng, n, int(rng.uniform(1, 24) * (n / s / 256) ** 2), 0.3 * s, 0.8 * s), 0.3 * s)
    if kind == 0:
        size = s * rng.uniform(1.3, 4.5)
        bumps = fractal(rng, n, size, 3, 0.6)
        bumps = smoothstep(-1.5, 1.2, bumps) + 0.25 * bumps
        height = size * rng.uniform(0.1, 0.2) * bumps + 0.06 * s * fine
        mirror, gloss, shine, shades = 0.01, rng.uniform(0.03, 0.1), rng.uniform(8, 20), 1 + 0.03 * bumps
    elif kind == 1:
        flow = streaks(rng, n, 200 * s, 12 * s)
        height = 0.02 * s * fine + 0.03 * s * flow + rng.uniform(0.02, 0.2) * s * fractal(rng, n, 25 * s, 2)
        mirror, gloss, shine, shades = rng.uniform(0.06, 0.16), rng.uniform(0.1, 0.4), 60.0, 1 + 0.012 * flow
    else:
        size = s * rng.uniform(4, 10)
        _, border = cells(rng, n, size)
        drift = [0.16 * size * fractal(rng, n, size, 3) for _ in "xy"]
        dome = 1 - np.exp(-displaced(border, drift) / np.float32(0.16 * size))
        dome = blur(np.asarray(dome, np.float32), 0.3 * s)
        height = size * rng.uniform(0.08, 0.16) * dome + 0.07 * s * fine + 0.03 * size * fractal(rng, n, size / 2, 2)
        mirror, gloss, shine, shades = 0.01, rng.uniform(0.03, 0.1), rng.uniform(10, 25), 0.85 + 0.15 * dome
    height = np.asarray(height + 0.4 * s * wave, np.float32)
    shine_off = mirror * _mirrored(_room(rng, n), height, 60 * s if kind == 1 else 8 * s)
    shades = shades * (1 + 0.012 * fine + 0.015 * dirt)
    pale = np.float32(0.5 if base.mean() < 0.25 else 0.1)
    albedo = base * shades[..., None] + shine_off[..., None]
    albedo += (0.5 * specks)[..., None] * (pale - albedo)
    return Scene(np.clip(albedo, 0.006, 0.95), height, gloss, shine, None, (0.36, 0.6))


def painted(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Coated sheet metal: solid with orange peel, metallic, or powder coat."""
    base, kind = dyed(dye, 0.4, (0.03, 0.65), 0.95), dye.integers(3)
    wave, dirt = fractal(rng, n, 110 * s, 2), fractal(rng, n, 45 * s, 4)
    peel = fractal(rng, n, s * rng.uniform(5, 14), 2, 0.45)
    fine = fractal(rng, n, 1.4 * s, 2, 0.8)
    dust = blur(spots(rng, n, int(rng.uniform(0, 30) * (n / s / 256) ** 2), 0.4 * s, 1.0 * s), 0.5 * s)
    colour = np.ones((n, n, 1), np.float32) * base
    if kind == 2:
        size = s * rng.uniform(2.0, 5.0)
        lumps = smoothstep(-0.8, 1.6, fractal(rng, n, size, 3, 0.5))
        height = size * rng.uniform(0.12, 0.25) * lumps + 0.3 * s * peel + 0.05 * s * fine
        mirror, gloss, shine = 0.015, rng.uniform(0.03, 0.14), rng.uniform(10, 30)
        if dye.random() < 0.35:
            other = np.float32(dye.uniform(0.02, 0.6))
            speckle = smoothstep(1.2, 1.9, fractal(rng, n, 2.2 * s, 2))[..., None]
            colour = colour + 0.7 * speckle * (other - colour)
    else:
        height = s * rng.uniform(0.06, 0.22) * peel + 0.02 * s * fine
        mirror, gloss, shine = rng.uniform(0.05, 0.13), rng.uniform(0.05, 0.25), rng.uniform(40, 90)
    if kind == 1:
        # Flakes lie at random tilts: each flashes or goes dark on its own.
        flake = blur(rng.standard_normal((n, n), dtype=np.float32), 0.35 * s) * np.float32(1.3 * s)
        flash = smoothstep(1.6, 4.0, flake) * rng.uniform(0.3, 2.0)
        cloud = 0.03 * fractal(rng, n, 30 * s, 3)
        colour = colour * (1 + rng.uniform(0.08, 0.24) * flake + cloud)[..., None]
        colour = colour + flash[..., None] * (0.3 * base + 0.08)
    height = np.asarray(height + 0.4 * s * wave + 0.8 * s * dust, np.float32)
    albedo = colour * (1 + 0.012 * fine + 0.02 * dirt)[..., None]
    albedo = albedo + mirror * _mirrored(_room(rng, n), height, 60 * s if kind < 2 else 8 * s)[..., None]
    return Scene(np.clip(albedo, 0.006, 0.95), height, gloss, shine, None, (0.36, 0.58))


FOAMS = [(0.62, 0.56, 0.4), (0.6, 0.6, 0.58), (0.09, 0.09, 0.095), (0.05, 0.05, 0.05), (0.55, 0.45, 0.16)]
BEADS = [(0.68, 0.68, 0.66), (0.66, 0.64, 0.6), (0.1, 0.1, 0.105), (0.3, 0.4, 0.52)]
FOAMS += [(0.16, 0.3, 0.5), (0.5, 0.22, 0.26), (0.2, 0.42, 0.25), (0.3, 0.3, 0.31)]


def foam(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Open cells with struts, sponge with pores of many sizes, or pressed beads."""
    kind = int(dye.choice([0, 0, 1, 2]))
    base = near_grey(dye, BEADS if kind == 2 else FOAMS, 0.12)
    fine, cloud = fractal(rng, n, 1.6 * s, 3, 0.8), fractal(rng, n, 50 * s, 3)
    size = s * (rng.uniform(8, 17) if kind == 2 else rng.uniform(3.2, 8))
    labels, border = cells(rng, n, size, 0.8 if kind == 2 else 1.0)
    drift = [(0.05 if kind == 2 else 0.13) * size * fractal(rng, n, 0.9 * size, 3) for _ in "xy"]
    border = displaced(border, drift)
    labels = displaced(labels.astype(np.float32), drift, cv2.INTER_NEAREST).astype(np.int32)
    share = rng.random(int(labels.max()) + 1, dtype=np.float32)[labels]
    if kind == 2:
        round_ = np.clip(border / np.float32(0.45 * size), 0, 1)
        dome = np.sqrt(round_ * (2 - round_))
        # Beads leave dark corners where three of them meet.
        gap = np.exp(-border / np.float32(0.35 * s)) * smoothstep(-1.0, 1.5, fractal(rng, n, 0.6 * size, 2))
        shades = (1 - 0.5 * gap) * (0.78 + 0.2 * dome + 0.06 * share + 0.025 * fine)
        height = (
            rng.uniform(0.14, 0.3) * size * blur(np.asarray(dome, np.float32), 0.06 * size)
            + 0.1 * s * fine
            - 0.6 * s * gap
        )
    else:
        # How far a pore is open; few are closed by a skin.
        open_ = smoothstep(0.02, 0.3, share) * (0.7 + 0.3 * share)
        wall = size * rng.uniform(0.06, 0.13)
        # Surface tension rounds the pores' corners; their walls fall away inwards.
        soft = blur(border, 0.1 * size)
        bowl = np.clip((soft - np.float32(wall)) / np.float32(0.34 * size), 0, 1) ** np.float32(0.7)
        hole = (0.45 * smoothstep(wall, wall + 0.1 * size, soft) + 0.55 * bowl) * open_
        _, under = cells(rng, n, 0.8 * size, 1.1)
        net = np.exp(-displaced(under, drift) / np.float32(0.12 * size))
        deep = hole * (1 - 0.5 * net * smoothstep(0.2, 0.7, part(7 * share)))
        if kind == 1:
            big, far = cells(rng, n, 3.0 * size, 1.2)
            chosen = np.where(rng.random(int(big.max()) + 1) < 0.4, rng.uniform(0.3, 1), 0).astype(np.float32)[big]
            torn = [2 * d + 0.5 * size * fractal(rng, n, 2.5 * size, 2) for d in drift]
            pit = displaced(smoothstep(0.15 * size, 0.9 * size, far) * chosen, torn)
            deep = np.maximum(0.7 * deep, pit * (0.75 + 0.25 * hole))
        shades = (1 - 0.86 * deep) * (1 + 0.07 * fine)
        height = blur(np.asarray(-0.4 * size * deep, np.float32), 0.3 * s) + 0.18 * s * fine
    shades = shades * (1 + 0.05 * cloud)
    # Light that went through the walls comes back warmer.
    warm = np.array([0, 0.05, 0.14], np.float32) * (1 - np.clip(shades, 0, 1))[..., None]
    albedo = base * shades[..., None] * (1 - warm)
    height = np.asarray(height + 0.8 * s * cloud, np.float32)
    key = (0.5, 0.68) if kind == 2 else (0.42, 0.6)
    return Scene(np.clip(albedo, 0.004, 0.95), height, 0.004, 8, None, key)


SOFT: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {
    "chipboard": chipboard,
    "mesh": mesh,
    "carpet": carpet,
    "knit": knit,
    "rubber": rubber,
    "plastic": plastic,
    "foam": foam,
    "painted": painted,
    "cardboard": cardboard,
}
