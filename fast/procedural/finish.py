"""Areas of another finish: the surface itself, ground, brushed, polished or coated more or less than around."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.deposits import box
from fast.procedural.noise import Field, Rng, blur, smoothstep, streaks, turn, weighted_blur
from fast.procedural.shapes import Array
from fast.procedural.site import Change, Site, outlined

# How strong the surface's own texture becomes: worn off, or left rough.
WORN, ROUGH = (0.2, 0.7), (1.3, 2.2)
DARKEST = 40.0  # grey levels: on darker ground the difference in brightness is that of such ground
FAINTEST = 11.0  # grey levels by which the middle of an area differs in brightness and texture together, at least
DARK, BRIGHT = 45.0, 205.0  # grey levels: darker ground can only become brighter, and brighter only darker
GLARE = (254.0, 225.0)  # grey levels between which a change is lost in a highlight
NOISE = 0.7  # photo px: what is finer is the camera's noise, which stays
OUTLIER = 3.0  # deviations of the texture; what stands out more is a mark or an edge and is changed no more than that
SEAM, SEAM_BLUR = 4.5, 3.0  # grey levels in a photo px at that blur (px): so steep is the border of two materials


def uneven(site: Site, rng: Rng) -> Change:
    """A large area whose texture is weaker or stronger than around and whose brightness differs: left unground, rubbed
    off, polished, matt. It fades out towards its outline, and ends where another material begins."""
    s = site.scale
    same = one_material(site, _middle(site))
    cover = np.asarray(_area(site, rng) * same, np.float32)
    rough = rng.random() < 0.5
    low, texture = _layers(site, same, float(rng.uniform(4, 11)) * s)
    gain = float(np.exp(rng.uniform(*np.log(ROUGH if rough else WORN))))
    made = (gain - 1) * texture
    if rough:
        made = made + _marks(site, rng, float(texture.std()))[..., None]
    made = made + _tone(rng, cover, low, made, rough)[..., None]
    patchy = np.clip(1 + 0.22 * site.noise(rng, 40, 3), 0.5, 1.3)
    # A mirrored lamp, too bright for the camera, stays so; not a surface that is that bright throughout.
    shown = smoothstep(*GLARE, site.picture.max(2))
    if float(np.median(shown[cover > 0.5 * cover.max()])) < 0.5:
        shown = np.ones_like(shown)
    add = (cover * patchy * shown)[..., None] * made
    return Change(np.ones((*site.shape, 1), np.float32), np.asarray(add, np.float32), area=cover)


def _middle(site: Site) -> Array:
    """Where the area has its middle, (x, y) in px."""
    if site.outline is not None:
        return site.deepest(site.outline)
    h, w = site.shape
    return np.array([w, h]) / 2 if site.middle is None else site.middle


def one_material(site: Site, at: Array) -> Field:
    """How far each px (h, w) is of the material at (x, y), in [0, 1]: all that is reached from there without a step in
    brightness or colour across; 1 everywhere where that is next to nothing."""
    reach = SEAM_BLUR * site.scale
    smooth = blur(site.picture, reach)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8))
    level = (slope.max(2) * site.scale < SEAM).astype(np.uint8)
    _, parts = cv2.connectedComponents(level, connectivity=4)
    x, y = np.clip(at, 0, np.array(site.shape[::-1]) - 1).astype(int)
    inside = (parts == parts[y, x]) & (level > 0)
    if not level[y, x] or inside.mean() < 0.02:
        return np.ones(site.shape, np.float32)
    # The slope keeps away from the border by about the blur: that is given back, and the end is not a knife's.
    near = np.asarray(cv2.distanceTransform(1 - inside.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    return smoothstep(1.6 * reach, 0.6 * reach, near)


def _layers(site: Site, same: Field, wide: float) -> tuple[Field, Field]:
    """The surface's level and its texture, (h, w, 3) both, of one material: another's light does not run into it."""
    weight = np.maximum(same, 1e-3)[..., None]
    low = weighted_blur(site.picture, weight, wide)
    texture = blur(site.picture, NOISE * site.scale) - low
    # From the median, or a few scratches would set the bound.
    most = OUTLIER * 1.48 * float(np.median(np.abs(texture[same > 0.5]))) if (same > 0.5).any() else 0.0
    return low, np.asarray(np.clip(texture, -most, most), np.float32)


def _tone(rng: Rng, cover: Field, low: Field, made: Field, rough: bool) -> Field:
    """The difference in brightness (h, w), as much as shows beside what the texture `made` changes."""
    core = cover > 0.5 * cover.max()
    level = float(np.median(low[core]))
    # Rough ground scatters towards the camera more often than not, and what is rubbed off mirrors the dark room.
    sign = 1 if rng.random() < (0.8 if rough else 0.35) else -1
    sign = 1 if level < DARK else -1 if level > BRIGHT else sign
    lighter = float(np.exp(sign * rng.uniform(0.05, 0.28))) - 1
    tone = lighter * np.maximum(low.mean(2), DARKEST)
    missing = FAINTEST - float(np.abs(tone[..., None] + made)[core].mean())
    return np.asarray(tone + sign * max(missing, 0.0), np.float32)


def _area(site: Site, rng: Rng) -> Field:
    """What the area covers (h, w), in [0, 1]."""
    side = min(site.shape)
    given = site.outline is not None
    middle = _middle(site) + (0 if given else rng.normal(0, 0.03, 2) * side)
    turned = _direction(site, rng)
    half = site.reach(side * float(rng.uniform(0.2, 0.33)))
    soft = max(half * float(np.exp(rng.uniform(np.log(0.12), np.log(0.8)))), 1.5 * site.scale)
    if given:
        far = outlined(site, rng, middle, half, 0.16, 1.5, turned)
        return smoothstep(0.0, -min(soft, 0.7 * half), np.asarray(far, np.float32))
    if rng.random() < 0.5:
        far = outlined(site, rng, middle, half, 0.2, float(rng.uniform(1, 1.8)), turned)
    else:
        wide, high = half * float(rng.uniform(1, 1.3)), half * float(rng.uniform(0.35, 1.0))
        if rng.random() < 0.3:  # a band
            wide *= float(rng.uniform(1.2, 2.5))
        round_by = min(wide, high) * float(rng.uniform(0.3, 0.9))
        far = box(site, middle, (wide - round_by, high - round_by), turned) - round_by
    far = far + half * float(rng.uniform(0.06, 0.16)) * site.noise(rng, 0.8 * half / site.scale, 3)
    if site.grained:
        # The tool leaves off line by line.
        far = far + 0.5 * soft * float(rng.uniform(0.1, 0.4)) * _lines(site, rng, float(rng.uniform(2, 9)))
    return smoothstep(0.6 * soft, -0.6 * soft, np.asarray(far, np.float32))


def _direction(site: Site, rng: Rng) -> float:
    """Radians: tools run along the grain or across it, else along the picture's sides."""
    along = site.grain if site.grained else 0.0
    return along + float(rng.choice([0.0, np.pi / 2])) + float(rng.normal(0, 0.08))


def _lines(site: Site, rng: Rng, width: float, length: float = 0.6, angle: float | None = None) -> Field:
    """Lines (h, w) along the grain, `width` photo px wide and `length` of the window long; deviation 1."""
    h, w = site.shape
    n = max(h, w)
    long = int(np.ceil(n * 1.45)) + 4
    drawn = turn(streaks(rng, long, length * n, width * site.scale), -(site.grain if angle is None else angle), n)
    return drawn[:h, :w]


def _marks(site: Site, rng: Rng, strength: float) -> Field:
    """Fresh marks of the tool in grey levels (h, w), more bright than dark ones; on ground without grain few."""
    angle = site.grain if site.grained else float(rng.uniform(0, np.pi))
    lines = _lines(site, rng, float(rng.uniform(1, 3)), float(rng.uniform(0.2, 0.9)), angle)
    amount = strength * float(rng.uniform(0, 1.2 if site.grained else 0.4))
    return np.asarray(amount * np.where(lines > 0, 1.4, 0.6) * lines, np.float32)
