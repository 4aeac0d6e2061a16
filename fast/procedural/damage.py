"""Defects that change the surface's shape: dents, creases and chips."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Field, Rng, blur, line_noise, smoothstep
from fast.procedural.shapes import Array, Curve, bezier, dense
from fast.procedural.site import Change, Site, along, around, lit, outlined, over, placed, step_down, tinted, traced


def dent(site: Site, rng: Rng) -> Change:
    """A hollow or a bump that only its shading tells; on hard ground with a scuff where it was hit."""
    traits, s = site.traits, site.scale
    side = min(site.shape)
    centre = site.spot(rng, 0.22)
    count = int(rng.integers(3, 8)) if rng.random() < 0.2 and site.outline is None else 1
    largest = np.log(max(side * (0.28 if count == 1 else 0.06), 4 * s))
    radii = np.exp(rng.uniform(np.log(3.5 * s), largest, count))
    radii = radii if site.outline is None else np.array([site.reach(0.0)])
    spread = 0.12 * side * (count > 1)
    whole, (site, centre, place) = site, around(site, centre, 2 * spread + 2.2 * radii.max() + 4 * s)
    height: Field = np.zeros(site.shape, np.float32)
    sign = -1.0 if rng.random() < 0.75 else 1.0
    scuff: Field = np.zeros(site.shape, np.float32)
    for i, radius in enumerate(radii.tolist()):
        at = centre if i == 0 else centre + np.clip(rng.normal(0, 1, 2), -2, 2) * spread
        far = outlined(site, rng, at, radius, 0.06 + 0.3 * traits.rough, rng.uniform(1, 2.4), rng.uniform(0, np.pi))
        far = far / np.float32(radius) + 0.06 * site.noise(rng, 0.7 * radius / s, 2)
        # From a flat bottom with a steep wall to a bowl (1): hard, thin sheets buckle so.
        steep = rng.uniform(0.5, 1.0)
        bowl = smoothstep(0.06, -steep, far)
        ridge = np.exp(-(((far - 0.12) / 0.14) ** 2)) * np.float32(rng.uniform(0, 0.16))
        # The outline's wobble would run to the middle as the folds of a fan.
        k = max(3, int(0.5 * radius))
        smooth = cv2.blur(cv2.blur(bowl, (k, k)), (k, k))
        deep = bowl + (smooth - bowl) * np.minimum(1.6 * bowl, 1)
        height += np.asarray(sign * radius * rng.uniform(0.3, 0.6) * steep * (deep - ridge), np.float32)
        scuff += np.asarray(bowl**3, np.float32)
    height = np.asarray(blur(height, 0.5 * s) + 0.05 * s * blur(scuff, 2 * s) * site.noise(rng, 5, 2), np.float32)
    change = lit(site, height, traits.gloss * rng.uniform(0.4, 1.0))
    change.solid = True
    # A hollow sees less of the sky, a bump a little more.
    sky = np.float32(-0.16 if sign < 0 else 0.08) * np.clip(scuff, 0, 1)
    change.gain = change.gain * (1 + sky)[..., None]
    if traits.hard > 0.5 and rng.random() < 0.45:
        marks = np.clip(scuff, 0, 1) * smoothstep(0.7, 1.3, site.noise(rng, 4, 3)) * np.float32(rng.uniform(0.2, 0.7))
        change = over(change, Change(tinted(1 - marks), tinted(marks * np.float32(0.9), traits.bare)))
    return placed(whole, place, change)


def crease(site: Site, rng: Rng) -> Change:
    """A line fold with a light and a dark side, worn along its back; now and then a few that meet."""
    traits, s, side = site.traits, site.scale, float(min(site.shape))
    across_light = float(np.arctan2(site.light[1], site.light[0])) + np.pi / 2
    centre, length = site.spot(rng, 0.28), side * rng.uniform(0.2, 0.85)
    curves: list[Curve] = []
    count = int(rng.choice([1, 1, 1, 2, 3]))
    for i in range(count):
        # A fold that points at the lamp would have no sides to tell apart.
        heading = across_light + (rng.normal(0, 0.45) if i == 0 else rng.uniform(-1.1, 1.1))
        forward = np.array([np.cos(heading), np.sin(heading)])
        normal = np.array([-forward[1], forward[0]])
        part = length * (1.0 if i == 0 else rng.uniform(0.3, 0.7))
        bow = rng.normal(0, 0.06, 2) * part
        ends = centre + np.outer([-0.5, -0.17, 0.17, 0.5], forward * part) + np.outer([0, bow[0], bow[1], 0], normal)
        if i > 0:
            ends += forward * part * 0.5 * rng.choice([-1, 1])
        points, share = dense(bezier(ends))
        jitter = 0.5 * s * line_noise(rng, len(points), 16 * s)
        points = points + normal * jitter[:, None]
        deep = np.clip(np.minimum(share, 1 - share) * 5, 0, 1) ** 0.7
        curves.append(Curve(points, s * float(np.exp(rng.uniform(np.log(2), np.log(11)))) * (0.45 + 0.55 * deep), deep))
    whole, (site, curves, place) = site, along(site, curves, 36 * s)
    line = traced(site, curves)
    wide = np.maximum(line.width, 0.8)
    far = np.abs(line.side)
    sign = np.float32(1.0 if rng.random() < 0.6 else -1.0)
    # A sharp back with slopes that run out: the slope itself is lit, as a height field would blunt the back.
    slope = (
        -np.sign(line.side)
        * np.clip(1 - far / (2.2 * wide), 0, 1) ** 2
        * line.depth
        * sign
        * np.float32(rng.uniform(0.55, 1.0))
    )
    lean = slope * (line.normal[0] * np.float32(site.light[0]) + line.normal[1] * np.float32(site.light[1]))
    gain = np.clip(1 - 0.62 * lean, 0.3, 1.7)
    bright = np.clip(-lean - 0.2, 0, 1) * np.float32(75 * traits.gloss)
    made = Change(tinted(np.asarray(gain, np.float32)), tinted(np.asarray(bright, np.float32)))
    back = np.exp(-((far / (0.55 * s)) ** 2)) * line.depth
    if traits.kind in ("paper", "paint", "hide", "polymer", "wood") and rng.random() < 0.75:
        worn = np.clip(back * (0.7 + 0.5 * site.noise(rng, 3, 2)), 0, 0.9) * np.float32(rng.uniform(0.4, 0.95))
        made = over(made, Change(tinted(1 - worn), tinted(np.asarray(worn, np.float32), traits.bare)))
    else:
        made = over(made, Change(tinted(1 - 0.45 * back), np.zeros((*site.shape, 1), np.float32)))
    return placed(whole, place, made)


def _facets(site: Site, rng: Rng, centre: Array, radius: float, bowl: Field) -> Field:
    """Height in px of a broken face: flat planes that meet in edges, deepest in the middle."""
    h, w = site.shape
    count = int(rng.integers(4, 12))
    x = (np.arange(w, dtype=np.float32)[None, :] - np.float32(centre[0])) / np.float32(radius)
    y = (np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1])) / np.float32(radius)
    drift = 0.05 * site.noise(rng, 0.35 * radius / site.scale, 3)
    planes = []
    for turn in np.arange(count) * 2 * np.pi / count + rng.uniform(-0.5, 0.5, count):
        tilt = rng.uniform(0.25, 0.9)
        along_slope = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
        planes.append(tilt * (along_slope - np.float32(rng.uniform(0.5, 1.05))))
    floor = np.max(np.stack(planes), axis=0) + drift
    return np.asarray(radius * np.minimum(floor, 0) * bowl, np.float32)


def _shell(site: Site, rng: Rng, centre: Array, radius: float, bowl: Field) -> Field:
    """Height in px of a conchoidal face: a smooth bowl with ripples about the point of the blow."""
    h, w = site.shape
    turn = rng.uniform(0, 2 * np.pi)
    hit = centre + radius * rng.uniform(0.7, 1.1) * np.array([np.cos(turn), np.sin(turn)])
    x = np.arange(w, dtype=np.float32)[None, :] - np.float32(hit[0])
    y = np.arange(h, dtype=np.float32)[:, None] - np.float32(hit[1])
    reach = np.hypot(x, y) / np.float32(radius) + 0.05 * site.noise(rng, 0.8 * radius / site.scale, 2)
    reach = np.maximum(reach, 0)
    # Ripples crowd together far from the blow.
    ripples = np.sin(np.float32(rng.uniform(9, 15)) * reach**1.5)
    return np.asarray(-radius * (0.35 * bowl - 0.018 * bowl * ripples), np.float32)


def chip(site: Site, rng: Rng) -> Change:
    """A bit broken out: fresh fracture in the colour under the surface, facetted or, in glass, like a shell."""
    traits, s = site.traits, site.scale
    h, w = site.shape
    radius = float(np.exp(rng.uniform(np.log(2.2 * s), np.log(max(0.26 * min(h, w), 4 * s)))))
    radius, centre = site.reach(radius), site.spot(rng)
    if rng.random() < 0.3 and site.outline is None:
        axis, end = int(rng.integers(2)), int(rng.integers(2))
        centre[axis] = end * [w, h][axis] + (1 - 2 * end) * radius * rng.uniform(-0.2, 0.5)
    whole, (site, centre, place) = site, around(site, centre, 2.3 * radius + 4 * s)
    rough = 0.12 + 0.5 * traits.rough
    far = outlined(site, rng, centre, radius, rough, rng.uniform(1, 1.9), rng.uniform(0, np.pi))
    # The wall is smooth; only where it meets the surface is it ragged.
    bowl, wall = smoothstep(0.0, -0.55 * radius, far), smoothstep(0.0, -0.25 * radius, far)
    far = far + (0.3 + traits.rough) * s * site.noise(rng, 2.5, 2)
    inside = smoothstep(0.5 * s, -0.5 * s, far)
    brittle = traits.kind == "glass" or (traits.kind in ("mineral", "paint") and traits.gloss > 0.5)
    flake = traits.kind in ("paint", "board") and rng.random() < 0.7
    if flake:
        # Only the top layer is gone: a flat floor under a sharp step.
        height = (0.05 * s * site.noise(rng, 2.5, 3)) * (1 - 0.5 * bowl)
    elif brittle and rng.random() < 0.7:
        height = _shell(site, rng, centre, radius, bowl)
    else:
        grit = (0.12 + 0.35 * traits.rough) * s * site.noise(rng, 3, 3)
        height = _facets(site, rng, centre, radius, wall) + grit
    face = lit(site, np.asarray(height, np.float32), 0.9 if brittle else 0.4 * traits.gloss)
    tone = rng.uniform(0.62, 1.0) * (1 + 0.05 * site.noise(rng, 8, 3)) * (1 - (0.1 if flake else 0.22) * bowl)
    # Glass, plastics and stone are of one colour throughout; other fracture takes only a little of the surface's.
    keep = np.float32(
        rng.uniform(0.35, 0.6) if traits.kind in ("glass", "polymer", "mineral") else rng.uniform(0.08, 0.3)
    )
    body = tone[..., None] * np.asarray(traits.bare, np.float32) * (1 - keep) + keep * site.picture
    if traits.kind in ("wood", "mineral"):
        # Fibres and crystals run on below the surface.
        body = body + np.float32(rng.uniform(0.6, 1.1)) * (site.picture - blur(site.picture, 3 * s))
    broken = np.clip(body * face.gain + face.add, 8, 255)
    # The step down is dark under the lamp and shines across from it.
    step = step_down(site, inside)
    shade = 1 - np.clip(-step, 0, 1) * np.float32(0.5) * inside
    edge = np.clip(step, 0, 1) * np.float32(25 + 45 * traits.gloss)
    outer = 1 - 0.25 * np.clip(-step, 0, 1) * (1 - inside)
    gain = (1 - inside) * outer
    add = inside[..., None] * broken * shade[..., None] + tinted(np.asarray(edge, np.float32))
    return placed(whole, place, Change(np.asarray(gain[..., None], np.float32), np.asarray(add, np.float32), True))
