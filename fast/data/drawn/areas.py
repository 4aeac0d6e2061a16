"""Defects that cover an area: holes and stains."""

from __future__ import annotations

import numpy as np

from fast.data.drawn.noise import Field, Rng, smoothstep
from fast.data.drawn.shapes import Array, Curve, bezier, contour, dense, groove
from fast.data.drawn.site import BARE, Change, Site, tinted
from fast.data.drawn.surfaces import REFERENCE


def _pit(site: Site, rng: Rng, centre: Array, radius: float) -> Change:
    material, s = site.material, site.scale
    rough = {"brushed_metal": 0.09, "leather": 0.2, "wood": 0.22, "fabric": 0.26, "stone_tile": 0.34}[material]
    stretch = rng.uniform(1.0, 1.35) if material != "wood" else rng.uniform(1.1, 1.9)
    angle = site.grain if site.grained else rng.uniform(0, np.pi)
    far = contour(rng, site.shape, centre, radius, rough, stretch, angle) + 0.35 * s * site.noise(rng, 1.8)
    h, w = site.shape
    x = (np.arange(w, dtype=np.float32)[None, :] - np.float32(centre[0])) / np.float32(radius)
    y = (np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1])) / np.float32(radius)
    toward = x * np.float32(site.light[0]) + y * np.float32(site.light[1])
    soft = {"brushed_metal": 0.5, "stone_tile": 0.9, "leather": 0.9}.get(material, 0.7) * s
    inside = smoothstep(soft, -soft, far)
    # The wall under the lamp lies in shadow, the far one catches light.
    thick = rng.uniform(0.3, 0.6)
    wall = smoothstep(-thick * radius, -0.25 * thick * radius, far)
    wear = site.noise(rng, 5.0, 3) * (0.4 if material == "brushed_metal" else 1.0)
    bottom = 0.12 + 0.14 * rng.random() + 0.03 * wear - 0.1 * np.clip(toward + 0.3, -0.6, 1)
    catch = wall * np.clip(-toward - 0.05, 0, 1.0) * np.clip(0.85 + 0.22 * wear, 0.2, 1.3)
    gain = 1 - inside * (1 - np.clip(bottom + 0.2 * catch, 0.05, 0.8))
    raw = inside * catch * rng.uniform(0.15, 0.42)
    lip = np.exp(-(((far - 1.0 * s) / (0.8 * s)) ** 2)) * np.clip(1 + 0.3 * site.noise(rng, 4), 0, 2)
    halo = np.exp(-np.maximum(far, 0) / (1.3 * s + 0.04 * radius)) * (1 - inside)
    bright = {"brushed_metal": 62, "leather": 30, "wood": 26, "fabric": 26, "stone_tile": 34}[material]
    lit = bright * lip * np.clip(0.15 + 0.85 * toward, 0, 1.3)
    gain = gain * (1 - 0.3 * halo * np.clip(0.6 - 0.6 * toward, 0, 1))
    add = tinted(np.asarray(lit, np.float32), (1.0, 0.98, 0.95)) + tinted(np.asarray(raw, np.float32), BARE[material])
    return Change(tinted(np.asarray(gain, np.float32)), add, True)


def _fray(site: Site, rng: Rng, centre: Array, radius: float) -> Change:
    """Loose yarn ends reaching over a hole in cloth."""
    curves = []
    for _ in range(int(rng.integers(5, 13))):
        theta = rng.uniform(0, 2 * np.pi)
        out = np.array([np.cos(theta), np.sin(theta)])
        turned = np.array([-out[1], out[0]]) * rng.normal(0, 0.3) * radius
        base = centre + out * radius * rng.uniform(0.95, 1.25)
        tip = centre + out * radius * rng.uniform(0.1, 0.75) + turned
        bend = rng.normal(0, 0.12, (2, 2)) * radius
        points, along = dense(bezier(np.stack([base, base * 0.6 + tip * 0.4 + bend[0], tip + bend[1], tip])))
        width = site.scale * rng.uniform(0.3, 0.6) * (1 - 0.6 * along)
        curves.append(Curve(points, width, 1 - 0.5 * along))
    line = groove(curves, site.shape)
    yarn = smoothstep(1.3, 0.7, np.abs(line.side) / np.maximum(line.width, 0.3)) * line.depth * np.float32(0.8)
    colour = site.picture.reshape(-1, 3).mean(0) * 1.15
    return Change(tinted(1 - yarn), yarn[..., None] * colour.astype(np.float32))


