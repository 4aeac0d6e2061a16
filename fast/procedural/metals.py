"""Metals. Same contract as the makers in `surfaces`."""

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
    line_noise,
    near_grey,
    smoothstep,
    spots,
    streaks,
    sweep,
    tint,
    turn,
    white,
)

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
    albedo = np.clip(tint(dye, STEELS, 0.06) * np.ones((n, n, 1), np.float32), 0, 1)
    height = np.asarray(0.05 * s * brush + 2 * smudge, np.float32)
    return Scene(albedo, height, 0.02, 30, np.asarray(np.maximum(glow, 0.05), np.float32), (0.48, 0.68))


def _plain(colour: Field, shades: Field) -> Field:
    """Albedo (n, n, 3) of one colour (3,) in many shades (n, n)."""
    return np.asarray(np.clip(colour * shades[..., None], 0.008, 0.95), np.float32)


def _grooves(rng: Rng, phase: Field) -> tuple[Field, Field]:
    """Profile and tone of tool marks numbered by floor(phase): both (n, n), mean about 0 and deviation about 1."""
    fine, first = 12, float(phase.min())
    at = ((phase - np.float32(first)) * fine).astype(np.int32)
    count = int(at.max()) + 1
    mark = np.arange(count, dtype=np.float32) / fine
    # A round tool leaves cusps; runout makes some marks deeper than their neighbours.
    depth = 1 + 0.35 * line_noise(rng, count, fine * 2.0, 2)
    cusp = (0.64 - np.abs(np.sin(np.float32(np.pi) * mark))) * 2.2
    profile = depth * cusp + 0.45 * line_noise(rng, count, 4, 2)
    tone = 0.7 * line_noise(rng, count, fine * 30.0, 3) + 0.5 * line_noise(rng, count, fine * 1.5, 2)
    return np.asarray(profile[at], np.float32), np.asarray(tone[at], np.float32)


