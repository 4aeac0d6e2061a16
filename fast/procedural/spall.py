"""Surface fatigue: pitting that has grown together and flaked, as on raceways, gears, rails and concrete."""

from __future__ import annotations

import numpy as np

from fast.procedural.deposits import extent
from fast.procedural.noise import Field, Rng, blur, cells, smoothstep
from fast.procedural.shapes import Array, contour
from fast.procedural.site import Change, Site, around, lit, placed, step_down


def spall(site: Site, rng: Rng) -> Change:
    """A ragged hollow of many small breaks: a rough dark floor in the surface's own colour, with slits that reach out
    along the grain or the rolling, and flakes in it that still stand."""
    s, radius, centre = site.scale, extent(site, rng, 2.5, 56), site.spot(rng)
    cut, middle, place = around(site, centre, 2.4 * radius + 6 * s)
    far = _outline(cut, rng, middle, radius)
    inside = smoothstep(0.5 * s, -0.6 * s, far)
    deep = smoothstep(0, -0.5 * radius, far)
    unit = radius / s
    rough = cut.noise(rng, max(0.3 * unit, 3.0), 4) + 0.5 * cut.noise(rng, 3, 2)
    bowls, flakes = _pits(cut, rng, radius)
    height = (0.05 * radius * float(rng.uniform(0.6, 1.4)) + 0.35 * s) * rough - 0.25 * radius * deep - bowls
    face = lit(cut, np.asarray(height * inside, np.float32), float(rng.uniform(0.2, 0.7)) * cut.traits.gloss)
    tone = float(rng.uniform(0.42, 0.8)) * (1 - 0.35 * deep * float(rng.random())) * (1 + 0.14 * rough) * flakes
    ground = blur(cut.picture, 4 * s)
    floor = ground * (np.clip(tone, 0.12, 1.05)[..., None] * face.gain) + 0.5 * face.add
    step, gain = step_down(cut, inside), 1 - inside
    shade = 1 - 0.45 * np.clip(-step, 0, 1) * inside
    glint = np.clip(step, 0, 1) * inside * np.float32(10 + 25 * cut.traits.gloss)
    add = inside[..., None] * np.clip(floor * shade[..., None], 4, 252) + glint[..., None]
    return placed(site, place, Change(np.asarray(gain[..., None], np.float32), np.asarray(add, np.float32), True))


def _outline(site: Site, rng: Rng, middle: Array, radius: float) -> Field:
    """Signed distance in px (h, w), about: breaks that have grown together, or the outline that is given."""
    if site.outline is not None:
        return _eaten(site, rng, radius)
    along = site.grain if site.grained else float(rng.uniform(0, np.pi))
    whole = contour(rng, site.shape, middle, 0.72 * radius, 0.3, float(rng.uniform(1, 2.2)), along)
    for _ in range(int(rng.integers(0, 7))):
        at = middle + 0.55 * radius * rng.normal(0, 1, 2)
        part = radius * float(np.exp(rng.uniform(np.log(0.12), np.log(0.5))))
        slit, turned = float(rng.uniform(1, 5)), along + float(rng.normal(0, 0.5))
        whole = np.minimum(whole, contour(rng, site.shape, at, part, 0.3, slit, turned))
    unit = radius / site.scale
    ragged = 0.16 * site.noise(rng, max(0.5 * unit, 4.0), 3) + 0.09 * site.noise(rng, max(0.14 * unit, 2.0), 3)
    return np.asarray(whole + radius * float(rng.uniform(0.6, 1.5)) * ragged, np.float32)


def _pits(site: Site, rng: Rng, radius: float) -> tuple[Field, Field]:
    """The single breaks of the floor: how deep each px (h, w) lies in one of them, in px, and how bright it is beside
    the others: bright ones are flakes that still stand."""
    h, w = site.shape
    s = site.scale
    apart = float(np.clip(radius * rng.uniform(0.2, 0.45), 3.5 * s, 14 * s))
    numbers, border = cells(rng, max(h, w), apart)
    tones = np.clip(rng.normal(1, 0.16, int(numbers.max()) + 2), 0.6, 1.4)
    tones[rng.random(len(tones)) < 0.12] *= float(rng.uniform(1.2, 1.5))
    bowls = 0.3 * apart * (1 - np.exp(-border[:h, :w] / np.float32(0.3 * apart)))
    ragged = 1 + 0.3 * site.noise(rng, 4, 2)
    return np.asarray(bowls * ragged, np.float32), blur(np.asarray(tones[numbers[:h, :w]], np.float32), 0.8 * s)


def _eaten(site: Site, rng: Rng, radius: float) -> Field:
    """Breaks that have grown together within the outline that is given (signed distance in px): they reach it here and
    there, and small ones lie beside them."""
    assert site.outline is not None
    far, s, unit = site.outline, site.scale, radius / site.scale
    ragged = site.noise(rng, max(0.7 * unit, 4.0), 3) + 0.6 * site.noise(rng, max(0.2 * unit, 2.5), 2)
    whole = far + radius * float(rng.uniform(0.1, 0.25)) * (1 + np.asarray(ragged, np.float32))
    y, x = np.nonzero(far < -min(1.5 * s, 0.5 * radius))
    for _ in range(int(rng.integers(3, 10)) if len(x) else 0):
        i = int(rng.integers(len(x)))
        part = min(-float(far[y[i], x[i]]) * float(rng.uniform(0.6, 1.2)), 0.5 * radius)
        slit, turned = float(rng.uniform(1, 2.5)), float(rng.uniform(0, np.pi))
        at: Array = np.array([x[i], y[i]], float)
        whole = np.minimum(whole, contour(rng, site.shape, at, part, 0.3, slit, turned))
    return np.asarray(np.maximum(whole, far), np.float32)
