"""What is broken off a part's edge: material is missing, and what lies behind it or its fracture shows."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Field, Rng, blur, smoothstep, weighted_blur, white, wide_blur
from fast.procedural.shapes import Array, contour
from fast.procedural.site import Change, Site, lit, step_down

RIM = 8.0  # px of the site (4 of the picture) beyond an object's outline that are a mixture of it and what is behind
ALIKE = (3.0, 8.0)  # grey levels from what lies behind: a mixture is told from noise
GROUND = 0.12  # share of what is seen about a break that has to lie behind the object for it to be known
DARKEST = 40.0  # grey levels: a fracture in darker stuff is as bright as in such
LONGEST = 0.24  # of the window's side: half of the greatest break, whose outline strays to 1.8 times that


def broken(site: Site, rng: Rng) -> Change:
    """A piece missing from the object's edge. Where it can be known what lies behind the object it shows, beside more
    or less of the fracture; the old outline is gone with the piece. Else the fracture runs to the edge."""
    depth, beyond = _depths(site, rng)
    middle = _place(site, rng, depth)
    far, size = _cut(site, rng, depth, middle)
    s = site.scale
    inside = smoothstep(0.45 * s, -0.45 * s, far)
    piece = np.asarray(inside * (depth > 0), np.float32)
    face = _fracture(site, rng, far, depth, size)
    behind = None if site.outline is not None else _ground(site, rng, beyond, far, size)
    if behind is not None:
        recess = _recess(site, rng, depth, size)
        bared = smoothstep(0.7 * s, -0.7 * s, np.asarray(depth - recess))
        if rng.random() < 0.5:  # all the way through, but for a lip of the fracture now and then
            lip = size * float(rng.choice([0.0, rng.uniform(0.05, 0.3)]))
            bared = np.maximum(bared, 1 - smoothstep(-lip - s, -lip, far))
        face = face + bared[..., None] * (behind - face)
        # What of the outline lies beyond the object goes too, wherever it is not yet like what lies behind.
        unlike = smoothstep(*ALIKE, blur(np.abs(site.picture - behind).max(2), 1.5))
        rim = smoothstep(RIM + 1, RIM, beyond) * smoothstep(0.45 * s, -0.45 * s, far - beyond) * unlike
        piece = np.maximum(piece, np.asarray(rim * (beyond > 0), np.float32))
    return Change(1 - piece[..., None], np.asarray(piece[..., None] * np.clip(face, 0, 255), np.float32), area=piece)


def _depths(site: Site, rng: Rng) -> tuple[Field, Field]:
    """How deep in the object each px (h, w) lies and how far beyond it; the picture's border is an edge of the object
    where none is told."""
    depth = site.depth
    if depth is None:
        h, w = site.shape
        x, y = np.arange(w, dtype=np.float32)[None, :], np.arange(h, dtype=np.float32)[:, None]
        depth = np.minimum(np.minimum(x, w - 1 - x), np.minimum(y, h - 1 - y)) + np.float32(1)
    if (depth > 0).all():
        return depth, np.zeros_like(depth)
    return depth, np.asarray(cv2.distanceTransform((depth <= 0).astype(np.uint8), cv2.DIST_L2, 5), np.float32)


def _place(site: Site, rng: Rng, depth: Field) -> Array:
    """Where the break lies, (x, y) in px: what the site says, or a place at an edge of the picture."""
    if site.outline is not None:
        return site.deepest(site.outline)
    if site.middle is not None:
        return site.middle
    spots = np.flatnonzero((depth > 0) & (depth < 2))
    y, x = np.unravel_index(int(rng.choice(spots)), site.shape)
    return np.array([x, y], float)


def _cut(site: Site, rng: Rng, depth: Field, middle: Array) -> tuple[Field, float]:
    """Signed distance in px (h, w) to where the surface ends, negative where it is broken off, and about how deep the
    break is: a chord more or less long and deep, ragged, or the outline that is given."""
    if site.outline is not None:
        return site.outline, site.reach(1.0)
    s, side = site.scale, min(site.shape)
    longest = max(LONGEST * side, 5.0 * s)
    along = float(np.exp(rng.uniform(np.log(min(max(0.09 * side, 5.0 * s), longest)), np.log(longest))))
    deep = max(along * float(rng.uniform(0.3, 0.9)), 2.8 * s)
    inward = _inward(depth, middle, 2 * deep)
    # A chord: the middle lies beyond the edge, so that the break gets shallow towards its ends.
    centre = middle - inward * deep * float(rng.uniform(0.0, 0.45))
    turned = float(np.arctan2(inward[1], inward[0])) + np.pi / 2 + float(rng.normal(0, 0.25))
    far = contour(rng, site.shape, centre, float(np.sqrt(along * deep)), 0.16, along / deep, turned)
    unit = deep / s
    ragged = 0.1 * site.noise(rng, max(0.8 * unit, 4.0), 2) + 0.05 * np.abs(site.noise(rng, max(0.25 * unit, 2.0), 2))
    return np.asarray(far + deep * float(rng.uniform(0.5, 1.5)) * ragged, np.float32), deep


def _inward(depth: Field, middle: Array, reach: float) -> Array:
    """Unit vector (x, y) from a place at the object's edge into it."""
    h, w = depth.shape
    x, y = np.arange(w) - middle[0], np.arange(h) - middle[1]
    near = np.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * max(reach, 2.0) ** 2)) * (depth > 0)
    to: Array = np.array([float((near * x[None, :]).sum()), float((near * y[:, None]).sum())])
    length = float(np.hypot(*to))
    return to / length if length > 1e-6 else np.array([0.0, 1.0])


