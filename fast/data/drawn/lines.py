"""Defects that follow a line: scratches and cracks."""

from __future__ import annotations

import numpy as np

from fast.data.drawn.noise import Rng, line_noise, smoothstep
from fast.data.drawn.shapes import Curve, bezier, dense, groove, jagged_walk
from fast.data.drawn.site import BARE, Change, Site, tinted


def _strokes(site: Site, rng: Rng) -> list[Curve]:
    """One to four hairlines that run roughly together."""
    s, side = site.scale, float(min(site.shape))
    length = side * rng.uniform(0.18, 0.85)
    heading = rng.uniform(0, np.pi)
    centre, curves = site.spot(rng, 0.25), []
    forward = np.array([np.cos(heading), np.sin(heading)])
    normal = np.array([-forward[1], forward[0]])
    bend = rng.normal(0, 0.14, 2) * length
    ends = centre + np.outer([-0.5, -0.17, 0.17, 0.5], forward * length) + np.outer([0, bend[0], bend[1], 0], normal)
    heavy = s * rng.uniform(0.65, 1.7)
    for i in range(int(rng.choice([1, 1, 2, 3, 4]))):
        part = 1.0 if i == 0 else rng.uniform(0.3, 0.8)
        slide = rng.uniform(-0.5, 0.5) * (1 - part) * length
        aside = 0.0 if i == 0 else rng.normal(0, 5 * s)
        shaken = centre + (ends - centre) * part + forward * slide + normal * aside + rng.normal(0, 0.6 * s, (4, 2))
        points, along = dense(bezier(shaken))
        taper = np.clip(np.minimum(along, 1 - along) * rng.uniform(4, 12), 0, 1) ** 0.7
        press = np.clip(0.85 + 0.3 * line_noise(rng, len(points), 40 * s), 0.12, 1.3)
        width = heavy * (1.0 if i == 0 else rng.uniform(0.4, 0.8)) * (0.35 + 0.65 * taper * press)
        curves.append(Curve(points, width, np.clip(taper * press, 0.05, 1.0)))
    return curves


def scratch(site: Site, rng: Rng) -> Change:
    """A groove with a lit wall and a shaded one; torn and pale in soft materials."""
    line = groove(_strokes(site, rng), site.shape)
    rough = {"brushed_metal": 0.12, "wood": 0.22}.get(site.material, 0.35)
    width = line.width * (1 + rough * site.noise(rng, 2.2)) * (1.0 if site.material == "brushed_metal" else 1.25)
    across = line.side / np.maximum(width, 0.3)
    inside = smoothstep(1.25, 0.75, np.abs(across)) * line.depth
    # Positive where the wall looks at the light: the far wall of the groove.
    facing = (line.normal[0] * site.light[0] + line.normal[1] * site.light[1]) * across
    facing = np.clip(-facing * 1.6, -1, 1) * smoothstep(2.4, 0.9, np.abs(across)) * line.depth
    soft = {"leather": 0.75, "wood": 0.75, "fabric": 0.62, "stone_tile": 0.8}.get(site.material, 0.6)
    flecks = np.clip(0.8 + 0.35 * site.noise(rng, 1.6), 0.2, 1.2)
    torn = np.clip(inside * flecks * np.float32(soft * rng.uniform(0.8, 1.2)), 0, 0.92)
    shadow = np.clip(-facing, 0, 1) * np.float32(
        {"brushed_metal": 0.62, "stone_tile": 0.35, "wood": 0.42}.get(site.material, 0.55)
    )
    lit = np.clip(facing, 0, 1) * np.float32(72 if site.material == "brushed_metal" else 26)
    gain = (1 - torn) * (1 - shadow)
    tone = np.float32(rng.uniform(0.9, 1.05)) * (1 - 0.5 * shadow)
    add = tinted(np.asarray(torn * tone, np.float32), BARE[site.material]) + tinted(np.asarray(lit, np.float32))
    return Change(tinted(np.asarray(gain, np.float32)), add)


def _branches(site: Site, rng: Rng) -> list[Curve]:
    """A main crack and the ones that leave it."""
    s, side = site.scale, float(min(site.shape))
    along_grain = site.material == "wood" and site.grained
    heading = site.grain + rng.choice([0, np.pi]) + rng.normal(0, 0.06) if along_grain else rng.uniform(0, 2 * np.pi)
    wander = 0.22 if along_grain else 0.55
    length, heavy = side * rng.uniform(0.3, 0.85), s * rng.uniform(0.5, 1.5)
    if site.material == "stone_tile":
        # Between dark crystals a hairline would be lost to any eye.
        heavy *= 1.4
    start = site.spot(rng, 0.3) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    queue = [(start, float(heading), length, heavy, 0)]
    curves: list[Curve] = []
    while queue and len(curves) < 14:
        start, heading, length, heavy, level = queue.pop(0)
        path = jagged_walk(rng, start, heading, length, 4.5 * s, wander)
        points, along = dense(path)
        ends = np.clip((1 - along) * 3, 0, 1) * (np.clip(along * 8 + 0.3, 0, 1) if level == 0 else 1)
        jag = np.clip(1 + 0.35 * line_noise(rng, len(points), 7 * s), 0.3, 1.9)
        curves.append(Curve(points, heavy * (0.18 + 0.82 * ends**0.8) * jag, 0.45 + 0.55 * np.clip(ends * 1.5, 0, 1)))
        count = rng.poisson((2.4 if level == 0 else 0.9) * (0.4 if along_grain else 1.0)) if level < 2 else 0
        for _ in range(count):
            k = int(rng.uniform(0.12, 0.85) * len(points))
            turn = rng.choice([-1, 1]) * (rng.uniform(0.15, 0.35) if along_grain else rng.uniform(0.45, 1.1))
            queue.append((points[k], heading + turn, length * rng.uniform(0.2, 0.5), heavy * 0.6, level + 1))
    return curves


def crack(site: Site, rng: Rng) -> Change:
    """A branching gap: dark, jagged, with one lit edge."""
    line = groove(_branches(site, rng), site.shape)
    s = site.scale
    width = line.width * np.clip(1 + 0.3 * site.noise(rng, 1.8), 0.4, 1.8)
    gap = smoothstep(0.55 * s, -0.45 * s, np.abs(line.side) - width) * line.depth
    facing = (line.normal[0] * site.light[0] + line.normal[1] * site.light[1]) * np.sign(line.side)
    edge = np.exp(-(((np.abs(line.side) - width - 0.7 * s) / (0.6 * s)) ** 2)) * line.depth
    floor = np.float32(rng.uniform(0.1, 0.28)) + 0.04 * site.noise(rng, 2)
    gain = (1 - gap * (1 - floor)) * (1 - 0.22 * edge * np.clip(facing, 0, 1))
    bright = {"brushed_metal": 52, "leather": 40, "wood": 24, "fabric": 30, "stone_tile": 30}[site.material]
    # The edge beyond the gap, seen from the lamp, is the one that catches the light.
    lit = bright * edge * np.clip(-facing, 0, 1) * np.clip(0.8 + 0.4 * site.noise(rng, 3), 0, 1.5)
    return Change(tinted(np.asarray(gain, np.float32)), tinted(np.asarray(lit, np.float32), (1, 0.97, 0.92)))
