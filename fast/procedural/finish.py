"""Areas of another finish: the surface itself, ground, brushed, polished or coated more or less than around."""

from __future__ import annotations

import numpy as np

from fast.procedural.deposits import box
from fast.procedural.noise import Field, Rng, blur, smoothstep, streaks, turn
from fast.procedural.shapes import Array
from fast.procedural.site import Change, Site, outlined

# How strong the surface's own texture becomes: worn off, or left rough.
WORN, ROUGH = (0.1, 0.65), (1.4, 2.8)
DARKEST = 40.0  # grey levels: on darker ground the difference in brightness is that of such ground
NOISE = 0.7  # photo px: what is finer is the camera's noise, which stays


def uneven(site: Site, rng: Rng) -> Change:
    """A large area whose texture is weaker or stronger than around and whose brightness differs: left unground, rubbed
    off, polished, matt. Its outline is that of a tool or a mask, straight on the whole, or of wear, irregular."""
    s = site.scale
    cover = _area(site, rng)
    low = blur(site.picture, float(rng.uniform(4, 11)) * s)
    texture = blur(site.picture, NOISE * s) - low
    rough = rng.random() < 0.5
    gain = float(np.exp(rng.uniform(*np.log(ROUGH if rough else WORN))))
    # Rough ground scatters towards the camera more often than not, and what is rubbed off mirrors the dark room.
    sign = 1 if rng.random() < (0.8 if rough else 0.35) else -1
    level = float(np.exp(sign * rng.uniform(0.04, 0.3)))
    made = (gain - 1) * texture + (level - 1) * np.maximum(low, DARKEST)
    if rough:
        made = made + _marks(site, rng, float(texture.std()))[..., None]
    patchy = np.clip(1 + 0.08 * site.noise(rng, 40, 3), 0.7, 1.1)
    add = (cover * patchy)[..., None] * made
    return Change(np.ones((*site.shape, 1), np.float32), np.asarray(add, np.float32), area=cover)


def _area(site: Site, rng: Rng) -> Field:
    """What the area covers (h, w), in [0, 1]."""
    h, w = site.shape
    side = min(h, w)
    middle: Array = np.array([w, h]) / 2 + rng.normal(0, 0.03, 2) * side
    turned = _direction(site, rng)
    half = site.reach(side * float(rng.uniform(0.2, 0.36)))
    soft = max(float(np.exp(rng.uniform(np.log(0.006), np.log(0.16)))) * half, 0.5 * site.scale)
    if site.outline is not None or rng.random() < 0.35:
        far = outlined(site, rng, middle, half, 0.16, float(rng.uniform(1, 1.8)), turned)
    else:
        wide, high = half * float(rng.uniform(1, 1.3)), half * float(rng.uniform(0.35, 1.2))
        round_by = 0.3 * min(wide, high) * float(rng.random() ** 2)
        far = box(site, middle, (wide - round_by, high - round_by), turned) - round_by
    if site.outline is None:
        far = far + half * float(rng.uniform(0.005, 0.05)) * site.noise(rng, 0.5 * half / site.scale, 4)
    return smoothstep(0.5 * soft, -0.5 * soft, np.asarray(far, np.float32))


def _direction(site: Site, rng: Rng) -> float:
    """Radians: tools run along the grain or across it, else along the picture's sides."""
    along = site.grain if site.grained else 0.0
    return along + float(rng.choice([0.0, np.pi / 2])) + float(rng.normal(0, 0.08))


def _marks(site: Site, rng: Rng, strength: float) -> Field:
    """Fresh marks of the tool in grey levels (h, w), more bright than dark ones; on ground without grain few."""
    h, w = site.shape
    n = max(h, w)
    angle = site.grain if site.grained else float(rng.uniform(0, np.pi))
    long = int(np.ceil(n * 1.45)) + 4
    lines = turn(streaks(rng, long, float(rng.uniform(0.2, 0.9)) * n, float(rng.uniform(1, 3)) * site.scale), -angle, n)
    amount = strength * float(rng.uniform(0, 1.2 if site.grained else 0.4))
    return np.asarray(amount * np.where(lines > 0, 1.4, 0.6) * lines, np.float32)[:h, :w]
