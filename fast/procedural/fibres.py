"""Defects of soft materials: loose threads, frayed patches and tears."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Field, Rng, blur, line_noise, smoothstep
from fast.procedural.shapes import Array, Curve, bezier, dense, groove, jagged_walk
from fast.procedural.site import Change, Site, along, over, placed, tinted


def _colour(site: Site, rng: Rng, at: Array) -> Field:
    """Colour (3,) of fibres pulled out near a point: the surface's own there, or what lies under it."""
    h, w = site.shape
    reach = int(12 * site.scale)
    x, y = (int(np.clip(at[i], 0, (w, h)[i] - 1)) for i in (0, 1))
    local = site.picture[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach].reshape(-1, 3)
    own = np.percentile(local, 85, axis=0)
    mix = rng.uniform(0.0, 0.35) if site.traits.kind == "cloth" else rng.uniform(0.45, 0.95)
    return np.asarray(np.clip((own * (1 - mix) + np.asarray(site.traits.bare) * mix) * 1.08, 35, 245), np.float32)


def _shadow(site: Site, cover: Field, far: float, soft: float) -> Field:
    """What a cover (h, w) of [0, 1] shades when it lies `far` px above the surface."""
    h, w = site.shape
    move = np.array([[1, 0, -far * site.light[0]], [0, 1, -far * site.light[1]]], np.float32)
    return blur(np.asarray(cv2.warpAffine(cover, move, (w, h)), np.float32), soft)


def _strands(site: Site, rng: Rng, curves: list[tuple[Array, int]], colour: Field) -> Change:
    """Thin fibres, each a polyline (k, 2) and a thickness in px, the last on top, with the shadow they cast."""
    cover, tone = np.zeros(site.shape, np.uint8), np.zeros(site.shape, np.uint8)
    for points, thick in curves:
        line = [np.rint(points * 16).astype(np.int32).reshape(-1, 1, 2)]
        cv2.polylines(cover, line, False, int(rng.integers(190, 256)), thick, cv2.LINE_AA, 4)
        cv2.polylines(tone, line, False, int(rng.integers(120, 256)), thick, cv2.LINE_8, 4)
    alpha = cover.astype(np.float32) / 255
    bright = np.clip(tone.astype(np.float32) / 200, 0.45, 1.3)
    shade = _shadow(site, alpha, 1.4 * site.scale, 0.6 * site.scale) * np.float32(0.55)
    gain = (1 - shade) * (1 - alpha)
    return Change(tinted(np.asarray(gain, np.float32)), (alpha * bright)[..., None] * colour)


def _hair(rng: Rng, root: Array, heading: float, length: float, curl: float) -> Array:
    turns = heading + curl * np.cumsum(rng.normal(0, 0.5, 9)) + curl * rng.normal(0, 0.6) * np.linspace(0, 2, 9)
    hops = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / 9
    return np.concatenate([root[None], root + np.cumsum(hops, axis=0)])


