"""Things made of threads and fibres: carpet, knitwear, nets. Same contract as the makers in `surfaces`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.camera import Scene
from fast.procedural.noise import Field, Rng, blur, cells, displaced, fractal, frame, line_noise, smoothstep

TAU = np.float32(2 * np.pi)


def dyed(dye: Rng, greys: float = 0.4, value: tuple[float, float] = (0.05, 0.65), depth: float = 0.9) -> Field:
    """Any colour (3,), linear light: a near-grey with chance `greys`, else of any hue, saturated up to `depth`."""
    level = np.exp(dye.uniform(np.log(value[0]), np.log(value[1])))
    # Products are red, orange or blue more often than violet; their greys lean to yellow or blue.
    hue = np.interp(dye.random(), (0, 0.28, 0.42, 0.57, 0.82, 0.9, 1), np.arange(7))
    strength = dye.uniform(0.35, 1) * depth
    tint = np.array([1, 0.1, -1.15]) * dye.normal(0, 0.05) + dye.normal(0, 0.006, 3)
    wheel = np.clip(2 - np.abs((hue - np.array([0, 2, 4]) + 3) % 6 - 3), 0, 1)
    colour = level * ((1 + tint) if dye.random() < greys else (1 - strength * (1 - wheel)) * (1 + tint))
    return np.asarray(np.clip(colour, 0.008, 0.9), np.float32)


def part(x: Field) -> Field:
    """Fractional part; several times faster than np.mod."""
    return np.asarray(x - np.floor(x), np.float32)


def fibres(
    rng: Rng,
    n: int,
    count: int,
    length: float,
    levels: Sequence[float],
    thickness: int = 1,
    bend: float = 0.8,
    lean: Sequence[float] = (0.0, np.pi),
) -> Field:
    """Short curved hairs (n, n) in [0, 1] on 0, painted over each other, those of the first level first.

    `lean`: the middle of the directions and how far they stray from it, radians.
    """
    canvas = np.zeros((n, n), np.uint8)
    steps = np.linspace(-0.5, 0.5, 5)
    for level in levels:
        k = max(1, count // len(levels))
        angle = lean[0] + lean[1] * rng.uniform(-1, 1, (k, 1)) + bend * rng.normal(0, 1, (k, 1)) * steps
        stride = length * rng.uniform(0.5, 1.3, (k, 1)) / len(steps)
        x = rng.uniform(-length / 2, n + length / 2, (k, 1)) + np.cumsum(np.cos(angle) * stride, 1)
        y = rng.uniform(-length / 2, n + length / 2, (k, 1)) + np.cumsum(np.sin(angle) * stride, 1)
        points = np.rint(np.stack([x, y], 2)).astype(np.int32)
        cv2.polylines(canvas, list(points), False, int(255 * level), thickness)
    return np.asarray(canvas.astype(np.float32) / 255, np.float32)


def _mixed(mix: Field, first: Field, second: Field) -> Field:
    return np.asarray(first + mix[..., None] * (second - first), np.float32)


def _loops(rng: Rng, n: int, pitch: float) -> tuple[Field, NDArray[np.uint8]]:
    """Rows of yarn loops seen from above: (n, n) roundness in [0, 1] and a random byte for each loop."""
    dome, byte = np.zeros((n, n), np.uint8), np.zeros((n, n), np.uint8)
    angle = rng.uniform(-np.pi, np.pi)
    tall = pitch * rng.uniform(0.7, 0.95)
    reach, t = 0.75 * n, np.linspace(-0.5, 0.5, 5)
    y, x = np.meshgrid(np.arange(-reach, reach, tall), np.arange(-reach, reach, pitch), indexing="ij")
    group = np.add.outer(3 * (np.arange(len(y)) % 3), np.arange(y.shape[1]) % 3)
    x = x + (np.arange(len(y)) % 2)[:, None] * pitch * rng.choice([0, 0.5])
    x, y = x + rng.normal(0, 0.13, x.shape) * pitch, y + rng.normal(0, 0.1, y.shape) * pitch
    lean = rng.choice([0.0, 0.7]) + rng.normal(0, 0.35, (*x.shape, 1))
    length = pitch * rng.uniform(0.3, 0.6, (*x.shape, 1))
    bow = rng.normal(0, 0.25, (*x.shape, 1)) * pitch * (t * t - 0.1)
    px, py = (
        x[..., None] + t * length * np.cos(lean) - bow * np.sin(lean),
        y[..., None] + t * length * np.sin(lean) + bow,
    )
    c, d = np.cos(angle), np.sin(angle)
    points = np.rint(np.stack([px * c - py * d, px * d + py * c], -1) + n / 2).astype(np.int32)
    inside = ((points[..., 2, :] > -pitch) & (points[..., 2, :] < n + pitch)).all(-1)
    # Loops of one group never touch; each group lies over those painted before it.
    for k in rng.permutation(9):
        chosen = list(points[(group == k) & inside])
        for value, loop in zip(rng.integers(1, 256, len(chosen)), chosen, strict=True):
            cv2.polylines(byte, [loop], False, int(value), max(1, round(0.88 * tall)))
        for share in (1.0, 0.85, 0.65, 0.4, 0.15):
            level = int(255 * (0.15 + 0.85 * np.sqrt(1 - share * share)))
            cv2.polylines(dome, chosen, False, level, max(1, round(0.88 * tall * share)))
    return blur(dome.astype(np.float32) / 255, 0.05 * pitch), byte


def carpet(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Loop pile (rows of twisted loops) or cut pile (a field of yarn ends)."""
    base = dyed(dye, 0.45, (0.06, 0.45), 0.7)
    second = base * np.float32(dye.uniform(0.35, 1.6)) if dye.random() < 0.7 else dyed(dye, 0.5, (0.06, 0.45), 0.6)
    loops, heather = dye.random() < 0.5, dye.uniform(0.0, 0.6)
    worn, fuzz = fractal(rng, n, 80 * s, 3), fractal(rng, n, 1.5 * s, 2, 0.8)
    sway = [0.8 * s * fractal(rng, n, 12 * s, 2) + 3 * s * fractal(rng, n, 70 * s, 2) for _ in "xy"]
    if loops:
        pitch = s * rng.uniform(5.5, 12)
        dome, byte = _loops(rng, n, pitch)
        dome = displaced(dome, sway)
        byte = displaced(byte.astype(np.float32), sway, cv2.INTER_NEAREST).astype(np.uint8)
        which = (rng.random(256) < heather).astype(np.float32)[byte]
        tone = rng.normal(0, 1, 256).astype(np.float32)[byte]
        angle = (rng.uniform(-np.pi, np.pi) + rng.normal(0, 0.4, 256)).astype(np.float32)
        u, v = frame(n, 0.0)
        along = (u * np.cos(angle)[byte] + v * np.sin(angle)[byte]) / np.float32(rng.uniform(0.24, 0.36) * pitch)
        ply = np.sin(TAU * along + 2.2 * tone + 1.5 * dome)
        hair = fibres(rng, n, int(n * n / (5 * s * s)), 5 * s, (0.5, 0.35, 0.75, 0.6), max(1, round(0.35 * s)))
        hair = blur(np.asarray(np.where(hair > 0, hair - 0.5, 0), np.float32), 0.25 * s)
        shades = (0.2 + 0.8 * dome) * (1 + 0.2 * ply + 0.07 * tone + 0.4 * hair + 0.12 * fuzz)
        height = 0.5 * pitch * dome + s * (0.5 * ply * dome + 0.6 * hair + 0.3 * fuzz)
    else:
        labels, border = cells(rng, n, s * rng.uniform(4, 11), 0.9)
        labels = displaced(labels.astype(np.float32), sway, cv2.INTER_NEAREST).astype(np.int32)
        which = blur((rng.random(int(labels.max()) + 1) < heather).astype(np.float32)[labels], 0.6 * s)
        clump = smoothstep(0, 2.5 * s, blur(displaced(border, sway), 0.9 * s))
        lean, long = (rng.uniform(-np.pi, np.pi), rng.uniform(0.4, 2.0)), rng.uniform(4, 9)
        levels, thickness = [0.1 * k for k in range(2, 11)], max(1, round(0.6 * s))
        pile = fibres(rng, n, int(2.6 * n * n / (s * s * long)), long * s, levels, thickness, 1.2, lean)
        pile = displaced(blur(pile, 0.2 * s), [1.5 * s * fractal(rng, n, 9 * s, 2) for _ in "xy"])
        # Pile that was brushed the other way shows more of its sides.
        nap = smoothstep(-1.0, 1.0, fractal(rng, n, 60 * s, 3)) * rng.uniform(0, 0.3)
        shades = (0.72 + 0.28 * clump) * (0.2 + pile) * (1 + 0.06 * fuzz) * (1 - nap)
        height = s * (1.7 * pile + 0.9 * clump + 0.25 * fuzz)
    albedo = _mixed(np.asarray(which, np.float32), base, second) * (shades * (1 + 0.06 * worn))[..., None]
    height = height + 1.2 * s * worn
    return Scene(np.clip(albedo, 0.004, 0.95), np.asarray(height, np.float32), 0.0, 8, None, (0.34, 0.54))


