"""How like a real defect a synthetic one is, pixel by pixel: a generator that learned its few examples by heart, or
pasted them, is found out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE = 48  # of a canvas, in pixels; a larger defect is shrunk by a whole factor
SHIFT = 2  # pixels of a canvas that two defects are moved about each other
LEAST = 24  # pixels of a canvas that two defects must share
OVERLAP = 1 / 3  # least intersection over union of their shapes
FLAT = 1.0  # grey levels: a defect that varies less shows nothing to recognize
PARTS = 4  # regions looked at of one real picture, the largest


@dataclass(frozen=True)
class TruePart:
    """One region of a mask: luminance float32 (h,w) of its bounding box, and which of its pixels belong to it."""

    grey: Floats
    own: NDArray[np.bool_]

    @property
    def factor(self) -> int:
        """The least whole number by which it must be shrunk to fit a canvas."""
        return -(-max(self.own.shape) // (SIDE - 2 * SHIFT))


def parts(image: np.ndarray, mask: np.ndarray, count: int = PARTS) -> list[TruePart]:
    """The `count` largest 8-connected regions of a picture uint8 (H,W,3) and its mask (H,W), nonzero = defect."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((mask != 0).astype(np.uint8), connectivity=8)
    order = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:count]
    found = []
    for k in order:
        left, top, width, height = stats[k, :4]
        box = slice(top, top + height), slice(left, left + width)
        grey = cv2.cvtColor(np.ascontiguousarray(image[box]), cv2.COLOR_RGB2GRAY)
        found.append(TruePart(grey.astype(np.float32), labels[box] == k))
    return found


@dataclass(frozen=True)
class Canvases:
    """Defects laid out alike, (N, SIDE**2): 1 where a pixel belongs to one, its value less the mean, its square."""

    own: Floats
    value: Floats
    square: Floats

    @classmethod
    def of(cls, layers: Sequence[tuple[Floats, Floats]]) -> Canvases:
        own = np.stack([a for a, _ in layers]).reshape(len(layers), -1)
        value = np.stack([b for _, b in layers]).reshape(len(layers), -1)
        return cls(own, value, np.square(value))


def _canvas(part: TruePart, factor: int) -> tuple[Floats, Floats]:
    """own and value (SIDE,SIDE) of a part, its box in the middle; a shrunk pixel is the mean of those that belong to
    the part, so a hairline keeps its darkness. What does not fit is cut off around the middle."""
    pad = [(0, -side % factor) for side in part.own.shape]
    own = np.pad(part.own, pad).astype(np.float32)
    value = np.pad(part.grey, pad) * own
    if factor > 1:
        shape = (own.shape[1] // factor, own.shape[0] // factor)
        own, value = (np.asarray(cv2.resize(x, shape, interpolation=cv2.INTER_AREA), np.float32) for x in (own, value))
    inside = own > 0
    value = np.where(inside, value / np.where(inside, own, 1), 0)
    layers = inside.astype(np.float32), np.where(inside, value - value[inside].mean(), 0).astype(np.float32)
    first, second = (_middle(x) for x in layers)
    return first, second


def _middle(x: Floats) -> Floats:
    for axis, side in enumerate(x.shape):
        cut = max(0, side - SIDE)
        x = np.take(x, range(cut // 2, side - (cut - cut // 2)), axis=axis)
    before = [(SIDE - side) // 2 for side in x.shape]
    return np.pad(x, [(b, SIDE - side - b) for b, side in zip(before, x.shape, strict=True)])


@dataclass
class DefectGallery:
    """Real defects that synthetic ones are compared with; `owners` numbers the picture that each comes from."""

    parts: list[TruePart] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    _ready: dict[int, Canvases] = field(default_factory=dict)

    def add(self, image: np.ndarray, mask: np.ndarray, owner: int) -> None:
        found = parts(image, mask)
        self.parts += found
        self.owners += [owner] * len(found)
        self._ready.clear()

    def nearest(self, image: np.ndarray, mask: np.ndarray, but: int | None = None) -> tuple[float, int] | None:
        """Likeness of a picture's largest region to the most alike of these defects.

        The likeness is the normalized cross-correlation of the luminance of the pixels that both shapes hold, with the
        middles of their boxes laid on each other. The best of shifts by up to `SHIFT` pixels and of the 8 turns and
        flips counts. 1 is a copy, of whatever brightness and contrast, and about 0 is nothing alike. It is 0 where no
        shape fits or nothing shows.

        Args:
            image, mask: the picture, uint8 (H,W,3), and its mask (H,W), nonzero = defect.
            but: an owner whose defects are left out.

        Returns:
            The likeness and the owner of the nearest defect. None when the region has fewer than `LEAST` pixels, or
            there is nothing to compare it with.
        """
        own = parts(image, mask, 1)
        left_out = np.array([owner == but for owner in self.owners], bool)
        if not own or own[0].own.sum() < LEAST or left_out.all():
            return None
        factor = own[0].factor
        likeness = _likeness(_moved(own[0], factor), self._canvases(factor)).reshape(-1, 8).max(1)
        likeness[left_out] = -1
        best = int(likeness.argmax())
        return float(likeness[best]), self.owners[best]

    def _canvases(self, factor: int) -> Canvases:
        if factor not in self._ready:
            layers = [_canvas(part, factor) for part in self.parts]
            turned = [tuple(_turned(x, k) for x in pair) for pair in layers for k in range(8)]
            self._ready[factor] = Canvases.of([(a, b) for a, b in turned])
        return self._ready[factor]


def _turned(x: Floats, k: int) -> Floats:
    return np.rot90(x if k < 4 else x[:, ::-1], k % 4)


def _moved(part: TruePart, factor: int) -> Canvases:
    own, value = _canvas(part, factor)
    reach = range(-SHIFT, SHIFT + 1)
    # The part leaves a rim of SHIFT pixels free: nothing comes in again at the other side.
    return Canvases.of([(np.roll(own, (i, j), (0, 1)), np.roll(value, (i, j), (0, 1))) for i in reach for j in reach])


def _likeness(a: Canvases, b: Canvases) -> Floats:
    """Best normalized cross-correlation (N,) of any of `a` with each of `b`, over the pixels that both own (Padfield
    2012, with sums in place of Fourier transforms); 0 where they fit badly."""
    both = a.own @ b.own.T
    union = a.own.sum(1)[:, None] + b.own.sum(1) - both
    count = np.maximum(both, 1)
    mean_a, mean_b = a.value @ b.own.T / count, a.own @ b.value.T / count
    spread_a = a.square @ b.own.T / count - mean_a**2
    spread_b = a.own @ b.square.T / count - mean_b**2
    fits = (both >= LEAST) & (both >= OVERLAP * union) & (np.minimum(spread_a, spread_b) >= FLAT**2)
    shared = a.value @ b.value.T / count - mean_a * mean_b
    alike = shared / np.sqrt(np.where(fits, spread_a * spread_b, 1))
    return np.asarray(np.where(fits, alike, 0).max(0).clip(0, 1), np.float32)
