"""What a photograph of an unknown surface says about its light, its grain, its camera and its material."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.noise import Field, blur
from fast.procedural.shapes import grain_direction
from fast.procedural.traits import Traits

# Channels that differ by less than this many grey levels on average are those of a grey camera.
GREY = 2.0
# Colours less saturated than this (largest difference of the median's channels over its largest) pass for metal.
METALLIC = 0.5
# A lamp's side is believed from this many grey levels of difference across the object on.
LIT = 12.0
# Of a drawn defect before any blur, in px: averaging down from twice the resolution leaves it this soft.
DRAWN_BLUR = 0.45
SOFTEST = 2.5
SAMPLE = 768  # side in px of the piece that is looked at in place of a larger picture
FLAT = 20.0  # Sobel's sum of grey levels below which there is no edge


@dataclass(frozen=True)
class Photo:
    """`light`: unit vector (x, y) towards the lamp; `grain`: angle in radians along which the surface is streaked, if
    it is (`grained`); `grey`: taken by a camera without colour; `noise`: standard deviation of the sensor's noise in
    grey levels; `blur`: that of the lens's Gaussian in px."""

    light: tuple[float, float]
    grain: float
    grained: bool
    grey: bool
    noise: float
    blur: float


def look_at(image: NDArray[np.uint8], region: NDArray[np.uint8] | None = None) -> Photo:
    """Read a photograph (h, w, 3) uint8, of which `region` (h, w), nonzero = object, counts; None: all of it."""
    piece, inside = _piece(image, region)
    step = max(1, min(image.shape[:2]) // SAMPLE)
    every = np.s_[::step, ::step]
    light = _light(_grey(image[every]), _inside(image[every], None if region is None else region[every]))
    grey = _grey(piece)
    spread = piece.max(2) - piece.min(2)
    angle, clear = grain_direction(_box(blur(grey, 0.8), inside))
    return Photo(
        light=light,
        grain=angle,
        grained=clear > 0.3,
        grey=float(spread[inside].mean()) < GREY,
        noise=noise_of(grey, inside),
        blur=_softness(grey, inside),
    )


def traits_of(image: NDArray[np.uint8], region: NDArray[np.uint8] | None = None) -> Traits:
    """Traits of a surface nobody has named: it passes for metal, or where its colour is strong for a moulded polymer.

    Gloss follows from how far highlights stand above the rest, roughness from the texture's contrast, and what lies
    under the surface has its own colour, paler.
    """
    piece, inside = _piece(image, region)
    colour = np.median(piece[inside].astype(np.float32), axis=0)
    grey = _grey(piece)
    level = float(np.median(grey[inside]))
    metal = float(colour.max() - colour.min()) < METALLIC * max(float(colour.max()), 1.0)
    shine = float(np.percentile(grey[inside], 99)) - level
    texture = float((grey - blur(grey, 2.0))[inside].std()) / max(level, 20.0)
    gloss = float(np.clip(shine / 120, 0.15, 0.8))
    rough = float(np.clip(0.1 + texture, 0.1, 0.35))
    paler = 0.75 * colour + 0.25 * 235
    bare = (float(paler[0]), float(paler[1]), float(paler[2]))
    if metal:
        return Traits("metal", bare, 0.9, rough, gloss, 0.05)
    return Traits("polymer", bare, 0.6, rough, gloss, 0.15)


def _grey(image: NDArray[np.uint8]) -> Field:
    return np.asarray(image.mean(2, dtype=np.float32), np.float32)


def _inside(image: NDArray[np.uint8], region: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
    """The object (h, w); all of the picture where none is known."""
    return np.ones(image.shape[:2], bool) if region is None or not region.any() else region != 0


def _piece(image: NDArray[np.uint8], region: NDArray[np.uint8] | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What is looked at closely of a large picture: the middle of the object's thickest place."""
    height, width = image.shape[:2]
    y, x = height // 2, width // 2
    if region is not None and max(height, width) > SAMPLE:
        framed = cv2.copyMakeBorder((region != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
        deepest = int(np.argmax(cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]))
        y, x = divmod(deepest, width)
    top, left = (int(np.clip(at - SAMPLE // 2, 0, max(0, full - SAMPLE))) for at, full in ((y, height), (x, width)))
    place = np.s_[top : top + SAMPLE, left : left + SAMPLE]
    return image[place], _inside(image[place], None if region is None else region[place])


def _box(field: Field, inside: NDArray[np.bool_]) -> Field:
    """The field within the region's bounding box."""
    x, y, w, h = cv2.boundingRect(inside.astype(np.uint8))
    return field[y : y + h, x : x + w]


def _light(grey: Field, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Where the lamp most likely is: the side to which the object brightens; from above where it hardly does."""
    y, x = np.nonzero(inside)
    step = max(1, len(y) // 20000)
    y, x = y[::step], x[::step]
    level = grey[y, x]
    scale = max(float(np.ptp(x)), float(np.ptp(y)), 1.0)
    terms = np.stack([np.ones(len(x)), x / scale, y / scale], axis=1)
    # Pattern and highlights would outweigh the shading: what is far from the plane counts less.
    weight: Field = np.ones(len(x))
    slope: Field = np.zeros(3)
    for _ in range(3):
        slope = np.linalg.lstsq(terms * weight[:, None], level * weight, rcond=None)[0]
        rest = np.abs(level - terms @ slope)
        weight = 1 / np.sqrt(1 + (rest / max(float(np.median(rest)), 1.0)) ** 2)
    # Lamps hang above, a little to the left, more often than not.
    to_x, to_y = slope[1] - 0.5 * LIT, slope[2] - 0.8 * LIT
    length = max(float(np.hypot(to_x, to_y)), 1e-6)
    return float(to_x / length), float(to_y / length)


def noise_of(grey: Field, inside: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise in grey levels, after Immerkaer (1996), from the calmer half of the surface."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    rough = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))[inside]
    # For Gaussian noise the lower quartile of |v| lies at 0.319 of its deviation, which is 6 times the noise's.
    return float(np.clip(np.percentile(rough, 25) / (0.319 * 6), 0.0, 6.0))


def _softness(grey: Field, inside: NDArray[np.bool_]) -> float:
    """Deviation in px of the blur at the picture's sharper edges, by the ratio of gradients before and after another
    blur (Zhuo and Sim 2011)."""
    again = 1.0

    def slope(field: Field) -> Field:
        dx, dy = cv2.Sobel(field, cv2.CV_32F, 1, 0), cv2.Sobel(field, cv2.CV_32F, 0, 1)
        return np.asarray(np.hypot(dx, dy), np.float32)

    first = slope(grey)
    # On the edge's crest alone: beside it the ratio says nothing.
    crest = inside & (first > FLAT) & (first >= np.asarray(cv2.dilate(first, np.ones((3, 3), np.uint8))))
    if crest.sum() < 20:
        return 0.8
    strong = crest & (first >= np.percentile(first[crest], 90))
    ratio = first[strong] / np.maximum(slope(blur(grey, again))[strong], 1e-3)
    # The Sobel kernel itself blurs by about 0.7 px across.
    found = again / np.sqrt(np.maximum(ratio**2 - 1, 1e-3))
    return float(np.clip(np.percentile(found, 25) - 0.35, 0.0, SOFTEST))
