"""Do two photographs show one part? Whatever the light, the shift, the quarter turn: where places agree."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE, SMALL = 128, 32  # pixels of a side at which places are compared, and whole pictures
CLIP = 3.0  # standard deviations: one bright edge does not decide
SPECTRA = 0.88  # least likeness of spectra; 99 % of the pairs of pictures of one magnetic tile that agree are above it
WHOLE = 0.6  # least correlation of small pictures
WINDOW, STEP = 9, 4  # pixels of SIDE: side of the places that are compared one by one, and from one to the next
DISAGREE, AGREE = 10, 0.1  # at most so many percent of the places may correlate less than that
OVERLAP = 0.5  # least share of the picture that two have in common
CLEAR = 0.95  # most that pictures may correlate more than `WINDOW` pixels away from where they do best, as a share
FLAT = 0.25  # variance, squared grey levels: where both pictures have less there is nothing to compare
COMPARED = 0.25  # least share of the places that are not flat


@dataclass(frozen=True)
class Print:
    """What photographs of a part have in common: `detail` float16 (SIDE,SIDE), grey levels without light and shade;
    `whole` float32 (SMALL,SMALL), the same coarser, clipped, faded at the border, of norm 1 or all zeros."""

    detail: NDArray[np.float16]
    whole: Floats

    @classmethod
    def of(cls, image: np.ndarray) -> Print:
        """Of a picture uint8 (H,W,3), made square."""
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        detail = _band(grey, SIDE, 0.7, 3.0)
        coarse = _band(grey, 2 * SMALL, 0.67, 4.0)
        limit = CLIP * float(coarse.std())
        coarse = np.clip(coarse, -limit, limit)
        fade = np.hanning(2 * SMALL + 2)[1:-1]
        coarse = ((coarse - coarse.mean()) * np.outer(fade, fade) ** 0.25).astype(np.float32)
        return cls(detail.astype(np.float16), _normed(cv2.resize(coarse, (SMALL, SMALL), interpolation=cv2.INTER_AREA)))


def spectra(wholes: Floats) -> list[Floats]:
    """Spectra (N,k) of norm 1 of small pictures (N,SMALL,SMALL), which shifts and half turns hardly change: laid down
    as they are, turned by a quarter, mirrored, both."""
    found = []
    for way in (0, 1, 4, 5):
        values = np.abs(np.fft.rfft2(_laid(wholes, way))).reshape(len(wholes), -1).astype(np.float32)
        found.append(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
    return found


def correlation(one: Floats, other: Floats) -> tuple[float, int]:
    """The greatest correlation of two small pictures of norm 1 at any shift, wrapping around, and the one of eight ways
    to lay the other down that has it."""
    spectrum = np.fft.rfft2(one)
    values = [float(np.fft.irfft2(spectrum * np.fft.rfft2(_laid(other, way)).conj()).max()) for way in range(8)]
    best = int(np.argmax(values))
    return values[best], best


def agreement(one: Print, other: Print, way: int) -> tuple[float, float]:
    """The correlation of places, in the `DISAGREE`th percentile and in the median, of two pictures laid on each other
    as they correlate best, the other laid down in a `way`. (-1, -1) where that place is not clear, or too little can be
    compared."""
    common = _overlap(one.detail.astype(np.float32), _laid(other.detail.astype(np.float32), way))
    if common is None:
        return -1.0, -1.0
    a, b = common

    def mean(x: Floats) -> Floats:
        return cv2.blur(x, (WINDOW, WINDOW)).astype(np.float32)[inside, inside]

    inside = slice(WINDOW // 2, -(WINDOW // 2), STEP)
    spread_a, spread_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    both = mean(a * b) - mean(a) * mean(b)
    shown = (spread_a > FLAT) | (spread_b > FLAT)
    if shown.mean() < COMPARED:
        return -1.0, -1.0
    places = both[shown] / np.sqrt(np.maximum(spread_a[shown], 1e-3) * np.maximum(spread_b[shown], 1e-3))
    return float(np.percentile(places, DISAGREE)), float(np.median(places))


def _overlap(a: Floats, b: Floats) -> tuple[Floats, Floats] | None:
    """What two pictures have in common at the shift at which they correlate best. None where they correlate about as
    much at another: by a pattern, which says nothing of the part."""
    one, other = _clipped(a), _clipped(b)
    flat = np.ones_like(one)

    def at_all_shifts(x: Floats, y: Floats) -> Floats:
        size = [2 * SIDE, 2 * SIDE]  # padded: no shift wraps around
        return np.fft.irfft2(np.fft.rfft2(x, size) * np.fft.rfft2(y, size).conj(), size).astype(np.float32)

    energy = np.maximum(at_all_shifts(one**2, flat), 1e-3) * np.maximum(at_all_shifts(flat, other**2), 1e-3)
    found = at_all_shifts(one, other) / np.sqrt(energy)
    found[at_all_shifts(flat, flat) < OVERLAP * SIDE * SIDE] = -1
    best = float(found.max())
    down, right = divmod(int(found.argmax()), 2 * SIDE)
    around = np.roll(found, (WINDOW - down, WINDOW - right), (0, 1))
    around[: 2 * WINDOW + 1, : 2 * WINDOW + 1] = -1
    if around.max() > CLEAR * best:
        return None
    down, right = (k - 2 * SIDE if k >= SIDE else k for k in (down, right))
    return np.ascontiguousarray(a[_part(down, right)]), np.ascontiguousarray(b[_part(-down, -right)])


def _part(down: int, right: int) -> tuple[slice, slice]:
    """What of a picture is left in the frame of one that lies further down and to the right by so much."""
    rows, columns = (slice(k, SIDE) if k > 0 else slice(0, SIDE + k) for k in (down, right))
    return rows, columns


def _clipped(picture: Floats) -> Floats:
    limit = CLIP * float(picture.std())
    return np.clip(picture, -limit, limit)


def _laid(pictures: Floats, way: int) -> Floats:
    """Square pictures (...,n,n) turned by `way` quarters; from 4 on their mirror images."""
    return np.rot90(pictures[..., ::-1] if way >= 4 else pictures, way % 4, (-2, -1))


def _band(grey: np.ndarray, side: int, fine: float, coarse: float) -> Floats:
    """A picture made square, without what two blurs of these standard deviations, in its pixels, do not tell apart."""
    small = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.GaussianBlur(small, (0, 0), fine) - cv2.GaussianBlur(small, (0, 0), coarse)


def _normed(picture: Floats) -> Floats:
    norm = np.float32(np.linalg.norm(picture))
    return picture / norm if norm > 0 else np.zeros_like(picture)
