"""Fibrous materials: wood and woven cloth. Same contract as the makers in `surfaces`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.camera import Scene
from fast.procedural.noise import Field, Rng, blur, cover, fractal, frame, line_noise, smoothstep, streaks, turn

# (early wood, late wood, pore strength, typical ring width in photo px), linear light.
SPECIES = [
    ((0.52, 0.34, 0.18), (0.33, 0.18, 0.08), 0.75, 13.0),  # oak
    ((0.62, 0.43, 0.24), (0.42, 0.22, 0.09), 0.1, 17.0),  # pine
    ((0.22, 0.125, 0.07), (0.11, 0.06, 0.035), 0.6, 15.0),  # walnut
    ((0.5, 0.29, 0.17), (0.38, 0.2, 0.11), 0.3, 12.0),  # beech
    ((0.33, 0.16, 0.085), (0.21, 0.09, 0.048), 0.55, 14.0),  # mahogany
]


def _rings(rng: Rng, n: int, s: float, width: float, angle: float) -> tuple[Field, Field]:
    """Late-wood share (n, n) in [0, 1] of a board sawn near the trunk's axis, and a tone per ring."""
    m = cover(n, angle)
    u, v = (f / np.float32(s) for f in frame(n, angle))
    sway = turn(fractal(rng, m, 60 * s, 3, 0.45, stretch=4.0), angle, n)
    fine = turn(fractal(rng, m, 8 * s, 3, 0.6, stretch=9.0), angle, n)
    depth = rng.uniform(5, 120) + u * rng.uniform(-0.35, 0.35)
    offset = v - rng.uniform(-170, 170) + 9 * sway
    phase = np.sqrt(offset * offset + depth * depth) / width + 0.1 * fine
    years = np.arange(0, 400, 0.25, dtype=np.float32)
    phase = np.interp(phase, years, years + 0.6 * line_noise(rng, len(years), 12)).astype(np.float32)
    part, ring = np.mod(phase, 1), np.floor(phase).astype(np.int32)
    # Slow darkening through the summer, a sudden end in winter.
    late = part ** np.float32(rng.uniform(1.6, 3.2)) * smoothstep(1.0, rng.uniform(0.8, 0.93), part)
    tone = rng.normal(0, 1, int(ring.max() - ring.min()) + 1).astype(np.float32)[ring - ring.min()]
    return np.asarray(late * 1.25, np.float32), tone


