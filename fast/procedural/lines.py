"""Defects that follow a line: scratches and cracks."""

from __future__ import annotations

import numpy as np

from fast.procedural.noise import Rng, line_noise, smoothstep
from fast.procedural.shapes import Curve, bezier, dense, groove, jagged_walk
from fast.procedural.site import Change, Site, along, placed, tinted, traced
from fast.procedural.within import lines_within


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
        points, share = dense(bezier(shaken))
        taper = np.clip(np.minimum(share, 1 - share) * rng.uniform(4, 12), 0, 1) ** 0.7
        press = np.clip(0.85 + 0.3 * line_noise(rng, len(points), 40 * s), 0.12, 1.3)
        width = heavy * (1.0 if i == 0 else rng.uniform(0.4, 0.8)) * (0.35 + 0.65 * taper * press)
        curves.append(Curve(points, width, np.clip(taper * press, 0.05, 1.0)))
    return curves


def _scrape(site: Site, rng: Rng) -> list[Curve]:
    """A band of short parallel hairlines, as something dragged along leaves it."""
    s, side = site.scale, float(min(site.shape))
    length, wide = side * rng.uniform(0.14, 0.45), s * rng.uniform(4, 18)
    heading = rng.uniform(0, np.pi)
    forward = np.array([np.cos(heading), np.sin(heading)])
    normal = np.array([-forward[1], forward[0]])
    centre, bow, curves = site.spot(rng, 0.25), rng.normal(0, 0.08) * length, []
    for _ in range(int(rng.integers(7, 22))):
        part, aside = rng.uniform(0.15, 1.0), rng.normal(0, 0.4) * wide
        mid = centre + normal * aside + forward * rng.uniform(-0.5, 0.5) * (1 - part) * length
        ends = mid + np.outer([-0.5, -0.17, 0.17, 0.5], forward * length * part) + np.outer([0, bow, bow, 0], normal)
        points, share = dense(bezier(ends + rng.normal(0, 0.4 * s, (4, 2))))
        press = np.clip(0.7 + 0.5 * line_noise(rng, len(points), 14 * s), 0.0, 1.2) * np.clip(
            np.minimum(share, 1 - share) * 9, 0, 1
        )
        curves.append(Curve(points, s * rng.uniform(0.3, 0.9) * (0.4 + 0.6 * press), np.clip(press, 0.02, 1)))
    return curves


def scratch(site: Site, rng: Rng) -> Change:
    """A groove with a lit wall and a shaded one; torn and pale in soft materials."""
    traits = site.traits
    curves = _scrape(site, rng) if rng.random() < 0.25 else _strokes(site, rng)
    whole, (site, curves, place) = site, along(site, curves, 8 * site.scale)
    line = traced(site, curves)
    rough = float(np.clip(0.05 + traits.rough, 0.12, 0.35))
    width = line.width * (1 + rough * site.noise(rng, 2.2, 2)) * (1.0 if traits.gloss > 0.9 else 1.25)
    across = line.side / np.maximum(width, 0.3)
    inside = smoothstep(1.25, 0.75, np.abs(across)) * line.depth
    # Positive where the wall looks at the light: the far wall of the groove.
    facing = (line.normal[0] * site.light[0] + line.normal[1] * site.light[1]) * across
    facing = np.clip(-facing * 1.6, -1, 1) * smoothstep(2.4, 0.9, np.abs(across)) * line.depth
    flecks = np.clip(0.8 + 0.35 * site.noise(rng, 1.6, 2), 0.2, 1.2)
    torn = np.clip(inside * flecks * np.float32((0.8 - 0.2 * traits.gloss) * rng.uniform(0.8, 1.2)), 0, 0.92)
    shadow = np.clip(-facing, 0, 1) * np.float32(0.4 + 0.22 * traits.gloss)
    bright = np.clip(facing, 0, 1) * np.float32(24 + 48 * traits.gloss**2)
    gain = (1 - torn) * (1 - shadow)
    # An old scratch has filled with dirt.
    tone = np.float32(rng.uniform(0.15, 0.4) if rng.random() < 0.25 else rng.uniform(0.9, 1.05)) * (1 - 0.5 * shadow)
    add = tinted(np.asarray(torn * tone, np.float32), traits.bare) + tinted(np.asarray(bright, np.float32))
    return placed(whole, place, Change(tinted(np.asarray(gain, np.float32)), add))


