"""Random views of an image and its mask: windows, turns, mirrors, zoom, warps and grey levels.

A transform takes image uint8 (H,W,3), mask uint8 (H,W), 1 defect and 255 ignored, and the generator that everything
random is drawn from, and returns another image and mask. It changes none of its arguments. The order of the draws is
part of what keeps a resumed training's bytes equal to an unbroken one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from fast.data.images import resize_image, resize_labels
from fast.data.mask_looks import IGNORED
from fast.windows.regions import Region, cut
from ldm.errors import UserError

Views = tuple[np.ndarray, np.ndarray]
Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], Views]
KEPT = 90  # of 255: from here on a pixel of a warped mask is defect, so that a line one pixel wide stays whole


def apply(transforms: Iterable[Transform], image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
    """Image and mask after all transforms, one after another."""
    for transform in transforms:
        image, mask = transform(image, mask, rng)
    return image, mask


@dataclass(frozen=True)
class Augment:
    """Options of a recipe. `flips`: mirror and turn by right angles; `zoom`: smallest share of a side that a random
    window keeps. Raises `UserError` for a zoom outside 0.1..1."""

    flips: bool = False
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.zoom <= 1:
            raise UserError(f"data augment.zoom={self.zoom} lies outside 0.1..1")


def flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
    """Turned by a random number of right angles and, every other time, mirrored."""
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    return (image[:, ::-1], mask[:, ::-1]) if mirror else (image, mask)


@dataclass(frozen=True)
class Zoom:
    """A random window that keeps a share of each side, from `least` to 1, and some of the defect, if there is any."""

    least: float

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        share = rng.uniform(self.least, 1.0)
        size = [max(8, round(side * share)) for side in mask.shape]
        at = [int(rng.integers(side - s + 1)) for side, s in zip(mask.shape, size, strict=True)]
        if (mask == 1).any():
            y, x = rng.choice(np.argwhere(mask == 1))
            for axis, point in enumerate((y, x)):
                low = max(0, point - size[axis] + 1)
                high = min(point, mask.shape[axis] - size[axis])
                at[axis] = int(np.clip(at[axis], low, high))
        rows, cols = slice(at[0], at[0] + size[0]), slice(at[1], at[1] + size[1])
        return image[rows, cols], mask[rows, cols]


@dataclass(frozen=True)
class Resize:
    """A square of `size` pixels a side; a mask's pixel is defect if any source pixel that it overlaps is."""

    size: int

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None) -> Views:
        return resize_image(np.ascontiguousarray(image), self.size), resize_labels(mask, self.size)


@dataclass(frozen=True)
class Crop:
    """A window of `size` pixels a side, anywhere in an image that is at least as large."""

    size: int

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        y, x = (int(rng.integers(side - self.size + 1)) for side in mask.shape)
        return image[y : y + self.size, x : x + self.size], mask[y : y + self.size, x : x + self.size]


@dataclass(frozen=True)
class Window:
    """A window of `size` pixels a side; with probability `on_defect` it holds a defect pixel, if there is any, and
    otherwise lies anywhere. An image smaller than that is mirrored at its edge."""

    size: int
    on_defect: float = 1.0

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        points = np.argwhere(mask == 1) if self.on_defect == 1 or rng.random() < self.on_defect else ()
        point = points[rng.integers(len(points))] if len(points) else rng.integers(mask.shape)
        return self._at(image, mask, point - rng.integers(self.size, size=2))

    def still(self, image: np.ndarray, mask: np.ndarray) -> Views:
        """Without chance: centred on the middle one of the defect pixels, or on the image's centre."""
        points = np.argwhere(mask == 1)
        point = points[len(points) // 2] if len(points) else np.array(mask.shape) // 2
        return self._at(image, mask, point - self.size // 2)

    def _at(self, image: np.ndarray, mask: np.ndarray, corner: np.ndarray) -> Views:
        top, left = (int(v) for v in np.clip(corner, 0, np.maximum(np.array(mask.shape) - self.size, 0)))
        region = Region(top, left, self.size, self.size, mask)
        return cut(image, region), cut(mask, region)


@dataclass(frozen=True)
class GreyLevels:
    """Another contrast about the image's mean, by a factor of 1 +- `contrast` at most, and another brightness, by
    `brightness` levels of 255 at most."""

    contrast: float
    brightness: float

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        factor = rng.uniform(1 - self.contrast, 1 + self.contrast)
        offset = rng.uniform(-self.brightness, self.brightness)
        mean = float(image.mean())
        levels = np.clip((np.arange(256) - mean) * factor + mean + offset, 0, 255)
        return np.rint(levels).astype(np.uint8)[image], mask


@dataclass(frozen=True)
class Classical:
    """Classical augmentation: a random affine view about the centre, then other grey levels. The edge is mirrored where
    nothing lies.

    `angle`: largest turn in degrees, either way; `right_angles`: quarter turns and mirrors beside it. `scale`: least
    and largest factor; `shift`: largest share of a side; `contrast`, `brightness`: see `GreyLevels`.
    """

    angle: float = 180.0
    right_angles: bool = True
    scale: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1
    contrast: float = 0.15
    brightness: float = 20.0

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        turned = (flip,) if self.right_angles and image.shape[0] == image.shape[1] else ()
        return apply((*turned, self._warped, GreyLevels(self.contrast, self.brightness)), image, mask, rng)

    def _warped(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Views:
        image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
        height, width = mask.shape
        angle = rng.uniform(-self.angle, self.angle)
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += rng.uniform(-self.shift, self.shift, 2) * np.array([width, height])
        edge = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REFLECT_101}

        def warped(of: np.ndarray) -> np.ndarray:
            return np.asarray(cv2.warpAffine(of, matrix, (width, height), **edge))  # type: ignore[call-overload]

        defect, ignored = mask == 1, mask == IGNORED
        turned = warped(defect * np.uint8(255))
        if defect.any() and turned.max() < KEPT:  # shifted out of sight: leave the place as it was
            return image, mask
        labels = (turned >= KEPT).astype(np.uint8)
        if ignored.any():
            labels[(warped(ignored * np.uint8(255)) >= KEPT) & (labels == 0)] = IGNORED
        return warped(image), labels


# "upright": for parts that lie one way only, such as a print or a connector.
AUGMENTATIONS = {
    "classical": Classical(),
    "upright": Classical(angle=8.0, right_angles=False),
}
AUGMENT = ("none", "light", *AUGMENTATIONS)
LIGHT_ZOOM, LIGHT_LEVELS = Zoom(0.8), GreyLevels(0.2, 20.0)


def augmentation(name: str, size: int, native: bool = False) -> tuple[Transform, ...]:
    """The transforms of one of `AUGMENT`, for images of `size` pixels a side; "light": flipped, turned by right angles,
    zoomed in a little (not with `native`, which keeps the scale), brighter or darker. Raises `UserError`."""
    if name not in AUGMENT:
        raise UserError(f"augment={name} is unknown; use one of {', '.join(AUGMENT)}")
    if name == "none":
        return ()
    if name in AUGMENTATIONS:
        return (AUGMENTATIONS[name],)
    return (flip, LIGHT_LEVELS) if native else (LIGHT_ZOOM, flip, Resize(size), LIGHT_LEVELS)
