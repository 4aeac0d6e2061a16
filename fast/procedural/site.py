"""What a defect is drawn into and what drawing one yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.noise import Field, Rng, blur, fractal
from fast.procedural.shapes import Array, Curve, Groove, contour, groove, groove_within
from fast.procedural.traits import Traits

# Sine and cosine of the height the lamp is taken to stand at, and the share of light that comes from all sides.
LAMP_UP, LAMP_ASIDE, AMBIENT = 0.72, 0.69, 0.4
# Of a change that fades out: what is covered to a lower share belongs to the mask no more.
COVERED = 0.12
GAP = 0.05  # share of an area that a gap in it is filled up to


@dataclass
class Site:
    """Where a defect goes: a picture enlarged, and what is known of its material and light.

    All px below are those of the enlarged picture. A photo px is a pixel of a picture whose shorter side has 256.

    Args:
        picture: (h,w,3) in grey levels, enlarged.
        scale: px per photo px.
        traits: properties of the material that decide how defects look on it.
        light: unit vector (x, y) towards the lamp.
        grain: angle in radians along which the surface is streaked.
        grained: whether it is streaked.
        dark: whether the picture is dark.
        outline: (h,w), for a defect whose mask is given, the signed distance in px to its edge, negative inside. The
            painters in `defects.FOLLOWERS` draw that shape instead of one of their own. None: no mask is given.
        middle: (x, y) where a large area has its middle, or at which place of the object's edge a piece is broken off.
            None: the painter chooses.
        depth: (h,w), px to the object's edge, 0 beyond it. None: the object fills the picture.
    """

    picture: Field
    scale: float
    traits: Traits
    light: tuple[float, float]
    grain: float
    grained: bool
    dark: bool
    outline: Field | None = None
    middle: Array | None = None
    depth: Field | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.picture.shape[0], self.picture.shape[1]

    def spot(self, rng: Rng, margin: float = 0.18) -> Array:
        """A random point (x, y) away from the border."""
        h, w = self.shape
        spot = np.array([w, h]) * rng.uniform(margin, 1 - margin, 2)
        return spot if self.outline is None else self.deepest(self.outline)

    def deepest(self, outline: Field) -> Array:
        """The point (x, y) farthest inside an outline, a signed distance (h, w)."""
        y, x = np.unravel_index(int(np.argmin(outline)), self.shape)
        return np.array([x, y], float)

    def reach(self, radius: float) -> float:
        """The radius in px that a painter has chosen, or that of the largest circle in the given outline."""
        return radius if self.outline is None else max(-float(self.outline.min()), 1.0)

    def noise(self, rng: Rng, cell: float, octaves: int = 3) -> Field:
        """Fractal noise (h, w) with grains of `cell` photo px."""
        h, w = self.shape
        return fractal(rng, max(h, w), cell * self.scale, octaves, 0.6)[:h, :w]


@dataclass
class Spot:
    """Where in a window a defect goes that lies over an edge: its middle (x, y) in px, and how many px deep in the
    object each px (h, w) lies, 0 beyond it."""

    middle: tuple[int, int]
    depth: Field


@dataclass
class Change:
    """out = picture * gain + add, both (h, w, 3) or (h, w, 1); `solid` fills the mask's inner gaps. `area` (h, w)
    in [0, 1]: how far the defect covers the surface; the mask ends where that is `COVERED`. None: the mask is where the
    change shows."""

    gain: Field
    add: Field
    solid: bool = False
    area: Field | None = None


Painter = Callable[[Site, Rng], Change]


def tinted(field: Field, colour: tuple[float, float, float] = (1, 1, 1)) -> Field:
    """A field (h, w) times a colour: (h, w, 3)."""
    return field[..., None] * np.asarray(colour, np.float32)


def over(below: Change, above: Change) -> Change:
    """The change that `above` makes to what `below` has made."""
    return Change(below.gain * above.gain, below.add * above.gain + above.add, below.solid or above.solid)


Slices = tuple[slice, slice]


def along(site: Site, curves: list[Curve], margin: float) -> tuple[Site, list[Curve], Slices]:
    """The piece of a site within `margin` px of the curves' box, the curves in it, and where the piece lies."""
    h, w = site.shape
    if site.outline is not None:
        return site, curves, (slice(0, h), slice(0, w))
    points = np.concatenate([c.points for c in curves])
    low, high = points.min(0) - margin, points.max(0) + margin
    x0, y0 = (int(np.clip(low[i], 0, (w, h)[i] - 16)) for i in (0, 1))
    x1, y1 = (int(np.clip(high[i], (x0, y0)[i] + 16, (w, h)[i])) for i in (0, 1))
    place = (slice(y0, y1), slice(x0, x1))
    moved = [replace(c, points=c.points - np.array([x0, y0])) for c in curves]
    return replace(site, picture=site.picture[place]), moved, place