def _branches(site: Site, rng: Rng) -> list[Curve]:
    """A main crack and the ones that leave it."""
    s, side = site.scale, float(min(site.shape))
    along_grain = site.traits.kind == "wood" and site.grained
    heading = site.grain + rng.choice([0, np.pi]) + rng.normal(0, 0.06) if along_grain else rng.uniform(0, 2 * np.pi)
    wander = 0.22 if along_grain else 0.12 if site.traits.kind == "glass" else 0.55
    length, heavy = side * rng.uniform(0.3, 0.85), s * rng.uniform(0.5, 1.5)
    if site.traits.kind == "mineral":
        # Between dark crystals a hairline would be lost to any eye.
        heavy *= 1.4
    start = site.spot(rng, 0.3) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    queue = [(start, float(heading), length, heavy, 0)]
    curves: list[Curve] = []
    while queue and len(curves) < 14:
        start, heading, length, heavy, level = queue.pop(0)
        path = jagged_walk(rng, start, heading, length, 4.5 * s, wander)
        points, share = dense(path)
        ends = np.clip((1 - share) * 3, 0, 1) * (np.clip(share * 8 + 0.3, 0, 1) if level == 0 else 1)
        jag = np.clip(1 + 0.35 * line_noise(rng, len(points), 7 * s), 0.3, 1.9)
        curves.append(Curve(points, heavy * (0.18 + 0.82 * ends**0.8) * jag, 0.45 + 0.55 * np.clip(ends * 1.5, 0, 1)))
        count = rng.poisson((2.4 if level == 0 else 0.9) * (0.4 if along_grain else 1.0)) if level < 2 else 0
        for _ in range(count):
            k = int(rng.uniform(0.12, 0.85) * len(points))
            turn = rng.choice([-1, 1]) * (rng.uniform(0.15, 0.35) if along_grain else rng.uniform(0.45, 1.1))
            queue.append((points[k], heading + turn, length * rng.uniform(0.2, 0.5), heavy * 0.6, level + 1))
    return curves


def _star(site: Site, rng: Rng) -> list[Curve]:
    """Cracks that leave the point of a blow: smooth and long in glass, with arcs between them."""
    s, side = site.scale, float(min(site.shape))
    centre, count = site.spot(rng, 0.22), int(rng.integers(4, 11))
    length, heavy = side * rng.uniform(0.08, 0.42), s * rng.uniform(0.45, 0.9)
    turns = (np.arange(count) + rng.uniform(-0.35, 0.35, count) + rng.uniform(0, count)) * 2 * np.pi / count
    curves, arms = [], []
    for turn in turns:
        path = jagged_walk(rng, centre, float(turn), length * rng.uniform(0.35, 1.0), 7 * s, 0.09)
        points, share = dense(path)
        arms.append(points)
        curves.append(Curve(points, heavy * (0.3 + 0.9 * (1 - share)), 0.5 + 0.5 * (1 - share)))
    for first, second in zip(arms, arms[1:] + arms[:1], strict=True):
        if rng.random() < 0.45:
            reach = int(rng.uniform(0.15, 0.7) * min(len(first), len(second)))
            start, end = first[reach], second[min(int(reach * rng.uniform(0.8, 1.2)), len(second) - 1)]
            bulge = (start + end) / 2 + 0.25 * ((start + end) / 2 - centre)
            points, share = dense(bezier(np.stack([start, bulge, bulge, end])))
            curves.append(Curve(points, heavy * np.full(len(points), 0.6), np.full(len(points), 0.7)))
    return curves


