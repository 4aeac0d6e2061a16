"""Flaws drawn into a finished picture, lit from the side the picture is lit from."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.defects import AT_EDGE, DRAWABLE, LARGE, PAINTERS, traits_named
from fast.procedural.noise import Field, Rng, blur, white
from fast.procedural.photo import DRAWN_BLUR, Photo
from fast.procedural.shapes import grain_direction, light_direction
from fast.procedural.site import COVERED, Site, Spot, whole
from fast.procedural.surfaces import REFERENCE, SMALLEST
from fast.procedural.traits import Traits
from ldm.errors import UserError

# Defects are drawn at twice the picture's resolution and averaged down, which antialiases them.
OVERSAMPLE = 2
# A change shows from this many grey levels on; next to a strong one, from a share of it on.
VISIBLE, VISIBLE_SHARE = 5.0, 0.14
# What is bared differs from the surface by at least this many grey levels.
DISTINCT = 40.0
# The mean change inside a mask is at least this much, more on ground whose own texture is strong.
LEAST_MEAN_CHANGE, TEXTURE_SHARE, LEAST_AREA = 13.0, 0.4, 7
# Areas show with so much of that: more of such a change would turn the surface over. So many are tried for it.
AREA_SHARE, AREA_TRIES = 0.6, 4


def _site(
    image: NDArray[np.uint8],
    traits: Traits,
    photo: Photo | None = None,
    outline: NDArray[np.uint8] | None = None,
    spot: Spot | None = None,
) -> Site:
    """`photo`: of the whole picture that this one is a window of; `outline` (h, w): the mask to fill."""
    picture = image.astype(np.float32)
    grey = picture.mean(2)
    if photo is None:
        grain, clear = grain_direction(blur(grey, 0.8))
        light, grained = light_direction(grey), clear > 0.3
    else:
        light, grain, grained = photo.light, photo.grain, photo.grained
    # Bared stuff that is as bright as the surface would not show: take it paler, or darker on pale ground.
    level, inner = float(np.median(grey)), float(np.mean(traits.bare))
    if abs(level - inner) < DISTINCT:
        wanted = level + DISTINCT if level + DISTINCT < 235 else level - DISTINCT
        red, green, blue = (min(c * wanted / max(inner, 1.0), 250.0) for c in traits.bare)
        traits = replace(traits, bare=(red, green, blue))
    h, w = grey.shape
    large = np.asarray(
        cv2.resize(picture, (w * OVERSAMPLE, h * OVERSAMPLE), interpolation=cv2.INTER_LINEAR), np.float32
    )
    scale = OVERSAMPLE * max(min(h, w) / REFERENCE, 0.5)
    far = None if outline is None else _signed_distance(outline)
    site = Site(large, scale, traits, light, grain, grained, float(grey.mean()) < 95, far)
    if spot is None:
        return site
    depth = cv2.resize(spot.depth.astype(np.float32), (w * OVERSAMPLE, h * OVERSAMPLE)) * OVERSAMPLE
    return replace(site, middle=np.asarray(spot.middle, float) * OVERSAMPLE, depth=np.asarray(depth, np.float32))


def _signed_distance(mask: NDArray[np.uint8]) -> Field:
    """Of a mask (h, w), at the oversampled size: px to its edge, negative inside."""
    size = (mask.shape[1] * OVERSAMPLE, mask.shape[0] * OVERSAMPLE)
    large = cv2.resize((mask != 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    # A mask without an edge would be infinitely far from it.
    within, beyond = (np.minimum(cv2.distanceTransform(s, cv2.DIST_L2, 5), max(size)) for s in (large, 1 - large))
    return np.asarray(np.where(large > 0, 0.5 - within, beyond - 0.5), np.float32)


def _visible(change: Field, solid: bool) -> NDArray[np.uint8]:
    """Mask (h, w) of 0 and 1 where a change (h, w, 3) in grey levels shows."""
    size = cv2.GaussianBlur(np.abs(change).max(2), (3, 3), 0.6)
    seen = size > VISIBLE
    if not seen.any():
        return np.zeros(size.shape, np.uint8)
    limit = np.clip(VISIBLE_SHARE * np.percentile(size[seen], 95), VISIBLE, 3 * VISIBLE)
    mask = np.asarray(
        cv2.morphologyEx((size > limit).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8
    )
    if solid:
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return mask


def _attempt(
    image: NDArray[np.uint8], site: Site, defect: str, rng: Rng, photo: Photo | None = None
) -> tuple[Field, NDArray[np.uint8]]:
    """The change (h, w, 3) in grey levels a defect makes at the picture's resolution, and its mask."""
    h, w = image.shape[:2]
    made = PAINTERS[defect](site, rng)
    gain, add = (cv2.resize(f, (w, h), interpolation=cv2.INTER_AREA).reshape(h, w, -1) for f in (made.gain, made.add))
    change = np.asarray(image * (gain - 1) + add, np.float32)
    if photo is not None:
        change = _taken_by(photo, change)
    # Where the surface is gone so is its noise; the sensor's own is not.
    noise = 1.3 if photo is None else photo.noise
    grain = noise * white(rng, h, w)[..., None] * np.clip(1 - gain, 0, 1)
    if photo is not None and photo.grey:
        grain = grain.mean(2, keepdims=True)
    if made.area is None:
        return change + grain, _visible(change, made.solid)
    area = cv2.resize(made.area, (w, h), interpolation=cv2.INTER_AREA)
    return change + grain, whole((area > COVERED).astype(np.uint8))