def wood(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A planed board: growth rings, fibre streaks, pores drawn out along the grain."""
    early, late_colour, porous, width = SPECIES[dye.integers(len(SPECIES))]
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1)
    late, tone = _rings(rng, n, s, width * rng.uniform(0.6, 1.5), angle)
    m = cover(n, angle)
    fibre = turn(streaks(rng, m, 70 * s, 1.0 * s) + 0.7 * streaks(rng, m, 22 * s, 0.6 * s), angle, n)
    bands = turn(streaks(rng, m, 320 * s, 14 * s), angle, n)
    dashes = turn(streaks(rng, m, s * rng.uniform(7, 16), 0.75 * s), angle, n)
    # Pores sit in the early wood of ring-porous species.
    pores = porous * smoothstep(1.5, 2.6, dashes + 0.7 * (0.5 - late))
    flame = fractal(rng, n, 60 * s, 3)
    mix = np.clip(late * (1 + 0.18 * tone) + 0.07 * fibre, 0, 1)[..., None]
    albedo = np.asarray(early, np.float32) * (1 - mix) + np.asarray(late_colour, np.float32) * mix
    shades = 1 + 0.055 * fibre + 0.05 * bands + 0.04 * flame + 0.05 * tone
    warm = 1 + np.float32(0.02) * bands[..., None] * np.array([1, 0, -1.5], np.float32)
    tint = (1 + dye.normal(0, 0.08)) * (1 + dye.normal(0, 0.03, 3))
    albedo = albedo * warm * (shades * (1 - 0.5 * pores))[..., None] * tint.astype(np.float32)
    height = s * (0.1 * fibre - 0.5 * pores + 0.25 * late) + 2 * flame
    gloss = rng.uniform(0.01, 0.06)
    return Scene(np.clip(albedo, 0.01, 0.95), np.asarray(height, np.float32), gloss, 18, None, (0.4, 0.58))


# (warp colour, weft colour, least and greatest thread pitch in photo px, weaves), linear light.
YARNS = [
    ((0.055, 0.085, 0.17), (0.3, 0.32, 0.35), 3.6, 5.0, (1, 2)),  # denim
    ((0.5, 0.44, 0.33), (0.46, 0.4, 0.29), 4.2, 7.0, (0,)),  # linen
    ((0.32, 0.32, 0.33), (0.2, 0.2, 0.21), 4.5, 7.5, (0, 1, 2, 3)),  # grey upholstery
    ((0.33, 0.07, 0.06), (0.24, 0.05, 0.05), 4.2, 7.0, (0, 2, 3)),  # red canvas
    ((0.1, 0.2, 0.17), (0.15, 0.25, 0.2), 4.2, 7.0, (0, 2, 3)),  # green canvas
    ((0.62, 0.6, 0.55), (0.58, 0.56, 0.52), 4.2, 6.5, (0, 1, 2)),  # cotton
]
# Rows of a repeat, 1 where the warp is on top: plain, 2/1 twill, 2/2 twill, basket.
WEAVES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((1, 0), (0, 1)),
    ((1, 1, 0), (0, 1, 1), (1, 0, 1)),
    ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1), (1, 0, 0, 1)),
    ((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1)),
)


def _thread(rng: Rng, along: Field, across: Field, count: int) -> tuple[Field, Field, Field]:
    """Cross-section height in [0, 1], tone and twist of the threads numbered by floor(across)."""
    index = np.floor(across).astype(np.int32)
    index -= index.min()
    length = 260
    slub = np.stack([line_noise(rng, length, 26) for _ in range(12)])
    pick = rng.integers(12, size=count + index.max() + 1)[index]
    place = np.mod((along * 2).astype(np.int32) + pick * 37, length)
    girth = 1 + 0.1 * slub[pick, place]
    middle = (np.mod(across, 1) - 0.5) * 2 / girth
    section = np.sqrt(np.clip(1 - middle * middle, 0, 1))
    tone = rng.normal(0, 1, index.max() + 1).astype(np.float32)[index] + 0.6 * slub[pick, place]
    twist = np.sin(np.float32(2 * np.pi) * (along * np.float32(1.9) + middle * np.float32(0.45) + 0.37 * pick))
    return np.asarray(section, np.float32), np.asarray(tone, np.float32), np.asarray(twist, np.float32)


def _over(weave: tuple[tuple[int, ...], ...], u: Field, v: Field) -> Field:
    """How far the warp lies over the weft, in [0, 1], smooth between crossings."""
    pattern = np.asarray(weave, np.float32)
    k = len(pattern)
    padded: NDArray = np.pad(pattern, 1, mode="wrap")
    return np.asarray(cv2.remap(padded, np.mod(u - 0.5, k) + 1, np.mod(v - 0.5, k) + 1, cv2.INTER_LINEAR), np.float32)


def fabric(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Woven cloth: threads of uneven girth passing over and under each other."""
    first, second, finest, coarsest, weaves = YARNS[dye.integers(len(YARNS))]
    pitch = s * rng.uniform(finest, coarsest)
    u, v = (f / np.float32(pitch) for f in frame(n, rng.choice([0.0, np.pi / 4]) + rng.normal(0, 0.12)))
    u, v = (c + 0.32 * fractal(rng, n, 130 * s, 2) + 0.05 * fractal(rng, n, 3 * pitch, 2) for c in (u, v))
    warp, warp_tone, warp_twist = _thread(rng, v, u, 64)
    weft, weft_tone, weft_twist = _thread(rng, u, v, 64)
    over = _over(WEAVES[weaves[dye.integers(len(weaves))]], u, v) + 0.04 * fractal(rng, n, pitch, 2)
    warp_top, weft_top = warp + 1.5 * (over - 0.5), weft + 1.5 * (0.5 - over)
    on_top = smoothstep(-0.12, 0.12, warp_top - weft_top)
    top = np.maximum(warp_top, weft_top)
    fuzz = fractal(rng, n, 1.6 * s, 2, 0.8)
    tone = on_top * warp_tone + (1 - on_top) * weft_tone
    twist = on_top * warp_twist + (1 - on_top) * weft_twist
    mix = on_top[..., None]
    albedo = np.asarray(first, np.float32) * mix + np.asarray(second, np.float32) * (1 - mix)
    depth = 0.4 + 0.6 * smoothstep(0.2, 1.3, top)
    shades = depth * (1 + 0.1 * tone + 0.09 * twist + 0.09 * fuzz + 0.05 * fractal(rng, n, 60 * s, 3))
    tint = (1 + rng.normal(0, 0.1)) * (1 + rng.normal(0, 0.05, 3))
    albedo = albedo * shades[..., None] * tint.astype(np.float32)
    height = pitch * 0.26 * blur(top, 0.25 * s) + s * (0.12 * twist + 0.1 * fuzz) + 1.5 * s * fractal(rng, n, 90 * s, 2)
    return Scene(np.clip(albedo, 0.008, 0.95), np.asarray(height, np.float32), 0.01, 8, None, (0.38, 0.56))
