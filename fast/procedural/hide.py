"""Leather. Same contract as the makers in `surfaces`."""

from __future__ import annotations

import numpy as np

from fast.procedural.camera import Scene
from fast.procedural.noise import Rng, blur, cells, displaced, fractal, smoothstep, tint

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
    base = tint(dye, HIDES)
    # Worn high spots lose dye and turn paler and less saturated.
    worn = (np.clip(dome, 0, 1) * smoothstep(0.2, 2.2, stainy))[..., None] * np.float32(rng.uniform(0.05, 0.3))
    albedo = tone[..., None] * (base * (1 - worn) + worn * (0.7 * base + 0.12))
    gloss, shine = float(base.mean()) * rng.uniform(0.12, 0.5) + 0.008, rng.uniform(16, 40)
    return Scene(np.asarray(albedo, np.float32), np.asarray(height, np.float32), gloss, shine, None, (0.34, 0.52))