def _taken_by(photo: Photo, change: Field) -> Field:
    """A change (h, w, 3) as sharp as the photograph, and without colour where it has none."""
    more = photo.blur**2 - DRAWN_BLUR**2
    soft = blur(change, float(np.sqrt(more))) if more > 0.01 else change
    if not photo.grey:
        return soft
    grey = soft @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(grey[..., None], 3, axis=2)


def _apply(image: NDArray[np.uint8], change: Field, mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The picture changed inside the mask, and the mean change there in grey levels."""
    drawn = np.clip(np.rint(image + change), 0, 255).astype(np.uint8)
    drawn[mask == 0] = image[mask == 0]
    return drawn, float(np.abs(drawn.astype(np.float32) - image)[mask > 0].mean())


def _least(image: NDArray[np.uint8]) -> float:
    """The mean change in grey levels that shows on this picture's texture."""
    grey = image.astype(np.float32).mean(2)
    return float(LEAST_MEAN_CHANGE + TEXTURE_SHARE * min(float((grey - blur(grey, 3)).std()), 20))


def _driven(image: NDArray[np.uint8], change: Field, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply a change, harder if it is faint on this ground: a mask over nothing would teach nothing."""
    least = _least(image)
    for sign in (1, -1):
        strong = change * np.float32(sign)
        for _ in range(4):
            drawn, mean = _apply(image, strong, mask)
            if mean >= least:
                return drawn
            strong = strong * np.float32(min(1.15 * least / max(mean, 1e-3), 2.5))
        # Black cannot be darkened nor white lightened: turn the change round.
    return drawn


def draw_defect(
    image: NDArray[np.uint8], material: str | Traits, defect: str, rng: Rng
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a defect into a picture (h, w, 3) uint8: the new picture, and its mask (h, w) uint8 of 0 and 1.

    `material`: a name, or the traits of a surface that has none. Outside the mask every byte is the input's. The mask
    is never empty.
    """
    traits = traits_named(material)
    if defect not in PAINTERS:
        raise UserError(f"unknown defect {defect!r}; choose from {', '.join(DRAWABLE)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"need uint8 (h, w, 3) of {SMALLEST} px or more, got {image.dtype} {image.shape}")
    return _drawn(image, _site(image, traits), defect, rng)


def draw_onto(
    image: NDArray[np.uint8],
    traits: Traits,
    defect: str,
    rng: Rng,
    photo: Photo,
    outline: NDArray[np.uint8] | None = None,
    spot: Spot | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`draw_defect` for a window (h, w, 3) of a photograph: as sharp, as noisy and as coloured as that is.

    `outline` (h, w), nonzero = defect: the shape to draw, of the types in `FOLLOWERS`; nothing changes outside it.
    `spot`: where it goes, of those in `LARGE` and `AT_EDGE`.
    """
    return _drawn(image, _site(image, traits, photo, outline, spot), defect, rng, photo, outline)


def _drawn(
    image: NDArray[np.uint8],
    site: Site,
    defect: str,
    rng: Rng,
    photo: Photo | None = None,
    outline: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    area = defect in (*LARGE, *AT_EDGE)
    if area:
        drawn, mask = _area_drawn(image, site, defect, rng, photo, outline)
        if mask.any():
            return drawn, mask
    for attempt in range(0 if area else 12):
        # A ground that shows nothing (all black, say) is drawn on as if it were grey.
        ground = image if attempt < 6 else np.full_like(image, 128)
        change, mask = _attempt(ground, site, defect, rng, photo)
        if outline is not None:
            mask = np.asarray(mask & (outline != 0), np.uint8)
        if mask.sum() < (LEAST_AREA if outline is None else 1):
            continue
        return _driven(image, change, mask), mask
    if outline is not None:
        # A shape of a few px is too small for any look: it is a dark speck.
        mask = (outline != 0).astype(np.uint8)
        return _driven(image, np.full(image.shape, -2 * LEAST_MEAN_CHANGE, np.float32), mask), mask
    tries = AREA_TRIES if area else 12
    raise UserError(f"no {defect} shows in this picture in {tries} attempts; draw another type in it")


def _area_drawn(
    image: NDArray[np.uint8],
    site: Site,
    defect: str,
    rng: Rng,
    photo: Photo | None,
    outline: NDArray[np.uint8] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first of a few that shows on this ground, or the one that does best."""
    best, most = (image, np.zeros(image.shape[:2], np.uint8)), -1.0
    for _ in range(AREA_TRIES):
        change, mask = _attempt(image, site, defect, rng, photo)
        mask = mask if outline is None else np.asarray(mask & (outline != 0), np.uint8)
        if not mask.any():
            continue
        drawn, mean = _apply(image, change, mask)
        if mean > most:
            best, most = (drawn, mask), mean
        if mean >= AREA_SHARE * _least(image):
            break
    return best