def _along(rng: Rng, n: int, length: float, x: Field, y: Field) -> Field:
    """Streaks about `length` px long that follow the curves y = const, x being the way along them in px."""
    field = streaks(rng, n, length, 1.2)
    wrapped = np.mod(x, np.float32(n)), np.mod(y, np.float32(n))
    return np.asarray(cv2.remap(field, *wrapped, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


IRONS = [(0.3, 0.3, 0.31), (0.2, 0.2, 0.21), (0.42, 0.42, 0.43), (0.3, 0.26, 0.21), (0.24, 0.26, 0.3), (0.5, 0.5, 0.49)]


def cast_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Sand-cast, die-cast or shot-blasted metal: lumps at several sizes, pits, a skin of uneven grey."""
    style = int(dye.integers(3))
    colour = near_grey(dye, IRONS, 0.15)
    grain = s * (rng.uniform(2.6, 6.0), rng.uniform(1.4, 2.4), rng.uniform(3.0, 5.5))[style]
    fine, lumps, wide = (grains(rng, n, k * grain) for k in (0.45, 1.0, 3.0))
    cloud, swell = fractal(rng, n, 70 * s, 5, 0.55), fractal(rng, n, 120 * s, 2)
    relief = grain * (rng.uniform(0.1, 0.24), rng.uniform(0.03, 0.09), rng.uniform(0.14, 0.22))[style]
    if style == 2:
        # Every shot leaves a bowl: flat between sharp rims.
        _, border = cells(rng, n, 1.5 * grain, 1.2)
        bowl = blur(np.minimum(border, 0.5 * grain), 0.25 * grain) / (0.3 * grain)
        lumps = np.asarray(0.4 * lumps - 1.4 * bowl, np.float32)
    pits = spots(rng, n, int(rng.integers(4, 50)), 0.5 * s, rng.uniform(0.9, 2.4) * s)
    height = (
        relief * (lumps + 0.4 * fine + 1.2 * wide) + s * swell * rng.uniform(1.0, 5.0) - 0.6 * s * blur(pits, 0.5 * s)
    )
    shades = 1 + 0.05 * lumps + 0.04 * fine + 0.05 * wide + rng.uniform(0.04, 0.12) * cloud
    if style == 1:
        flow = turn(streaks(rng, cover(n, 0.4), 90 * s, 10 * s), 0.4, n)
        shades += 0.05 * displaced(flow, [9 * s * cloud, 9 * s * wide])
    shades *= 1 - 0.55 * blur(pits, 0.3 * s)
    gloss, light = float(colour.mean()) * rng.uniform(0.1, 0.5), sweep(rng, n, rng.uniform(0, 0.9))
    albedo = _plain(colour, np.asarray(shades, np.float32))
    return Scene(albedo, np.asarray(height, np.float32), gloss, rng.uniform(6, 16), light, (0.3, 0.62), defocus(rng))


def _cutter(rng: Rng, n: int, s: float) -> tuple[Field, Field, Field]:
    """Coordinates of a milled face, all (n, n) px: along the marks, across them, and the cutter's swing in radians."""
    u, v = frame(n, rng.uniform(-np.pi, np.pi))
    style = rng.integers(3)
    if style == 0:
        return u, v, np.zeros_like(u)
    if style == 1:
        radius = np.float32(n * rng.uniform(0.6, 1.6))
        far = np.hypot(u - radius, v)
        swing = np.arctan2(v, radius - u)
        return swing * radius, far, swing
    lane = np.float32(s * rng.uniform(70, 190))
    reach = lane * np.float32(rng.uniform(0.53, 0.9))
    offset = v + lane * np.float32(rng.uniform(0, 1))
    index = np.floor(offset / lane)
    aside = offset - (index + np.float32(0.5)) * lane
    swing = np.arcsin(np.clip(aside / reach, -1, 1))
    # Passes do not start in step.
    return swing * reach, u - np.sqrt(reach**2 - aside**2) + index * np.float32(0.37 * lane), swing


def milled_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A milled face: straight marks, wide arcs, or the arcs of a face mill in passes side by side."""
    pitch = s * rng.uniform(2.2, 8.0)
    along, across, swing = _cutter(rng, n, s)
    profile, tone = _grooves(rng, across / np.float32(pitch))
    grain = _along(rng, n, 30 * s, along, across)
    chatter, cloud = fractal(rng, n, 24 * s, 3), fractal(rng, n, 90 * s, 2)
    bright = np.cos(swing - np.float32(rng.uniform(-1.2, 1.2))) ** 2
    strength = rng.uniform(0.07, 0.2)
    marks = profile * (1 + 0.25 * chatter)
    glow = sweep(rng, n, rng.uniform(0.2, 1.0)) * (0.75 + rng.uniform(0.1, 0.5) * bright)
    glow *= 1 + strength * marks + 0.05 * tone + rng.uniform(0.02, 0.06) * grain + 0.02 * cloud
    # A second pass of the trailing edge crosses the first marks faintly.
    if rng.random() < 0.4:
        back, _ = _grooves(rng, (along * np.float32(rng.uniform(-0.5, 0.5)) + across) / np.float32(1.3 * pitch))
        glow *= 1 + 0.3 * strength * back
    albedo = _plain(near_grey(dye, STEELS, 0.1), 1 + 0.015 * cloud)
    height = 0.03 * pitch * marks + 0.04 * s * grain + 2 * cloud
    light = np.asarray(np.maximum(glow, 0.05), np.float32)
    return Scene(albedo, np.asarray(height, np.float32), 0.03, 30, light, (0.38, 0.68), defocus(rng))


def rolled_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Sheet as it leaves the mill: zinc spangle, cold-rolled with lines, or hot-rolled with scale."""
    style = int(dye.integers(3))
    colour = near_grey(dye, (STEELS[:2], STEELS, IRONS)[style], 0.1)
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.06)
    m = cover(n, angle)
    lines = turn(streaks(rng, m, s * rng.uniform(60, 250), 1.2 * s), angle, n)
    bands = turn(streaks(rng, m, 320 * s, s * rng.uniform(6, 20)), angle, n)
    cloud, grit, swell = fractal(rng, n, 60 * s, 4), grains(rng, n, 1.6 * s), fractal(rng, n, 120 * s, 2)
    if style == 0:
        size = s * rng.uniform(9, 34)
        labels, border = cells(rng, n, size, 1.4)
        count = int(labels.max()) + 1
        drift = [(0.04 * size + 0.5 * s) * fractal(rng, n, 0.5 * size, 4, 0.75) for _ in "xy"]
        facing = rng.uniform(0, np.pi, count).astype(np.float32)
        u, v = frame(n, 0)
        # Crystals grow as ferns: ribs at a right angle to the trunk, another way round in every grain.
        rib = np.sin((u * np.cos(facing)[labels] + v * np.sin(facing)[labels]) / np.float32(s * rng.uniform(0.45, 0.8)))
        value = np.clip(rng.standard_normal(count, dtype=np.float32), -1.7, 1.7)[labels]
        # Crystals are not quite flat: each is brighter towards one end.
        area, flat = np.maximum(np.bincount(labels.ravel()), 1), labels.ravel()
        for axis in (u, v):
            slope = rng.normal(0, 1.0 / size, count).astype(np.float32)
            middle = (np.bincount(flat, axis.ravel()) / area).astype(np.float32)
            value += slope[labels] * (axis - middle[labels])
        value, rib, border = (displaced(f, drift) for f in (value, rib, border))
        dull = smoothstep(-1, 1, fractal(rng, n, 0.8 * size, 3))
        seam = np.exp(-border / (0.5 * s))
        shades = 1 + rng.uniform(0.07, 0.2) * value + 0.06 * rib * dull + 0.03 * grit - 0.06 * seam + 0.03 * lines
        height = s * (0.04 * rib * dull + 0.05 * grit) + 2 * swell
        gloss, shine = 0.1, 14.0
    elif style == 1:
        shades = 1 + 0.05 * lines + 0.05 * bands + 0.05 * grit + 0.03 * cloud
        height = s * (0.06 * lines + 0.08 * grit) + 2 * swell
        gloss, shine = 0.15, 20.0
    else:
        flakes = fractal(rng, n, s * rng.uniform(10, 30), 5, 0.7, stretch=2.0)
        scale = smoothstep(0.2, 1.6, flakes) * rng.uniform(0.1, 0.45)
        shades = (1 + 0.06 * lines + 0.09 * grit + 0.09 * cloud + 0.05 * bands) * (1 - scale)
        height = s * (0.08 * lines + 0.12 * grit + 0.12 * flakes) + 2 * swell
        gloss, shine = 0.04, 8.0
    light = sweep(rng, n, rng.uniform(0.1, 1.0))
    albedo = _plain(colour, np.asarray(shades, np.float32))
    return Scene(albedo, np.asarray(height, np.float32), gloss, shine, light, (0.36, 0.66), defocus(rng))


def turned_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """A faced end: circles round a centre in or near the picture, and the sheen that fans out from it."""
    far, way = n * (rng.uniform(0, 0.25) if rng.random() < 0.6 else rng.uniform(0.25, 1.1)), rng.uniform(-np.pi, np.pi)
    u, v = frame(n, 0.0)
    u, v = u - np.float32(far * np.cos(way)), v - np.float32(far * np.sin(way))
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    pitch = s * rng.uniform(1.5, 5.0)
    profile, tone = _grooves(rng, radius / np.float32(pitch))
    grain = _along(rng, n, 60 * s, angle * np.float32(rng.integers(1, 3) * n / (2 * np.pi)), radius)
    lamps = rng.uniform(-np.pi, np.pi, int(rng.integers(1, 3)))
    sheen = np.zeros_like(u)
    for lamp in lamps:
        # Grooves are seen bright where they lie across the light: on both sides of the centre.
        lean = np.abs(np.cos(angle - np.float32(lamp) + np.float32(0.04) * tone))
        sheen += np.float32(rng.uniform(0.5, 1.0)) * lean ** np.float32(rng.uniform(5, 40))
    cloud = fractal(rng, n, 90 * s, 2)
    base = rng.uniform(0.4, 0.75)
    glow = (base + rng.uniform(0.4, 1.0) * sheen) * sweep(rng, n, rng.uniform(0, 0.6))
    contrast = rng.uniform(0.05, 0.15)
    glow *= 1 + contrast * profile * (0.5 + 0.6 * sheen) + 0.07 * tone + 0.045 * grain + 0.02 * cloud
    shades = 1 + 0.02 * cloud
    if rng.random() < 0.3:
        bore = s * rng.uniform(5, 30)
        inside = smoothstep(0.8 * s, -0.8 * s, radius - bore)
        rim = np.exp(-(((radius - bore - 1.5 * s) / (1.2 * s)) ** 2))
        glow = glow * (1 + 0.5 * rim * np.cos(angle - np.float32(lamps[0])))
        glow = glow * (1 - inside) + inside * (0.6 + 0.3 * u / np.float32(bore))
        shades = shades * (1 - 0.93 * inside)
    albedo = _plain(near_grey(dye, STEELS, 0.1), np.asarray(shades, np.float32))
    height = 0.02 * pitch * profile + 0.05 * s * grain + 1.5 * cloud
    light = np.asarray(np.maximum(glow, 0.05), np.float32)
    return Scene(albedo, np.asarray(height, np.float32), 0.02, 30, light, (0.36, 0.64), defocus(rng))


def _punched(rng: Rng, n: int, s: float, style: int) -> Callable[[float, float], Field]:
    """A function of a shift (x, y) in px: signed distance (n, n) in px to the nearest hole, under 0 inside."""
    u, v = frame(n, rng.choice([0.0, np.pi / 4, np.pi / 2]) + rng.normal(0, 0.08))
    lean = 1 + (np.float32(rng.normal(0, 0.05)) * u + np.float32(rng.normal(0, 0.05)) * v) / n
    u, v = u / lean + np.float32(rng.uniform(0, 99)), v / lean + np.float32(rng.uniform(0, 99))
    pitch = s * rng.uniform(12, 46)
    radius = pitch * rng.uniform(0.22, 0.36)
    half = (0.0, rng.uniform(1.0, 2.4) * radius, 0.0)[style]
    rows, columns = pitch * (0.866, 0.95, 1.0)[style], pitch + 2.3 * half
    stagger = (0.5, 0.5, 0.0)[style]
    square = style == 2 and rng.random() < 0.5

    def distance(x: float, y: float) -> Field:
        row = np.round((v + np.float32(y)) / np.float32(rows))
        aside = (u + np.float32(x)) / np.float32(columns) - np.float32(stagger) * np.mod(row, 2)
        du = np.abs(aside - np.round(aside)) * np.float32(columns)
        dv = np.abs(v + np.float32(y) - row * np.float32(rows))
        corner = np.float32(0.72 * radius if square else half)
        out_u, out_v = np.maximum(du - corner, 0), np.maximum(dv - (corner if square else 0), 0)
        return np.asarray(np.hypot(out_u, out_v) - np.float32(0.28 * radius if square else radius), np.float32)

    return distance


def perforated_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Punched sheet: staggered round holes, slots or a square grid, over a dark or a plain ground."""
    distance = _punched(rng, n, s, int(dye.integers(3)))
    ragged = 0.12 * s * fractal(rng, n, 5 * s, 2)
    edge = distance(0, 0) + ragged
    hole = smoothstep(0.6 * s, -0.6 * s, edge)
    thick, way = s * rng.uniform(0.5, 4.0), rng.uniform(-np.pi, np.pi)
    through = smoothstep(0.6 * s, -0.6 * s, distance(thick * np.cos(way), thick * np.sin(way)) + ragged) * hole
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.1)
    brush = turn(streaks(rng, cover(n, angle), s * rng.uniform(15, 150), 0.9 * s), angle, n)
    cloud, grit, swell = fractal(rng, n, 50 * s, 4), grains(rng, n, 1.6 * s), fractal(rng, n, 120 * s, 2)
    colour = near_grey(dye, STEELS + IRONS[:3], 0.12)
    shades = 1 + rng.uniform(0.01, 0.06) * brush + 0.03 * cloud + rng.uniform(0.01, 0.04) * grit
    wall = rng.uniform(0.15, 0.6) * (1 + 0.15 * grit)
    depth = rng.uniform(0.02, 0.09) if rng.random() < 0.9 else rng.uniform(0.25, 0.7)
    # The sheet throws its shadow on what lies behind it.
    shadow = smoothstep(1.5 * s, -1.5 * s, distance(3 * s * np.cos(way), 3 * s * np.sin(way)))
    ground = depth * (0.25 + 0.75 * shadow) * (1 + 0.25 * fractal(rng, n, 80 * s, 3))
    shades = shades * (1 - hole) + hole * (1 - through) * wall + through * np.maximum(ground, 0.008)
    rolled = smoothstep(0.0, rng.uniform(1.0, 3.5) * s, edge)
    height = 0.8 * s * blur(rolled, 0.4 * s) + s * (0.05 * brush + 0.05 * grit) + 2 * swell
    light = sweep(rng, n, rng.uniform(0.1, 0.9))
    albedo = _plain(colour, np.asarray(shades, np.float32))
    # The ground below has no gloss of the sheet's, and what lies in the hole is flat.
    height = height * (1 - hole)
    return Scene(albedo, np.asarray(height, np.float32), 0.03, 20, light, (0.36, 0.62), defocus(rng))


SINTERS = [(0.16, 0.16, 0.165), (0.1, 0.1, 0.105), (0.22, 0.215, 0.21), (0.15, 0.148, 0.14), (0.143, 0.148, 0.157)]


def sintered_metal(rng: Rng, dye: Rng, n: int, s: float) -> Scene:
    """Pressed and ground powder, as magnets are: fine even grey, grinding lines, a curved face, sometimes its edge."""
    colour = near_grey(dye, SINTERS, 0.15)
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.05)
    m = cover(n, angle)
    ground = turn(streaks(rng, m, s * rng.uniform(30, 200), 0.8 * s) + 0.6 * streaks(rng, m, 300 * s, 6 * s), angle, n)
    grit, cloud = grains(rng, n, s * rng.uniform(0.9, 1.8)), fractal(rng, n, 80 * s, 4, 0.6)
    pores = smoothstep(2.6, 3.5, grains(rng, n, 2.2 * s))
    sparks = smoothstep(2.9, 3.6, white(rng, n, n))
    shades = 1 + rng.uniform(0.02, 0.09) * ground + rng.uniform(0.03, 0.09) * grit + 0.04 * cloud
    shades = shades * (1 - 0.5 * pores) + rng.uniform(0, 0.5) * sparks
    u, v = (f / np.float32(n) for f in frame(n, angle))
    bend, top = rng.uniform(0.2, 1.6), rng.uniform(-0.5, 0.5)
    light = sweep(rng, n, rng.uniform(0, 0.6)) * np.maximum(1.1 - bend * (v - np.float32(top)) ** 2, 0.15)
    if rng.random() < 0.4:
        side = (u, -u, v, -v)[int(rng.integers(4))] + np.float32(0.0012) * fractal(rng, n, 20 * s, 4, 0.6)
        edge = side - np.float32(rng.uniform(0.25, 0.46))
        wide, pixel = rng.uniform(0.006, 0.03), s / n
        bevel = smoothstep(-0.6 * pixel, 0.6 * pixel, edge)
        beyond = smoothstep(-1.0 * pixel, 1.0 * pixel, edge - np.float32(wide))
        light = light * (1 + bevel * (rng.uniform(0.3, 1.0) if rng.random() < 0.6 else rng.uniform(-0.6, -0.3)))
        behind = rng.uniform(0.02, 0.15) if rng.random() < 0.8 else rng.uniform(1.2, 2.5)
        shades = shades * (1 - beyond) + beyond * behind * (1 + 0.03 * cloud)
    height = s * (0.05 * ground + 0.09 * grit - 0.35 * pores) + 2 * fractal(rng, n, 120 * s, 2)
    albedo = _plain(colour, np.asarray(shades, np.float32))
    lit = np.asarray(light, np.float32)
    return Scene(albedo, np.asarray(height, np.float32), 0.015, 8, lit, (0.3, 0.6), defocus(rng))


METALS: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {
    "brushed_metal": brushed_metal,
    "cast_metal": cast_metal,
    "milled_metal": milled_metal,
    "rolled_metal": rolled_metal,
    "turned_metal": turned_metal,
    "perforated_metal": perforated_metal,
    "sintered_metal": sintered_metal,
}
