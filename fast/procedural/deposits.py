"""Defects that lie on or in a surface: liquids, scorch marks, rust, foreign bodies, faded patches and blisters."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Field, Rng, blur, smoothstep
from fast.procedural.shapes import Array, Curve, bezier, contour, dense, groove
from fast.procedural.site import Change, Painter, Site, around, outlined, over, placed, relief, tinted
from fast.procedural.traits import Colour


def covered(alpha: Field, colour: Field | Colour) -> Change:
    """Cover with a colour in grey levels, (3,) or (h, w, 3), as far as alpha (h, w) in [0, 1] says."""
    cover = np.asarray(np.clip(alpha, 0, 1), np.float32)[..., None]
    return Change(1 - cover, np.asarray(cover * np.asarray(colour, np.float32), np.float32))


def extent(site: Site, rng: Rng, low: float, high: float) -> float:
    """A radius in px of the site, spread nearly evenly over its orders; `low` and `high` in px of a 256 px photo."""
    share = rng.random() ** 0.75
    return site.reach(min(site.scale * low * float((high / low) ** share), 0.28 * min(site.shape)))


def box(site: Site, centre: Array, half: tuple[float, float], angle: float) -> Field:
    """Signed distance in px (h, w) to a turned rectangle with sides 2 * half, negative inside."""
    h, w = site.shape
    x = np.arange(w, dtype=np.float32)[None, :] - np.float32(centre[0])
    y = np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = np.abs(x * c + y * s) - np.float32(half[0]), np.abs(y * c - x * s) - np.float32(half[1])
    return np.asarray(np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0), np.float32)


def blob(site: Site, rng: Rng, centre: Array, radius: float, ragged: float = 1.0) -> Field:
    """Signed distance in units of the radius to an outline as a spreading liquid leaves it."""
    far = outlined(site, rng, centre, radius, 0.2, rng.uniform(1, 1.6), rng.uniform(0, np.pi)) / np.float32(radius)
    unit = radius / site.scale
    # Near the middle the wobble would tear gaps that the mask then covers.
    edge = np.float32(0.13 * ragged) * smoothstep(-0.9, -0.3, far)
    fine = np.float32(0.045 * ragged)
    return far + edge * site.noise(rng, 0.9 * unit, 2) + fine * site.noise(rng, max(0.2 * unit, 3.0), 2)


# Absorption per channel: what a thick layer leaves of red, green and blue is exp(-value).
LIQUIDS: dict[str, list[Colour]] = {
    "metal": [(0.3, 0.62, 0.95), (0.6, 0.62, 0.6), (0.42, 0.46, 0.4), (0.45, 0.55, 0.62)],
    "wood": [(0.55, 0.75, 0.95), (0.85, 0.8, 0.7), (0.45, 0.8, 0.75), (0.9, 0.75, 0.4)],
    "hide": [(0.75, 0.8, 0.85), (0.55, 0.6, 0.6), (0.95, 0.8, 0.55)],
    "cloth": [(0.4, 0.7, 1.05), (0.75, 0.75, 0.75), (0.35, 0.85, 0.8), (0.95, 0.7, 0.35), (0.7, 0.45, 0.8)],
    "mineral": [(0.4, 0.68, 1.0), (0.65, 0.65, 0.65), (0.5, 0.6, 0.75), (0.3, 0.7, 0.6)],
    "polymer": [(0.45, 0.6, 0.85), (0.7, 0.7, 0.68), (0.8, 0.6, 0.4), (0.35, 0.8, 0.75)],
    "paint": [(0.45, 0.6, 0.8), (0.65, 0.66, 0.66), (0.35, 0.6, 0.95)],
    "glass": [(0.4, 0.48, 0.6), (0.5, 0.5, 0.48), (0.6, 0.55, 0.4)],
    "board": [(0.35, 0.55, 0.9), (0.6, 0.62, 0.66), (0.5, 0.7, 0.75)],
    "paper": [(0.35, 0.6, 0.95), (0.6, 0.62, 0.66), (0.9, 0.7, 0.35), (0.3, 0.8, 0.75)],
}


def _pool(site: Site, rng: Rng, centre: Array, radius: float, drops: int, ragged: float) -> Field:
    """`blob` with up to `drops` droplets beside it."""
    far = blob(site, rng, centre, radius, ragged)
    for _ in range(int(rng.integers(0, drops + 1))):
        theta, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.1, 1.7)
        spot = centre + reach * np.array([np.cos(theta), np.sin(theta)])
        small = max(radius * rng.uniform(0.06, 0.2), 1.6 * site.scale)
        near = contour(rng, site.shape, spot, small, 0.12, rng.uniform(1, 1.4), theta)
        far = np.minimum(far, near / np.float32(radius))
    return far


def stain(site: Site, rng: Rng) -> Change:
    """A dried liquid: translucent, uneven, darker along its edge; it creeps where the material soaks."""
    soaks, s = site.traits.soaks, site.scale
    centre, radius = site.spot(rng, 0.2), extent(site, rng, 5, 60)
    cut, middle, place = around(site, centre, 2.1 * radius + 4 * s)
    far = _pool(cut, rng, middle, radius, 4, 0.8 + 0.7 * soaks)
    crisp = rng.uniform(0.04, 0.1) + rng.uniform(0.0, 0.2) * soaks + 0.8 * s / radius
    cover = smoothstep(crisp / 2, -crisp, far)
    ring = (
        np.exp(-(((far + 0.8 * crisp) / (0.06 + 0.8 * s / radius)) ** 2)) * rng.uniform(0.25, 0.8) * (1 - 0.5 * soaks)
    )
    uneven = np.clip(1 + 0.22 * cut.noise(rng, max(0.5 * radius / s, 4), 3), 0.45, 1.6)
    layer = cover * (uneven * (0.75 + 0.25 * smoothstep(-0.9, 0.1, far)) + ring)
    strength = rng.uniform(0.6, 1.05)
    if site.dark and rng.random() < 0.7:
        # On a dark ground a stain that shows is a pale, dried-out one.
        veil = np.clip(layer * np.float32(0.34 * strength), 0, 0.7)
        change = Change(tinted(1 - veil), tinted(veil, (206, 200, 188)), True)
    else:
        liquids = LIQUIDS[site.traits.kind]
        absorb = np.asarray(liquids[rng.integers(len(liquids))], np.float32) * np.float32(strength)
        change = Change(np.exp(-layer[..., None] * absorb), np.zeros((*cut.shape, 1), np.float32), True)
    return placed(site, place, change)


def oil(site: Site, rng: Rng) -> Change:
    """A film with glints and colours of thin layers on hard ground; a dark, blurred patch where it soaks in."""
    s, traits = site.scale, site.traits
    centre, radius = site.spot(rng, 0.2), extent(site, rng, 5, 58)
    cut, middle, place = around(site, centre, 2.1 * radius + 4 * s)
    far = _pool(cut, rng, middle, radius, 3, 0.8)
    thick = 1 + 0.15 * cut.noise(rng, max(0.7 * radius / s, 4), 3)
    if traits.soaks > 0.45 or traits.gloss < 0.2:
        soft = rng.uniform(0.12, 0.4)
        cover = smoothstep(0.5 * soft, -soft, far) * np.clip(thick, 0.6, 1.3)
        absorb = np.array([0.62, 0.7, 0.84], np.float32) * np.float32(rng.uniform(0.7, 1.3))
        wet = Change(np.exp(-cover[..., None] * absorb), np.zeros((*cut.shape, 1), np.float32), True)
        if site.dark:
            # Black cannot be wetted darker; there the film shines.
            wet = covered(0.3 * cover, (150, 145, 132))
            wet.solid = True
        return placed(site, place, wet)
    crisp = 1.6 * s / radius + 0.02
    cover = smoothstep(0.0, -crisp, far)
    depth = np.maximum(-far, 0)
    body = np.float32(rng.uniform(0.35, 0.85)) * cover * (0.7 + 0.3 * smoothstep(0, -0.4, far)) * thick
    gain = np.exp(-body[..., None] * np.array([0.8, 0.88, 1.12], np.float32))
    # Bands follow the thickness: close together at the rim, washed out in the middle.
    order = 2.4 * depth**0.75 + 0.3 * thick + rng.uniform()
    bands = np.cos(2 * np.pi * order[..., None] * np.array([1.0, 1.19, 1.42], np.float32))
    hint = rng.uniform(5, 30) * traits.gloss * min(radius / (16 * s), 1.0) * cover * smoothstep(-0.9, -0.15, far)
    height = 0.5 * s * (smoothstep(0, -5 * s / radius, far) * 4 + 0.7 * thick * cover)
    facing = blur(relief(cut, height), 0.5 * s)
    broken = np.clip(0.7 + 0.5 * cut.noise(rng, 5, 2), 0, 1.3)
    glint = (70 + 120 * traits.gloss) * smoothstep(0.12, 0.6, facing) * broken * cover
    sheen = (34.0 if site.dark else 6.0) * traits.gloss * cover
    gain = gain * (1 - 0.35 * np.clip(-facing, 0, 1) * cover)[..., None]
    add = hint[..., None] * bands + tinted(np.asarray(glint + sheen, np.float32), (1.0, 1.0, 0.97))
    return placed(site, place, Change(np.asarray(gain, np.float32), np.asarray(add, np.float32), True))


# What steel keeps of red, green and blue at rising heat: straw, bronze, purple, blue, pale blue, grey scale.
TEMPER = np.array(
    [
        (1, 1, 1), (0.95, 0.84, 0.58), (0.82, 0.58, 0.3), (0.56, 0.36, 0.46), (0.34, 0.42, 0.76),
        (0.55, 0.68, 0.76), (0.6, 0.58, 0.55), (0.36, 0.33, 0.31),
    ],
    np.float32,
)  # fmt: skip
TEMPER_AT = np.array([0, 0.14, 0.28, 0.42, 0.56, 0.72, 0.86, 1.0])


def burn(site: Site, rng: Rng) -> Change:
    """A scorch mark: brown fringe, black char, sometimes ash; temper colours on bare metal."""
    s, traits = site.scale, site.traits
    centre, radius = site.spot(rng, 0.2), extent(site, rng, 5, 44)
    cut, middle, place = around(site, centre, 2.4 * radius + 6 * s)
    unit = max(radius / s, 3)
    far = outlined(cut, rng, middle, radius, 0.16, rng.uniform(1, 1.9), rng.uniform(0, np.pi)) / np.float32(radius)
    clouds, fine = cut.noise(rng, 0.5 * unit + 2, 3), cut.noise(rng, 2.0, 2)
    heat = rng.uniform(0.35, 1.0)
    if traits.kind == "metal" and not site.dark and rng.random() < 0.7:
        warm = np.clip((0.45 - far - 0.05 * clouds) / 1.4, 0, 1) * np.float32(0.45 + 0.55 * heat)
        gain = np.stack([np.interp(warm, TEMPER_AT, TEMPER[:, i]) for i in range(3)], axis=-1)
        gain = gain * (1 + 0.03 * fine * smoothstep(0.1, 0.3, warm))[..., None]
        return placed(site, place, Change(gain.astype(np.float32), np.zeros((*cut.shape, 1), np.float32), True))
    ragged = far + 0.1 * clouds + 0.03 * fine
    # Hard ground only takes soot, soft ground browns far around the char.
    fringe = 0.55 - 0.25 * traits.hard
    brown = np.clip((fringe - ragged) / (fringe + 0.7), 0, 1) ** 0.8 * np.float32(0.8 + 0.7 * heat)
    absorb = np.array([0.42, 0.85, 1.35], np.float32) if traits.hard < 0.75 else np.array([0.75, 0.9, 1.05], np.float32)
    change = Change(np.exp(-brown[..., None] * absorb), np.zeros((*cut.shape, 3), np.float32), True)
    char = smoothstep(-0.05, -0.5, ragged + (0.55 - 0.6 * heat)) * np.float32(0.94)
    soot = np.array([27, 24, 22], np.float32) + (5 * clouds + 6 * fine)[..., None]
    change = over(change, covered(char, np.maximum(soot, 4)))
    if heat > 0.6 or site.dark:
        flakes = smoothstep(0.1, 0.9, 0.8 * fine + 0.8 * clouds + rng.uniform(-0.2, 0.6))
        ash = smoothstep(-0.45, -0.8, ragged) * flakes * np.float32(rng.uniform(0.4, 0.85))
        change = over(change, covered(ash, np.array([164, 160, 154], np.float32) + (12 * fine)[..., None]))
    if site.dark:
        dust = smoothstep(0.2, -0.3, ragged) * (1 - char) * np.float32(0.42)
        change = over(change, covered(dust, (150, 122, 92)))
    return placed(site, place, change)


def rust(site: Site, rng: Rng) -> Change:
    """Speckled orange-brown corrosion in a patch, with a stained halo and now and then runs below it."""
    s = site.scale
    centre, radius = site.spot(rng, 0.2), extent(site, rng, 5, 46)
    cut, middle, place = around(site, centre, 2.0 * radius + 4 * s)
    far = blob(cut, rng, middle, radius, 1.4)
    unit = max(radius / s, 3)
    coarse, fine = cut.noise(rng, min(0.35 * unit, 12) + 1.5, 3), cut.noise(rng, 2.2, 2)
    dense_here = smoothstep(0.25, -0.9, far)
    if rng.random() < 0.4:
        # Water carries the stain down.
        reach = max(int(radius * rng.uniform(0.5, 1.1)), 3)
        comb = np.zeros((reach * 2 + 1, 1), np.float32)
        comb[reach:] = np.linspace(1, 0, reach + 1, dtype=np.float32)[:, None]
        source = dense_here * smoothstep(0.4, 1.4, coarse)
        run = cv2.filter2D(source, cv2.CV_32F, cv2.flip(comb / comb.sum(), -1), borderType=cv2.BORDER_CONSTANT)
        run = np.clip(3.2 * run, 0, 0.75)
    else:
        run = np.zeros(cut.shape, np.float32)
    scab = smoothstep(-0.1, 0.45, coarse + 0.35 * fine + 2.6 * dense_here - rng.uniform(1.1, 1.8)) * (far < 0.35)
    halo = np.maximum(blur(scab, rng.uniform(1.5, 4) * s) * np.float32(rng.uniform(0.5, 0.9)), run)
    wash = Change(
        np.exp(-halo[..., None] * np.array([0.28, 0.72, 1.15], np.float32)), tinted(14 * halo, (1, 0.5, 0.15))
    )
    mix = np.clip(0.42 + 0.32 * fine - 0.26 * coarse, 0, 1)[..., None]
    orange, brown = (np.asarray(c, np.float32) for c in ((166, 96, 52), (84, 48, 32)))
    colour = orange * mix + brown * (1 - mix)
    height = scab * (1 + 0.3 * fine) * 0.8 * s
    colour = colour * np.clip(1 + 0.7 * relief(cut, height), 0.4, 1.5)[..., None]
    return placed(site, place, over(wash, covered(scab * np.float32(rng.uniform(0.75, 0.95)), colour)))


def _lying(cut: Site, rng: Rng, alpha: Field, colour: Field | Colour, height: float) -> Change:
    """Something opaque on the surface, and the shadow it throws away from the lamp; `height` in px."""
    dx, dy = (-c * height for c in cut.light)
    moved = cv2.warpAffine(alpha, np.array([[1, 0, dx], [0, 1, dy]]), alpha.shape[::-1])
    shade = blur(np.asarray(moved, np.float32), max(0.35 * height, 0.6)) * np.float32(rng.uniform(0.4, 0.6))
    shadow = Change(tinted(1 - shade), np.zeros((*cut.shape, 1), np.float32))
    return over(shadow, covered(alpha, colour))


DUSTS: list[Colour] = [(36, 33, 30), (70, 58, 46), (226, 222, 214), (150, 140, 126), (120, 74, 44), (196, 176, 140)]
CHIPS: list[Colour] = [(205, 208, 212), (28, 28, 30), (30, 70, 150), (176, 38, 32), (232, 230, 224), (206, 160, 88)]
CHIPS += [(40, 120, 62)]
GLUES: list[Colour] = [(226, 206, 150), (236, 232, 222), (196, 150, 78), (150, 116, 66)]


def standing_out(site: Site, rng: Rng, colours: list[Colour]) -> Field:
    """One of the colours that stands out from the picture (3,)."""
    ground = site.picture[::8, ::8].reshape(-1, 3).mean(0)
    clear = [c for c in colours if np.abs(np.asarray(c) - ground).max() > 55] or colours
    return np.asarray(clear[rng.integers(len(clear))], np.float32) * np.float32(rng.uniform(0.88, 1.08))


def _polygon(site: Site, rng: Rng, centre: Array, radius: float, stretch: float) -> Field:
    """Coverage (h, w) in [0, 1] of an angular flake."""
    corners = int(rng.integers(4, 8))
    theta = np.sort(rng.uniform(0, 2 * np.pi, corners) * 0.3 + np.linspace(0, 2 * np.pi, corners, False))
    reach = radius * rng.uniform(0.65, 1.15, corners)
    points = np.stack([np.cos(theta) * reach * stretch, np.sin(theta) * reach / stretch], axis=1)
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + centre
    mask = np.zeros(site.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / np.float32(255)


def _grit(site: Site, rng: Rng) -> Change:
    """A few grains close together, of one stuff."""
    s, centre, spread = site.scale, site.spot(rng), extent(site, rng, 3, 26)
    count = int(rng.integers(1, 4 + int(spread / s)))
    cut, middle, place = around(site, centre, 2.6 * spread + 8 * s)
    alpha = np.zeros(cut.shape, np.float32)
    largest = rng.uniform(1.4, 4.5) * s
    for _ in range(count):
        at = middle + np.clip(rng.normal(0, 0.7, 2), -2, 2) * spread
        alpha = np.maximum(
            alpha, _polygon(cut, rng, at, max(largest * rng.beta(1.5, 3), 1.0 * s), rng.uniform(1, 1.25))
        )
    colour = standing_out(site, rng, DUSTS)
    lit = np.clip(1 + 0.9 * relief(cut, 1.6 * s * blur(alpha, 0.8 * s)) + 0.14 * cut.noise(rng, 1.6, 2), 0.35, 1.6)
    return placed(site, place, _lying(cut, rng, alpha, colour * lit[..., None], 0.5 * largest))


def _chip(site: Site, rng: Rng) -> Change:
    """A flake of swarf, plastic or paint."""
    s, centre, radius = site.scale, site.spot(rng), extent(site, rng, 3, 18)
    cut, middle, place = around(site, centre, 3 * radius + 10 * s)
    alpha = _polygon(cut, rng, middle, radius, rng.uniform(1, 1.7))
    height = min(0.3 * radius, 3.0 * s)
    tilt = rng.normal(0, 1, 2)
    h, w = cut.shape
    slope = (np.arange(w)[None, :] - middle[0]) * tilt[0] + (np.arange(h)[:, None] - middle[1]) * tilt[1]
    shine = np.clip(1 + 0.16 * slope / radius + 0.05 * cut.noise(rng, 3, 2), 0.55, 1.5)
    shine = shine + 0.5 * relief(cut, 1.4 * s * blur(alpha, 0.6 * s))
    colour = standing_out(site, rng, CHIPS) * np.clip(shine, 0.3, 1.7).astype(np.float32)[..., None]
    change = _lying(cut, rng, alpha, colour, height)
    change.solid = True
    return placed(site, place, change)


def _lint(site: Site, rng: Rng) -> Change:
    """One to three curled fibres."""
    s, centre = site.scale, site.spot(rng)
    length = min(s * float(np.exp(rng.uniform(np.log(12), np.log(90)))), 0.5 * min(site.shape))
    cut, middle, place = around(site, centre, length + 8 * s)
    curves = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        heading = rng.uniform(0, 2 * np.pi)
        forward = np.array([np.cos(heading), np.sin(heading)])
        bends = rng.normal(0, 0.3, (4, 2)) * length * np.array([[0.15], [1], [1], [0.15]])
        ends = middle + rng.normal(0, 0.2, 2) * length + np.outer([-0.5, -0.2, 0.2, 0.5], forward * length) + bends
        points, along = dense(bezier(ends))
        curves.append(Curve(points, np.full(len(points), s * rng.uniform(0.45, 0.95)), 1 - 0.3 * along))
    line = groove(curves, cut.shape)
    alpha = smoothstep(0.7 * s, -0.1 * s, np.abs(line.side) - line.width) * line.depth
    facing = (line.normal[0] * cut.light[0] + line.normal[1] * cut.light[1]) * line.side / np.maximum(line.width, 0.5)
    threads: list[Colour] = [(232, 230, 226), (30, 30, 34), (40, 66, 140), (166, 36, 40), (120, 116, 112)]
    colour = standing_out(site, rng, threads) * np.clip(1 + 0.25 * facing, 0.6, 1.3)[..., None]
    return placed(site, place, _lying(cut, rng, np.asarray(alpha, np.float32), colour, 1.2 * s))


def _droplet(site: Site, rng: Rng) -> Change:
    """Clear drops standing on the surface: dark towards the lamp, bright across from it, each with a glint."""
    s, centre, largest = site.scale, site.spot(rng), extent(site, rng, 3, 16)
    cut, middle, place = around(site, centre, 4.5 * largest + 4 * s)
    gain: Field = np.ones((*cut.shape, 1), np.float32)
    add: Field = np.zeros((*cut.shape, 1), np.float32)
    for i in range(int(rng.choice([1, 1, 2, 4, 6]))):
        radius = largest if i == 0 else max(largest * rng.uniform(0.25, 0.8), 2 * s)
        at = middle if i == 0 else middle + rng.normal(0, 1.3, 2) * largest
        far = contour(rng, cut.shape, at, radius, 0.06, rng.uniform(1, 1.25), rng.uniform(0, np.pi)) / np.float32(
            radius
        )
        inside = smoothstep(0.5 * s / radius, -0.5 * s / radius, far)
        h, w = cut.shape
        toward = (np.arange(w)[None, :] - at[0]) * cut.light[0] + (np.arange(h)[:, None] - at[1]) * cut.light[1]
        toward = np.clip(toward / radius, -1.2, 1.2).astype(np.float32)
        rim = np.exp(-(((far + 0.06) / (0.07 + 0.5 * s / radius)) ** 2)) * inside
        body = 1 - inside * (0.2 + 0.32 * toward) - 0.4 * rim * np.clip(0.5 + toward, 0, 1)
        caustic = 62 * inside * smoothstep(-0.25, -0.85, toward) * smoothstep(-0.02, -0.3, far)
        spot = at + 0.45 * radius * np.asarray(cut.light)
        near = np.hypot(np.arange(w)[None, :] - spot[0], np.arange(h)[:, None] - spot[1])
        glint = 190 * smoothstep(0.24, 0.1, np.asarray(near / radius, np.float32)) * inside
        fall = smoothstep(0.25, 0, far) * (1 - inside) * np.clip(-toward, 0, 1) * np.float32(0.4)
        gain *= np.clip(body * (1 - fall), 0.1, 1.6).astype(np.float32)[..., None]
        add = add * (1 - inside[..., None]) + np.asarray(caustic + glint, np.float32)[..., None]
    return placed(site, place, Change(gain, add, True))


def _glue(site: Site, rng: Rng) -> Change:
    """A set blob of glue or resin: milky, domed, glossy."""
    s, centre, radius = site.scale, site.spot(rng), extent(site, rng, 4, 32)
    cut, middle, place = around(site, centre, 2.1 * radius + 6 * s)
    far = blob(cut, rng, middle, radius, 0.7)
    cover = smoothstep(0.4 * s / radius, -1.0 * s / radius, far)
    dome = np.sqrt(np.clip(-far, 0, 1)) * min(0.35 * radius, 9 * s) + 0.35 * s * cut.noise(rng, 0.4 * radius / s + 3, 2)
    facing = relief(cut, blur(dome * cover, 0.9 * s))
    alpha = cover * np.clip(rng.uniform(0.45, 0.8) + 0.18 * smoothstep(-0.5, 0, far), 0, 0.95)
    colour = standing_out(site, rng, GLUES) * np.clip(1 + 0.42 * facing, 0.5, 1.35)[..., None]
    change = _lying(cut, rng, np.asarray(alpha, np.float32), colour, min(0.16 * radius, 2.5 * s))
    glint = 120 * smoothstep(0.4, 0.75, facing) * cover * np.clip(0.6 + 0.5 * cut.noise(rng, 6, 2), 0, 1.2)
    change.add = change.add + np.asarray(glint, np.float32)[..., None]
    change.solid = True
    return placed(site, place, change)


def contamination(site: Site, rng: Rng) -> Change:
    """Foreign matter: grit, a chip, lint, drops or glue."""
    kinds = [_grit, _chip, _lint, _glue]
    if site.traits.soaks < 0.5:
        kinds.append(_droplet)
    return kinds[rng.integers(len(kinds))](site, rng)


# What ageing, light and solvents leave of red, green and blue.
TINTS: list[Colour] = [(0.98, 0.88, 0.62), (0.92, 0.72, 0.5), (1.08, 0.78, 0.76), (0.7, 0.84, 0.98), (0.78, 0.92, 0.72)]


def fade(site: Site, rng: Rng) -> Change:
    """A discoloured patch: bleached, darkened or of another hue; blurred, or sharp where something had covered it."""
    s, radius = site.scale, extent(site, rng, 6, 66)
    centre = site.spot(rng, 0.2)
    cut, middle, place = around(site, centre, 2.2 * radius + 8 * s)
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.2)
    if rng.random() < 0.35 and site.outline is None:
        far = box(cut, middle, (radius, radius * rng.uniform(0.25, 0.9)), angle) / np.float32(radius)
        soft = rng.uniform(0.5, 2.0) * s / radius
    else:
        far = outlined(cut, rng, middle, radius, 0.18, rng.uniform(1, 2.2), angle) / np.float32(radius)
        far = far + 0.12 * cut.noise(rng, 0.8 * radius / s + 2, 3)
        soft = rng.uniform(0.08, 0.55) + s / radius
    cover = smoothstep(0.35 * soft, -0.65 * soft, far)
    cover = cover * np.clip(1 + 0.1 * cut.noise(rng, 0.6 * radius / s + 3, 3), 0.5, 1.3)
    mean = cut.picture.reshape(-1, 3).mean(0)
    level, amount = float(mean.mean()), float(rng.uniform(26, 62))
    mode = rng.integers(3)
    if mode == 0 or level < 60:
        # Sun and solvents take the colour along with the depth.
        target = 0.5 * mean + 0.5 * level + 2.2 * amount
        change = covered(cover * np.float32(0.45), np.minimum(target, 250).astype(np.float32))
    elif mode == 1:
        absorb = -np.log(max(1 - amount / max(level, 1), 0.35)) * rng.normal(1, 0.12, 3)
        change = Change(np.exp(-cover[..., None] * absorb.astype(np.float32)), np.zeros((*cut.shape, 1), np.float32))
    else:
        tint = np.asarray(TINTS[rng.integers(len(TINTS))]) + rng.normal(0, 0.03, 3)
        gain = tint - 1
        gain = gain * max(0.7, 0.75 * amount / max(float(np.abs(gain * mean).max()), 1.0))
        gain = np.clip(gain, -0.7, 0.4)
        change = Change(1 + cover[..., None] * gain.astype(np.float32), np.zeros((*cut.shape, 1), np.float32))
    change.solid = True
    return placed(site, place, change)


def _blister(cut: Site, rng: Rng, at: Array, radius: float) -> Change:
    """One raised dome; in glass and clear film a hollow one with a dark rim."""
    s, traits = cut.scale, cut.traits
    far = outlined(cut, rng, at, radius, 0.05, rng.uniform(1, 1.3), rng.uniform(0, np.pi)) / np.float32(radius)
    inside = smoothstep(0.6 * s / radius, -0.6 * s / radius, far)
    h, w = cut.shape
    toward = (np.arange(w)[None, :] - at[0]) * cut.light[0] + (np.arange(h)[:, None] - at[1]) * cut.light[1]
    toward = np.asarray(np.clip(toward / radius, -1.3, 1.3), np.float32)
    spot = at + 0.42 * radius * np.asarray(cut.light)
    near = np.hypot(np.arange(w)[None, :] - spot[0], np.arange(h)[:, None] - spot[1]) / radius
    glint = smoothstep(0.3, 0.05, np.asarray(near, np.float32)) * inside * (60 + 120 * traits.gloss)
    thin = 0.05 + 0.9 * s / radius
    if traits.kind == "glass":
        rim = np.exp(-(((far + 0.6 * thin) / thin) ** 2))
        ring = np.exp(-(((far + 2.4 * thin) / (1.1 * thin)) ** 2)) * inside
        gain = 1 - 0.6 * rim * np.clip(0.75 + 0.4 * toward, 0.35, 1) - 0.12 * inside * toward - 0.06 * inside
        add = 75 * ring * np.clip(0.25 - 0.9 * toward, 0, 1) + glint
    else:
        # A dome is level at its top and steepest where it meets the surface again.
        steep = inside * smoothstep(-1.0, -0.1, far) * (1 - 0.25 * smoothstep(-0.25, 0, far))
        rim = np.exp(-((far / (0.6 * thin)) ** 2)) * np.clip(0.55 - 0.4 * toward, 0.3, 1)
        fall = smoothstep(0.3, 0, far) * (1 - inside) * np.clip(-toward, 0, 1)
        gain = (1 + 0.1 * inside + 0.42 * steep * toward) * (1 - 0.4 * rim) * (1 - 0.45 * fall)
        add = 9 * inside + 24 * steep * np.clip(toward, 0, 1) + glint
    return Change(tinted(np.clip(gain, 0.1, 1.5)), tinted(np.asarray(add, np.float32)), True)


def bubble(site: Site, rng: Rng) -> Change:
    """Blisters under paint, film or glass: one, or a crowd of unequal ones."""
    s, centre, largest = site.scale, site.spot(rng, 0.2), extent(site, rng, 3.5, 30)
    single = rng.random() < 0.4 or largest > 18 * s or site.outline is not None
    count = 1 if single else int(rng.integers(2, 10))
    spread = largest * (1 + 0.5 * np.sqrt(count))
    cut, middle, place = around(site, centre, 1.6 * largest + (2.2 * spread if count > 1 else 0) + 4 * s)
    whole = Change(np.ones((*cut.shape, 3), np.float32), np.zeros((*cut.shape, 3), np.float32), True)
    for i in range(count):
        radius = largest if i == 0 else max(largest * rng.uniform(0.3, 0.85), 2.2 * s)
        at = middle if i == 0 else middle + np.clip(rng.normal(0, 0.9, 2), -2, 2) * spread
        part, inner, where = around(cut, at, 1.7 * radius + 3 * s)
        if min(inner) < -radius or inner[0] > part.shape[1] + radius or inner[1] > part.shape[0] + radius:
            continue
        one = _blister(part, rng, inner, radius)
        whole.gain[where], whole.add[where] = whole.gain[where] * one.gain, whole.add[where] * one.gain + one.add
    return placed(site, place, whole)


DEPOSITS: dict[str, Painter] = {
    "stain": stain,
    "oil": oil,
    "burn": burn,
    "rust": rust,
    "contamination": contamination,
    "fade": fade,
    "bubble": bubble,
}