def _craze(site: Site, rng: Rng) -> list[Curve]:
    """A net of cracks between flakes, as old paint, glaze and screed have it."""
    s = site.scale
    mesh = s * rng.uniform(8, 20)
    reach = min(site.shape) * rng.uniform(0.1, 0.3)
    steps = int(np.clip(2 * reach / mesh, 2, 9))
    centre, heavy = site.spot(rng, 0.25), s * rng.uniform(0.4, 0.9)
    knots = (np.stack(np.meshgrid(np.arange(steps), np.arange(steps)), axis=-1) - (steps - 1) / 2) * mesh
    # Every second row is shifted, and the whole turned: flakes are no bricks.
    knots[1::2, :, 0] += 0.5 * mesh
    turn = rng.uniform(0, np.pi)
    knots = knots @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    knots = centre + knots + rng.uniform(-0.36, 0.36, knots.shape) * mesh
    curves = []
    for i in range(steps):
        for j in range(steps):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k >= steps or m >= steps or rng.random() < 0.22:
                    continue
                if np.hypot(*(knots[i, j] - centre)) > reach:
                    continue
                between = np.linspace(0, 1, 5)[:, None]
                path = knots[i, j] * (1 - between) + knots[k, m] * between
                path[1:-1] += rng.normal(0, 0.09, (3, 2)) * mesh
                points, _ = dense(path)
                jag = np.clip(1 + 0.4 * line_noise(rng, len(points), 6 * s), 0.3, 1.8)
                curves.append(Curve(points, heavy * jag * rng.uniform(0.5, 1.2), np.full(len(points), 0.9)))
    return curves or _branches(site, rng)


def _crack_lines(site: Site, rng: Rng) -> list[Curve]:
    star = {"glass": 0.6, "mineral": 0.15, "paint": 0.1, "polymer": 0.1}.get(site.traits.kind, 0.0)
    craze = {"paint": 0.45, "mineral": 0.2, "hide": 0.25, "polymer": 0.15}.get(site.traits.kind, 0.0)
    look = rng.random()
    if look < star:
        return _star(site, rng)
    return _craze(site, rng) if look < star + craze else _branches(site, rng)


def crack(site: Site, rng: Rng) -> Change:
    """A branching gap: dark, jagged, with one lit edge; in glass it mirrors light instead."""
    lines = _crack_lines(site, rng) if site.outline is None else lines_within(site, rng)
    whole, (site, curves, place) = site, along(site, lines, 8 * site.scale)
    line = groove(curves, site.shape)
    s, traits = site.scale, site.traits
    width = line.width * np.clip(1 + 0.3 * site.noise(rng, 1.8, 2), 0.4, 1.8)
    gap = smoothstep(0.55 * s, -0.45 * s, np.abs(line.side) - width) * line.depth
    facing = (line.normal[0] * site.light[0] + line.normal[1] * site.light[1]) * np.sign(line.side)
    edge = np.exp(-(((np.abs(line.side) - width - 0.7 * s) / (0.6 * s)) ** 2)) * line.depth
    faint = rng.random() < 0.3
    floor = np.float32(rng.uniform(0.35, 0.6) if faint else rng.uniform(0.1, 0.28)) + 0.04 * site.noise(rng, 2, 2)
    gain = (1 - gap * (1 - floor)) * (1 - 0.22 * edge * np.clip(facing, 0, 1))
    # The edge beyond the gap, seen from the lamp, is the one that catches the light.
    glint = (24 + 30 * traits.gloss) * edge * np.clip(-facing, 0, 1) * np.clip(0.8 + 0.4 * site.noise(rng, 3), 0, 1.5)
    add = tinted(np.asarray(glint, np.float32), (1, 0.97, 0.92))
    if traits.kind == "glass":
        mirror = gap * np.clip(0.45 + 0.6 * site.noise(rng, 12, 2), 0, 1)
        gain, add = gain * (1 - 0.6 * mirror), add + tinted(np.asarray(mirror * 0.8, np.float32), traits.bare)
    return placed(whole, place, Change(tinted(np.asarray(gain, np.float32)), add))