def hole(site: Site, rng: Rng) -> Change:
    """A pit or puncture, sometimes with smaller ones next to it."""
    s = site.scale
    radius = s * float(np.exp(rng.uniform(np.log(4.5), np.log(26)))) * min(1.0, min(site.shape) / (160 * s) + 0.35)
    centre = site.spot(rng)
    change = _pit(site, rng, centre, radius)
    more = int(rng.integers(1, 4)) if radius < 10 * s and rng.random() < 0.45 else 0
    for _ in range(more):
        theta, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(2.2, 4.5)
        other = _pit(
            site, rng, centre + reach * np.array([np.cos(theta), np.sin(theta)]), radius * rng.uniform(0.4, 0.8)
        )
        change = Change(change.gain * other.gain, change.add + other.add, True)
    if site.material == "fabric":
        yarn = _fray(site, rng, centre, radius)
        change = Change(change.gain * yarn.gain, change.add * yarn.gain + yarn.add, True)
    return change


# Absorption per channel: what a thick layer leaves of red, green and blue is exp(-value).
LIQUIDS = {
    "brushed_metal": [(0.3, 0.62, 0.95), (0.6, 0.62, 0.6), (0.42, 0.46, 0.4), (0.45, 0.55, 0.62)],
    "leather": [(0.75, 0.8, 0.85), (0.55, 0.6, 0.6), (0.95, 0.8, 0.55)],
    "wood": [(0.55, 0.75, 0.95), (0.85, 0.8, 0.7), (0.45, 0.8, 0.75)],
    "fabric": [(0.4, 0.7, 1.05), (0.75, 0.75, 0.75), (0.35, 0.85, 0.8)],
    "stone_tile": [(0.4, 0.68, 1.0), (0.65, 0.65, 0.65), (0.5, 0.6, 0.75)],
}


def _blob(site: Site, rng: Rng, centre: Array, radius: float) -> Field:
    """Signed distance in units of the radius to an outline as a spreading liquid leaves it."""
    far = contour(rng, site.shape, centre, radius, 0.2, rng.uniform(1, 1.6), rng.uniform(0, np.pi)) / np.float32(radius)
    unit = radius / site.scale
    # Near the middle the wobble would tear gaps that the mask then covers.
    edge = 0.13 * smoothstep(-0.9, -0.3, far)
    return far + edge * site.noise(rng, 0.9 * unit, 2) + 0.045 * site.noise(rng, max(0.2 * unit, 3.0), 4)


def stain(site: Site, rng: Rng) -> Change:
    """A dried liquid: translucent, uneven, darker along its edge, with a few droplets."""
    s, centre = site.scale, site.spot(rng, 0.22)
    radius = s * float(np.exp(rng.uniform(np.log(9), np.log(52)))) * min(1.0, min(site.shape) / (REFERENCE * s) + 0.2)
    far = _blob(site, rng, centre, radius)
    for _ in range(int(rng.integers(0, 5))):
        theta, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.1, 1.7)
        drop, small = centre + reach * np.array([np.cos(theta), np.sin(theta)]), radius * rng.uniform(0.06, 0.2)
        near = contour(rng, site.shape, drop, max(small, 1.6 * s), 0.12, rng.uniform(1, 1.4), theta) / np.float32(
            radius
        )
        far = np.minimum(far, near)
    crisp = rng.uniform(0.05, 0.16) + 0.9 * s / radius
    cover = smoothstep(crisp / 2, -crisp, far)
    ring = np.exp(-(((far + 0.8 * crisp) / (0.06 + 0.8 * s / radius)) ** 2)) * rng.uniform(0.25, 0.7)
    uneven = np.clip(1 + 0.22 * site.noise(rng, max(0.5 * radius / s, 4), 4), 0.45, 1.6)
    layer = cover * (uneven * (0.75 + 0.25 * smoothstep(-0.9, 0.1, far)) + ring)
    strength = rng.uniform(0.6, 1.05)
    if site.dark and rng.random() < 0.6:
        # On a dark ground a stain that shows is a pale, dried-out one.
        veil = np.clip(layer * np.float32(0.34 * strength), 0, 0.7)
        return Change(tinted(1 - veil), tinted(veil, (206, 200, 188)), True)
    liquid = LIQUIDS[site.material]
    absorb = np.asarray(liquid[rng.integers(len(liquid))], np.float32) * np.float32(strength)
    return Change(np.exp(-layer[..., None] * absorb), np.zeros((*site.shape, 1), np.float32), True)