def placed(site: Site, place: Slices, change: Change) -> Change:
    """A change of a piece as a change of the whole site."""
    gain = np.ones((*site.shape, change.gain.shape[2]), np.float32)
    add = np.zeros((*site.shape, change.add.shape[2]), np.float32)
    gain[place], add[place] = change.gain, change.add
    return Change(gain, add, change.solid)


def around(site: Site, centre: Array, reach: float) -> tuple[Site, Array, Slices]:
    """The piece of a site within `reach` px of a point, that point in it, and where the piece lies."""
    dot = Curve(centre[None], np.zeros(1), np.zeros(1))
    cut, moved, place = along(site, [dot], reach)
    return cut, moved[0].points[0], place


def outlined(site: Site, rng: Rng, centre: Array, radius: float, rough: float, stretch: float, angle: float) -> Field:
    """Signed distance in px (h, w) to the outline to draw: an irregular one, or the one that is given."""
    far = contour(rng, site.shape, centre, radius, rough, stretch, angle)
    return far if site.outline is None else site.outline


def traced(site: Site, curves: list[Curve]) -> Groove:
    """Fields around the curves, or around the middle line of the given outline."""
    return groove(curves, site.shape) if site.outline is None else groove_within(site.outline)


def _slopes(site: Site, height: Field) -> tuple[Field, Field, Field]:
    """How steeply a field of heights (h, w) px rises along x, along y and towards the lamp."""
    height = np.asarray(height, np.float32)
    dx = np.asarray(cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=1 / 32), np.float32)
    dy = np.asarray(cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=1 / 32), np.float32)
    return dx, dy, dx * np.float32(site.light[0]) + dy * np.float32(site.light[1])


def relief(site: Site, height: Field) -> Field:
    """How far each px of a field of heights (h, w) px faces the lamp, in (-1, 1); 0 where it is level.

    Scales the colour of what is laid on a surface; `lit` shades the surface that is there, which may be glossy.
    """
    dx, dy, lean = _slopes(site, height)
    return np.asarray(-lean / np.sqrt(1 + dx * dx + dy * dy), np.float32)


def lit(site: Site, height: Field, gloss: float | None = None) -> Change:
    """The shading a bump or hollow of `height` (h, w) px, positive towards the camera, gets from the site's light."""
    dx, dy, lean = _slopes(site, height)
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    facing = np.maximum(LAMP_UP - LAMP_ASIDE * lean, 0) * norm
    light = (AMBIENT + (1 - AMBIENT) * facing / LAMP_UP).astype(np.float32)
    # Halfway between the lamp and the camera: a slope that looks there mirrors the lamp.
    half = 1 / np.sqrt(LAMP_ASIDE**2 + (LAMP_UP + 1) ** 2)
    aligned = np.maximum((LAMP_UP + 1 - LAMP_ASIDE * lean) * norm * half, 0)
    flat = (LAMP_UP + 1) * half
    shine = site.traits.gloss if gloss is None else gloss
    mirror = 70 * shine * (aligned**24 - flat**24)
    # Pictures are gamma coded: twice the light is not twice the grey level.
    return Change(light[..., None] ** np.float32(0.6), tinted(np.asarray(np.maximum(mirror, -25 * shine), np.float32)))


def step_down(site: Site, inside: Field) -> Field:
    """The edge of a hollow `inside` (h, w) in [0, 1]: negative where the step lies in the lamp's shade, positive across
    from it, where it shines; up to 1.5 either way."""
    drop = np.asarray(blur(inside, 0.8 * site.scale), np.float32)
    dx, dy = cv2.Sobel(drop, cv2.CV_32F, 1, 0), cv2.Sobel(drop, cv2.CV_32F, 0, 1)
    toward = dx * np.float32(site.light[0]) + dy * np.float32(site.light[1])
    return np.clip(toward * np.float32(site.scale), -1.5, 1.5)


def whole(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest piece of a mask (h, w), its gaps filled unless they are large: holes, and those that the picture's
    edge closes."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return mask
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    found = (pieces == largest).astype(np.uint8)
    _, gaps, sizes, _ = cv2.connectedComponentsWithStats(1 - found, connectivity=4)
    small = sizes[:, cv2.CC_STAT_AREA] <= GAP * stats[largest, cv2.CC_STAT_AREA]
    small[0] = False
    found[small[gaps]] = 1
    return found
