"""Defects that go into the surface: holes and pits."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Rng, smoothstep
from fast.procedural.shapes import Array, Curve, bezier, dense, groove
from fast.procedural.site import Change, Site, around, outlined, over, placed, tinted


def _puncture(site: Site, rng: Rng, centre: Array, radius: float) -> Change:
    traits, s = site.traits, site.scale
    stretch = rng.uniform(1.1, 1.9) if traits.kind == "wood" else rng.uniform(1.0, 1.35)
    angle = site.grain if site.grained else rng.uniform(0, np.pi)
    far = outlined(site, rng, centre, radius, traits.rough, stretch, angle) + 0.35 * s * site.noise(rng, 1.8, 2)
    h, w = site.shape
    x = (np.arange(w, dtype=np.float32)[None, :] - np.float32(centre[0])) / np.float32(radius)
    y = (np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1])) / np.float32(radius)
    toward = x * np.float32(site.light[0]) + y * np.float32(site.light[1])
    soft = (0.9 - 0.4 * traits.gloss) * s
    inside = smoothstep(soft, -soft, far)
    # The wall under the lamp lies in shadow, the far one catches light.
    thick = rng.uniform(0.3, 0.6)
    wall = smoothstep(-thick * radius, -0.25 * thick * radius, far)
    wear = site.noise(rng, 5.0, 3) * (1 - 0.6 * traits.gloss)
    bottom = 0.12 + 0.14 * rng.random() + 0.03 * wear - 0.1 * np.clip(toward + 0.3, -0.6, 1)
    catch = wall * np.clip(-toward - 0.05, 0, 1.0) * np.clip(0.85 + 0.22 * wear, 0.2, 1.3)
    gain = 1 - inside * (1 - np.clip(bottom + 0.2 * catch, 0.05, 0.8))
    raw = inside * catch * rng.uniform(0.15, 0.42)
    lip = np.exp(-(((far - 1.0 * s) / (0.8 * s)) ** 2)) * np.clip(1 + 0.3 * wear, 0, 2)
    halo = np.exp(-np.maximum(far, 0) / (1.3 * s + 0.04 * radius)) * (1 - inside)
    shine = (22 + 40 * traits.gloss) * lip * np.clip(0.15 + 0.85 * toward, 0, 1.3)
    gain = gain * (1 - 0.3 * halo * np.clip(0.6 - 0.6 * toward, 0, 1))
    add = tinted(np.asarray(shine, np.float32), (1.0, 0.98, 0.95)) + tinted(np.asarray(raw, np.float32), traits.bare)
    made = Change(tinted(np.asarray(gain, np.float32)), add, True)
    if traits.kind in ("paper", "board", "paint", "mineral", "glass", "polymer") and rng.random() < 0.6:
        # The surface layer breaks away around the hole and bares what is under it.
        reach = radius * rng.uniform(0.08, 0.5) * (1 + 0.5 * wear) * (1 if traits.kind != "polymer" else 0.5)
        ring = smoothstep(0.6 * s, -0.4 * s, far - np.maximum(reach, 0)) * (1 - inside)
        shade = np.float32(0.8) + 0.14 * np.clip(toward, -1, 1) + 0.07 * wear
        rim = Change(tinted(1 - 0.85 * ring), tinted(np.asarray(0.85 * ring * shade, np.float32), traits.bare))
        made = over(rim, made)
    return made


def _loose_ends(site: Site, rng: Rng, centre: Array, radius: float) -> Change:
    """Loose yarn ends reaching over a hole in cloth."""
    curves = []
    for _ in range(int(rng.integers(5, 13))):
        theta = rng.uniform(0, 2 * np.pi)
        out = np.array([np.cos(theta), np.sin(theta)])
        turned = np.array([-out[1], out[0]]) * rng.normal(0, 0.3) * radius
        base = centre + out * radius * rng.uniform(0.95, 1.25)
        tip = centre + out * radius * rng.uniform(0.1, 0.75) + turned
        bend = rng.normal(0, 0.12, (2, 2)) * radius
        points, share = dense(bezier(np.stack([base, base * 0.6 + tip * 0.4 + bend[0], tip + bend[1], tip])))
        width = site.scale * rng.uniform(0.3, 0.6) * (1 - 0.6 * share)
        curves.append(Curve(points, width, 1 - 0.5 * share))
    line = groove(curves, site.shape)
    yarn = smoothstep(1.3, 0.7, np.abs(line.side) / np.maximum(line.width, 0.3)) * line.depth * np.float32(0.8)
    colour = site.picture.reshape(-1, 3).mean(0) * 1.15
    return Change(tinted(1 - yarn), yarn[..., None] * colour.astype(np.float32))


def hole(site: Site, rng: Rng) -> Change:
    """A puncture that goes through, sometimes with smaller ones next to it."""
    s = site.scale
    radius = min(s * float(np.exp(rng.uniform(np.log(2), np.log(55)))), 0.24 * min(site.shape))
    radius, centre = site.reach(radius), site.spot(rng)
    whole, (site, centre, place) = site, around(site, centre, 2.6 * radius + 12 * s)
    change = _puncture(site, rng, centre, radius)
    if radius < 10 * s and rng.random() < 0.35 and site.outline is None:
        theta, reach = rng.uniform(0, 2 * np.pi), radius + s * rng.uniform(2.5, 9)
        beside = centre + reach * np.array([np.cos(theta), np.sin(theta)])
        change = over(change, _puncture(site, rng, beside, radius * rng.uniform(0.4, 0.7)))
    if site.traits.kind == "cloth":
        change = over(change, _loose_ends(site, rng, centre, radius))
    return placed(whole, place, change)


def pit(site: Site, rng: Rng) -> Change:
    """Small craters: one, or a cluster as porosity and corrosion leave them."""
    traits, s = site.traits, site.scale
    side, centre = min(site.shape), site.spot(rng)
    count = 1 if rng.random() < 0.25 or site.outline is not None else int(np.exp(rng.uniform(np.log(4), np.log(60))))
    spread = 0.0 if count == 1 else side * rng.uniform(0.04, 0.16)
    large = site.reach(s * float(np.exp(rng.uniform(np.log(1.0), np.log(6.5)))) * (1.3 if count == 1 else 1.0))
    whole, (site, centre, place) = site, around(site, centre, 2.2 * spread + 3 * large)
    h, w = site.shape
    at = centre + 2 * np.tanh(rng.normal(0, 0.55, (count, 2))) * spread * np.array([1, rng.uniform(0.4, 1)])
    x, y = np.clip(np.rint(at).astype(int), 0, [w - 1, h - 1]).T
    radius = large * np.maximum(rng.beta(1.2, 3, count), 0.22) if count > 1 else np.array([large])
    seeds = np.ones((h, w), np.uint8)
    seeds[y, x] = 0
    far, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    size, centre_x, centre_y = (np.zeros(int(labels.max()) + 1, np.float32) for _ in "rxy")
    size[labels[y, x]], centre_x[labels[y, x]], centre_y[labels[y, x]] = radius, x, y
    size = size[labels]
    if site.outline is not None:
        far = site.outline + size
    off_x = np.arange(w, dtype=np.float32)[None, :] - centre_x[labels]
    off_y = np.arange(h, dtype=np.float32)[:, None] - centre_y[labels]
    toward = (off_x * np.float32(site.light[0]) + off_y * np.float32(site.light[1])) / np.maximum(size, 1)
    ragged = (0.12 + 0.6 * traits.rough) * site.noise(rng, 0.6 * large / s, 3)
    depth = far / np.maximum(size, 0.5) - 1 + ragged
    soft = np.float32(0.8 * s) / np.maximum(size, 1)
    inside = np.clip(0.5 - depth / soft, 0, 1)
    # A bowl: dark below the lamp, paler where its far wall looks back at it.
    floor = rng.uniform(0.18, 0.42) * (1 - 0.45 * np.clip(toward, -1, 1) + 0.12 * ragged)
    gain = 1 - inside * (1 - np.clip(floor, 0.06, 0.85))
    raw = inside * np.clip(-toward - 0.25, 0, 1) * np.float32(rng.uniform(0.15, 0.6))
    rim = np.exp(-(((depth - soft) / soft) ** 2)) * np.clip(toward, 0, 1.2) * np.float32(14 + 40 * traits.gloss)
    add = tinted(np.asarray(raw, np.float32), traits.bare) + tinted(np.asarray(rim, np.float32))
    return placed(whole, place, Change(tinted(np.asarray(gain, np.float32)), add))