def _fracture(site: Site, rng: Rng, far: Field, depth: Field, size: float) -> Field:
    """Grey levels (h, w, 3) of a rough face that falls away from the surface towards the edge: none of its texture."""
    s, traits, unit = site.scale, site.traits, size / site.scale
    fallen = np.clip(-far / np.float32(size), 0, 1)
    ridges = np.abs(site.noise(rng, max(0.9 * unit, 5.0), 3))
    grit = (0.12 + 0.5 * traits.rough) * s * site.noise(rng, 2.5, 2)
    height = size * (-0.28 * fallen + 0.09 * ridges * np.minimum(3 * fallen, 1)) + grit
    shade = lit(site, np.asarray(height, np.float32), 0.25 * traits.gloss)
    ground = _spread(site, depth > 0, max(0.7 * size, 4 * s))
    # In the shadow of what still stands, or open to the lamp; seldom as bright as the surface.
    tone = float(rng.uniform(0.15, 0.45) if rng.random() < 0.5 else rng.uniform(0.5, 0.82))
    if float(ground[far < 0].mean() if (far < 0).any() else ground.mean()) < DARKEST:
        ground, tone = np.maximum(ground, 0.5 * DARKEST), float(rng.uniform(1.5, 2.2))
    elif traits.kind not in ("metal", "glass"):
        ground = 0.6 * ground + 0.4 * np.asarray(traits.bare, np.float32)
    darker = 1 - float(rng.uniform(0.25, 0.6)) * fallen + 0.06 * site.noise(rng, max(unit, 6.0), 3)
    face = ground * np.clip(tone * darker, 0.05, 2.4)[..., None] * np.clip(shade.gain, 0.55, 1.3) + 0.4 * shade.add
    step = step_down(site, smoothstep(0.5 * s, -0.5 * s, far))
    dark = 1 - 0.3 * np.clip(-step, 0, 1) * smoothstep(3 * s, 0, np.abs(far))
    return np.asarray(face * dark[..., None] + (np.clip(step, 0, 1) * (4 + 10 * traits.gloss))[..., None], np.float32)


def _recess(site: Site, rng: Rng, depth: Field, size: float) -> Field:
    """How far (px, (h, w)) the object's edge has moved in: at least to where the old outline no longer shows."""
    least = max(2.2 * site.scale, 0.5 * RIM)
    far = max(least, size * float(rng.uniform(0.05, 0.45)))
    wander = site.noise(rng, max(0.8 * size / site.scale, 4.0), 3)
    return np.asarray(np.maximum(far * (1 + 0.3 * wander), least), np.float32)


def _spread(site: Site, known: np.ndarray, wide: float) -> Field:
    """The picture (h, w, 3), smooth, from its px `known` (h, w) alone, carried on to where none is."""
    if not known.any():
        return wide_blur(site.picture, wide)
    weight = known.astype(np.float32)[..., None]
    median = np.median(site.picture[known], axis=0).astype(np.float32)
    return weighted_blur(site.picture, weight, wide, median)


def _ground(site: Site, rng: Rng, beyond: Field, far: Field, size: float) -> Field | None:
    """What lies behind the object, (h, w, 3), carried on under it with its texture; None where too little of it is
    seen to be known."""
    s = site.scale
    known = beyond > RIM + 2
    about = smoothstep(size + 2 * RIM + 8 * s, size + RIM, np.asarray(far, np.float32))
    if float((known * about).sum()) < GROUND * float(about.sum()):
        return None
    smooth = _spread(site, known, max(0.8 * size, 6 * s))
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    y, x = np.nonzero(known)
    owner = np.zeros(int(labels.max()) + 1, np.int64)
    owner[labels[y, x]] = np.arange(len(y))
    near = owner[labels]
    h, w = site.shape
    # Mirrored in the nearest px that is known; what the mirror does not show is taken from anywhere.
    from_y = np.clip(2 * y[near] - np.arange(h)[:, None], 0, h - 1)
    from_x = np.clip(2 * x[near] - np.arange(w)[None, :], 0, w - 1)
    detail = np.where(known[..., None], blur(site.picture, 0.7 * s) - smooth, 0)
    deviation = float(detail[known].std())
    shown = detail[from_y, from_x]
    grain = blur(white(rng, h, w), 0.8 * s)
    grain = np.asarray(deviation * grain / max(float(grain.std()), 1e-6), np.float32)
    return np.asarray(smooth + np.where(known[from_y, from_x][..., None], shown, grain[..., None]), np.float32)