def fray(site: Site, rng: Rng) -> Change:
    """Broken threads and rough fibres that stick out of a worn patch or along a worn line."""
    traits, s, side = site.traits, site.scale, float(min(site.shape))
    centre, heading = site.spot(rng, 0.22), rng.uniform(0, 2 * np.pi)
    if traits.kind == "wood" and site.grained:
        heading = site.grain
    length = side * float(np.exp(rng.uniform(np.log(0.04), np.log(0.45))))
    forward = np.array([np.cos(heading), np.sin(heading)])
    normal = np.array([-forward[1], forward[0]])
    bow = rng.normal(0, 0.12, 2) * length
    ends = centre + np.outer([-0.5, -0.17, 0.17, 0.5], forward * length) + np.outer([0, bow[0], bow[1], 0], normal)
    points, part = dense(bezier(ends))
    ends_in = np.clip(np.minimum(part, 1 - part) * 5, 0.15, 1)
    wide = (
        s
        * float(np.exp(rng.uniform(np.log(2), np.log(16))))
        * ends_in
        * np.clip(1 + 0.4 * line_noise(rng, len(points), 12 * s), 0.3, 1.8)
    )
    curve = Curve(points, wide, np.ones(len(points)))
    whole, (site, (curve,), place) = site, along(site, [curve], 38 * s)
    line, points, centre = groove([curve], site.shape), curve.points, curve.points[len(points) // 2]
    far = np.abs(line.side) / np.maximum(line.width, 0.5) + 0.2 * site.noise(rng, 4, 3)
    worn = smoothstep(1.1, 0.7, far)
    fuzz = site.noise(rng, 3, 3)
    colour = _colour(site, rng, centre)
    # Where the threads are gone, their bed is seen: darker, rough, with the colour of the broken ends.
    bed = np.float32(rng.uniform(0.5, 0.8)) + 0.1 * fuzz
    lint = worn * np.clip(0.12 + 0.12 * fuzz, 0, 0.5)
    below = Change(tinted(1 - worn * (1 - bed)), np.zeros((*site.shape, 1), np.float32))
    below = over(below, Change(tinted(1 - lint), lint[..., None] * colour))
    curl = {"wood": 0.12, "paper": 0.25, "hide": 0.3}.get(traits.kind, 0.5)
    curves = []
    count = int(np.clip(length / s * rng.uniform(0.4, 1.1) * (1 + 0.1 * wide.max() / s), 9, 140))
    for k in rng.integers(0, len(points), count):
        aside = rng.uniform(-1, 1) * wide[k]
        splinter = traits.kind == "wood"
        lean = heading + (rng.normal(0, 0.2) if splinter else np.sign(aside) * rng.normal(1.2, 0.6))
        reach = s * float(np.exp(rng.uniform(np.log(4), np.log(18)))) * (1.6 if splinter else 1.0)
        thick = max(1, round(s * rng.uniform(0.2, 0.75 if traits.kind == "cloth" else 0.5)))
        curves.append((_hair(rng, points[k] + normal * aside, float(lean), reach, curl), thick))
    return placed(whole, place, over(below, _strands(site, rng, curves, colour)))


def thread(site: Site, rng: Rng) -> Change:
    """A thread lying on the surface in loops, or one pulled out of the weave, with the shadow it casts."""
    traits, s, side = site.traits, site.scale, float(min(site.shape))
    centre, length = site.spot(rng, 0.25), side * rng.uniform(0.15, 0.9)
    pulled = traits.kind == "cloth" and rng.random() < 0.4
    if pulled:
        heading = site.grain + (np.pi / 2 if rng.random() < 0.5 else 0.0) + rng.normal(0, 0.03)
        steps, bend = 14, 0.03
    else:
        heading, steps, bend = rng.uniform(0, 2 * np.pi), 22, rng.uniform(0.08, 0.5)
    # Curvature that drifts: a thread turns steadily and keeps some of its turn.
    turns = heading + bend * np.cumsum(line_noise(rng, steps, 4, 2))
    hops = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / steps
    path = np.cumsum(hops, axis=0)
    path = centre + path - path.mean(0)
    knots = np.linspace(0, 1, len(path))
    fine = np.linspace(0, 1, 8 * steps)
    smooth = np.stack([np.interp(fine, knots, path[:, i]) for i in (0, 1)], axis=1)
    kernel = np.hanning(17) / np.hanning(17).sum()
    smooth = np.stack([np.convolve(np.pad(smooth[:, i], 8, "edge"), kernel, "valid") for i in (0, 1)], axis=1)
    points, part = dense(smooth)
    heavy = s * rng.uniform(0.55, 1.7)
    uneven = np.clip(1 + 0.15 * line_noise(rng, len(points), 9 * s), 0.6, 1.4)
    curve = Curve(points, heavy * uneven, part)
    whole, (site, (curve,), place) = site, along(site, [curve], 14 * s)
    line, points, centre = groove([curve], site.shape), curve.points, curve.points[len(points) // 2]
    across = line.side / np.maximum(line.width, 0.4)
    edge = 0.5 * s / heavy
    cover = smoothstep(1 + edge, 1 - edge, np.abs(across))
    # The ends stop flat rather than round.
    facing = line.normal[0] * np.float32(site.light[0]) + line.normal[1] * np.float32(site.light[1])
    round_ = 0.82 + 0.3 * np.clip(across, -1, 1) * facing - 0.22 * across**2 * (np.abs(across) < 1.5)
    pitch = np.float32(len(points) * 0.7 / (heavy * rng.uniform(2.5, 4.0)))
    twist = np.sin(2 * np.pi * (line.depth * pitch) + 2.2 * np.clip(across, -1.2, 1.2))
    body = np.clip(round_ + np.float32(rng.uniform(0.06, 0.16)) * twist, 0.2, 1.25)
    own = _colour(site, rng, centre)
    if not pulled and rng.random() < 0.6:
        dyes = [(236, 232, 222), (28, 28, 32), (150, 32, 30), (34, 52, 112), (202, 170, 92), (90, 92, 94)]
        own = np.asarray(dyes[rng.integers(len(dyes))], np.float32)
    lift = s * (rng.uniform(0.5, 1.0) if pulled else rng.uniform(0.9, 3.2))
    shade = _shadow(site, cover, lift + 0.4 * heavy, 0.35 * lift + 0.4 * s) * np.float32(rng.uniform(0.45, 0.7))
    made = Change(tinted((1 - shade) * (1 - cover)), (cover * body)[..., None] * own)
    if not pulled:
        ends = [
            (_hair(rng, points[k], float(turns[j]) + flip + rng.normal(0, 0.5), s * rng.uniform(2, 7), 0.4), 1)
            for k, j, flip in ((0, 0, np.pi), (-1, -1, 0.0))
            for _ in range(int(rng.integers(1, 4)))
        ]
        made = over(made, _strands(site, rng, ends, own))
    return placed(whole, place, made)


def _rip(site: Site, rng: Rng) -> tuple[Array, Array]:
    """Points of a tear and the half-width of its gap: a slit, or a corner where it turned."""
    s, side = site.scale, float(min(site.shape))
    length = side * float(np.exp(rng.uniform(np.log(0.05), np.log(0.75))))
    heading = rng.uniform(0, 2 * np.pi)
    forward = np.array([np.cos(heading), np.sin(heading)])
    start = site.spot(rng, 0.3) - 0.5 * length * forward
    wander = 0.1 + 0.9 * site.traits.rough
    path = jagged_walk(rng, start, heading, length, 5 * s, wander)
    if rng.random() < 0.35:
        turn = heading + rng.choice([-1, 1]) * rng.uniform(1.0, 1.8)
        more = jagged_walk(rng, path[-1], turn, length * rng.uniform(0.3, 0.9), 5 * s, wander)
        path = np.concatenate([path, more[1:]])
    points, part = dense(path)
    gape = length * rng.uniform(0.02, 0.1) + 0.5 * s
    lens = (np.sin(np.pi * part) ** rng.uniform(0.6, 1.4)) * gape
    return points, np.maximum(lens, 0.35 * s)


def tear(site: Site, rng: Rng) -> Change:
    """A rip: a dark gap between lips that have moved apart, one of them curled up to the light."""
    traits, s = site.traits, site.scale
    points, half = _rip(site, rng)
    curve = Curve(points, half, np.ones(len(points)))
    whole, (site, (curve,), place) = site, along(site, [curve], 3 * float(half.max()) + 14 * s)
    line, points = groove([curve], site.shape), curve.points
    ragged = (0.25 + traits.rough) * s * site.noise(rng, 2.2, 3)
    far = np.abs(line.side) - line.width + ragged
    gap = smoothstep(0.5 * s, -0.5 * s, far)
    sign = np.where(line.side < 0, np.float32(-1), np.float32(1))
    # Lips carry their pattern away from the gap.
    moved = line.width * np.exp(-np.maximum(far, 0) / (0.6 * np.maximum(line.width, 1))) * np.float32(0.7)
    h, w = site.shape
    x = np.arange(w, dtype=np.float32)[None, :] - line.normal[0] * sign * moved
    y = np.arange(h, dtype=np.float32)[:, None] - line.normal[1] * sign * moved
    pushed = cv2.remap(site.picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    zone = smoothstep(0.35 * s, 0.9 * s, np.asarray(moved, np.float32))[..., None]
    slide = Change(np.ones((h, w, 1), np.float32), (pushed - site.picture) * zone)
    facing = (line.normal[0] * np.float32(site.light[0]) + line.normal[1] * np.float32(site.light[1])) * sign
    curl = np.exp(-np.maximum(far, 0) / (0.35 * line.width + 1.2 * s)) * (1 - gap)
    # The lip across from the lamp faces it; the near one turns away and shades the gap.
    gain = (1 + curl * np.clip(-0.42 * facing, -0.42, 0.3)).astype(np.float32)
    bright = curl * np.clip(-facing, 0, 1) * np.float32(10 + 45 * traits.gloss)
    lips = Change(tinted(gain), tinted(np.asarray(bright, np.float32)))
    made = over(slide, lips)
    if traits.kind in ("paper", "hide", "wood", "polymer", "paint", "board"):
        # Torn through its thickness, the stuff shows its inside along one lip.
        thick = np.maximum(line.width * rng.uniform(0.25, 0.7), 0.8 * s) * (1 + 0.35 * site.noise(rng, 4, 2))
        one_lip = np.where(sign == rng.choice([-1, 1]), np.float32(0.9), np.float32(0))
        raw = smoothstep(0.4 * s, -0.4 * s, np.abs(far) - thick) * one_lip
        tone = (0.9 + 0.08 * site.noise(rng, 2.5, 2)).astype(np.float32)
        made = over(made, Change(tinted(1 - raw), tinted(raw * tone, traits.bare)))
    floor = np.float32(rng.uniform(0.06, 0.2)) + 0.03 * site.noise(rng, 3, 2)
    floor = np.clip(floor * np.clip(0.6 - 0.6 * facing, 0.1, 1.2), 0.02, 0.4)
    made = over(made, Change(tinted(1 - gap * (1 - floor)), np.zeros((h, w, 1), np.float32)))
    if traits.kind in ("cloth", "hide", "paper"):
        curves = []
        colour = _colour(site, rng, points[len(points) // 2])
        loose = {"cloth": 0.5, "hide": 0.2, "paper": 0.25}[traits.kind]
        normal = np.gradient(points, axis=0)[:, ::-1] * np.array([-1, 1])
        normal /= np.maximum(np.hypot(*normal.T), 1e-6)[:, None]
        for k in rng.integers(0, len(points), int(np.clip(len(points) * loose / s * rng.uniform(0.3, 1), 3, 90))):
            lip = rng.choice([-1, 1])
            root = points[k] + normal[k] * lip * half[k] * 1.1
            inward = float(np.arctan2(*(-lip * normal[k])[::-1])) + rng.normal(0, 0.5)
            reach = half[k] * rng.uniform(0.4, 2.0) + s * rng.uniform(0.5, 2.5)
            thick_px = max(1, round(s * rng.uniform(0.2, 0.7 if traits.kind == "cloth" else 0.4)))
            curves.append((_hair(rng, root, inward, reach, 0.35), thick_px))
        made = over(made, _strands(site, rng, curves, colour))
    made.solid = True
    return placed(whole, place, made)