def knit(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Stitches in columns of V shapes: plain or ribbed, one colour, marled or striped."""
    base = dyed(dye, 0.4, (0.05, 0.6), 0.8)
    second = base * np.float32(dye.uniform(0.4, 1.7)) if dye.random() < 0.6 else dyed(dye, 0.5, (0.05, 0.6), 0.8)
    style, rib = dye.integers(4), dye.choice([0, 0, 0, 1, 2])
    pitch = s * rng.uniform(6.5, 15)
    rows = pitch * rng.uniform(0.62, 0.85)
    u, v = frame(n, rng.choice([0.0, np.pi / 2, np.pi]) + rng.normal(0, 0.1))
    sag = [fractal(rng, n, 110 * s, 2) for _ in "uv"]
    wobble = [fractal(rng, n, 1.6 * pitch, 2) for _ in "uv"]
    x = u / np.float32(pitch) + 0.22 * sag[0] + 0.035 * wobble[0]
    y = v / np.float32(rows) + 0.3 * sag[1] + 0.06 * wobble[1]
    column = np.floor(x)
    side = np.where(x - column < 0.5, 1, -1).astype(np.float32)
    # From the middle of the stitch (0) to where it meets the next column (1).
    out = np.abs(2 * (x - column) - 1)
    slant = np.float32(rng.uniform(0.9, 1.35))
    t = y + slant * out
    row = np.floor(t)
    across, along = 2 * (t - row) - 1, out
    columns, lines = ((f - f.min()).astype(np.int32) for f in (column, row))
    tone = rng.normal(0, 1, (64, 97)).astype(np.float32)[lines % 64, (columns * 2 + (side > 0)) % 97]
    girth = (1.0 + 0.06 * line_noise(rng, int(lines.max()) + 1, 3))[lines] + 0.05 * tone
    body = np.sqrt(np.clip(1 - (across / girth) ** 2, 0, 1))
    waist = np.sqrt(np.clip(1 - (2 * along - 1) ** 2, 0, 1))
    strand = body * (0.35 + 0.65 * waist)
    plies = rng.uniform(0.9, 1.8)
    twist = np.sin(TAU * (np.float32(plies) * along + 0.55 * across + 0.3 * tone))
    fuzz = fractal(rng, n, 1.5 * s, 2, 0.8)
    hair = fibres(rng, n, int(n * n / (14 * s * s)), 7 * s, (0.4, 0.7, 0.3, 0.6), max(1, round(0.3 * s)), 1.8)
    hair = blur(np.asarray(np.where(hair > 0, hair - 0.38, 0), np.float32), 0.25 * s)
    if style == 0:
        # Marl: plies of two colours twisted into one yarn.
        mix = 0.8 * smoothstep(-0.8, 0.8, twist + 0.4 * tone + 0.35 * fractal(rng, n, 1.4 * pitch, 2))
    elif style == 1:
        period = int(dye.integers(2, 9))
        mix = ((lines // period) % 2).astype(np.float32)
    else:
        mix = np.zeros((n, n), np.float32)
    shades = (0.16 + 0.84 * smoothstep(0.05, 0.85, strand)) * (1 + 0.1 * twist + 0.07 * tone + 0.1 * fuzz) + 0.35 * hair
    height = 0.34 * pitch * strand + s * (0.22 * twist + 0.2 * fuzz + 0.5 * hair) + 2 * s * sag[0]
    if rib:
        sunk = np.cos(TAU * (x - 0.5) / np.float32(2 * rib))
        height += 0.35 * pitch * sunk
        shades *= 0.8 + 0.2 * smoothstep(-0.8, 0.6, np.asarray(sunk, np.float32))
    albedo = _mixed(np.asarray(mix, np.float32), base, second) * shades[..., None]
    return Scene(np.clip(albedo, 0.004, 0.95), np.asarray(height, np.float32), 0.006, 8, None, (0.36, 0.56))


# (colour, gloss, chance) of wires and cords, linear light.
WIRES = [(0.5, 0.5, 0.52), (0.55, 0.53, 0.5), (0.55, 0.42, 0.2), (0.5, 0.27, 0.16), (0.3, 0.31, 0.32)]


def _grid(rng: Rng, n: int, s: float) -> tuple[Field, Field, Field]:
    """Woven wire: height in px above the gaps, tone, and 1 on wire (0 in the gaps)."""
    pitch = s * rng.uniform(6, 20)
    radius = pitch * rng.uniform(0.13, 0.3)
    angle = rng.choice([0.0, np.pi / 4]) + rng.normal(0, 0.1)
    cross = np.pi / 2 if rng.random() < 0.7 else rng.uniform(1.0, 1.35)
    reach = int(rng.choice([1, 1, 2]))
    bent, uneven = rng.uniform(0.0, 0.05), rng.uniform(0.005, 0.04)
    families = []
    for a in (angle, angle + cross):
        _, v = frame(n, a)
        families.append(v / np.float32(pitch) + bent * fractal(rng, n, 60 * s, 2))
    tops, tones = [], []
    for k, (own, other) in enumerate((families, families[::-1])):
        wire = np.floor(own)
        index = (wire - wire.min()).astype(np.int32)
        shift = rng.normal(0, uneven, int(index.max()) + 1).astype(np.float32)[index]
        d = (own - wire - 0.5 - shift) * np.float32(pitch / radius)
        section = np.sqrt(np.clip(1 - d * d, 0, 1))
        # Wires of one family rise where those of the other dive.
        wave = np.sin(TAU / 2 * ((other - 0.5) / reach + wire + 0.5) + np.float32(k * np.pi * (1 + 1 / reach)))
        tops.append(np.where(section > 0, radius * (1.2 + section + 0.9 * wave), 0))
        tones.append(rng.normal(0, 1, int(index.max()) + 1).astype(np.float32)[index])
    upper = tops[0] > tops[1]
    height = np.where(upper, tops[0], tops[1])
    return (
        np.asarray(height, np.float32),
        np.asarray(np.where(upper, tones[0], tones[1]), np.float32),
        (height > 0).astype(np.float32),
    )


def _net(rng: Rng, n: int, s: float) -> tuple[Field, Field, Field]:
    """Sports-cloth mesh, holes in offset rows: same fields as `_grid`."""
    pitch = s * rng.uniform(8, 20)
    tall = pitch * rng.uniform(0.7, 1.3)
    u, v = frame(n, rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1))
    x = u / np.float32(pitch) + 0.1 * fractal(rng, n, 70 * s, 2) + 0.02 * fractal(rng, n, pitch, 2)
    y = v / np.float32(tall) + 0.1 * fractal(rng, n, 70 * s, 2) + 0.02 * fractal(rng, n, pitch, 2)
    row = np.floor(y)
    dx, dy = part(np.asarray(x + 0.5 * row, np.float32)) - 0.5, y - row - 0.5
    power = rng.uniform(1.6, 3.0)
    away = (np.abs(dx) ** np.float32(power) + np.abs(dy) ** np.float32(power)) ** np.float32(1 / power)
    edge = (away - np.float32(rng.uniform(0.24, 0.38))) * pitch
    cloth = smoothstep(-0.15 * s, 0.5 * s, edge)
    fine = s * rng.uniform(1.6, 2.6)
    yarn = np.sin(TAU * (u + 0.4 * np.abs(dx) * pitch) / np.float32(fine)) * np.sin(TAU * v / np.float32(1.2 * fine))
    rim = np.sqrt(np.clip(edge / np.float32(0.22 * pitch), 0, 1))
    height = cloth * (0.18 * pitch * rim + 0.3 * s * yarn + 0.25 * pitch)
    return np.asarray(height, np.float32), np.asarray(0.9 * yarn, np.float32), cloth


def mesh(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Woven wire or holed net over a dark, unsharp ground."""
    metal = dye.random() < 0.5
    if metal:
        colour = np.asarray(WIRES[dye.integers(len(WIRES))], np.float32) * np.float32(1 + dye.normal(0, 0.1))
    else:
        colour = dyed(dye, 0.5, (0.05, 0.6), 0.85)
    height, tone, solid = _grid(rng, n, s) if metal or dye.random() < 0.4 else _net(rng, n, s)
    grit, dirt = fractal(rng, n, 2 * s, 3, 0.7), fractal(rng, n, 50 * s, 4)
    below = float(np.exp(rng.uniform(np.log(0.006), np.log(0.07))))
    ground = below * (1 + 0.25 * fractal(rng, n, 25 * s, 3)) * (1 - 0.5 * blur(solid, 1.5 * s))
    shades = 1 + 0.07 * tone + (0.05 if metal else 0.1) * grit + 0.06 * dirt
    # The sides of a thread turn away from every light.
    side = 0.5 + 0.5 * smoothstep(0.1, 0.9, height / np.float32(max(float(np.percentile(height, 95)), 1e-3)))
    solid = blur(solid, 0.2 * s)[..., None]
    albedo = solid * colour * (shades * side)[..., None] + (1 - solid) * ground[..., None]
    height = blur(height, 0.3 * s) * np.float32(0.8) + 0.08 * s * grit * solid[..., 0]
    gloss = rng.uniform(0.1, 0.4) if metal else rng.uniform(0.0, 0.06)
    return Scene(np.clip(albedo, 0.004, 0.95), np.asarray(height, np.float32), gloss, 24, None, (0.34, 0.54))
