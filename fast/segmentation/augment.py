"""Classical augmentation of training images and masks: turns, mirrors, scale, shift and grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fast.data.mask_looks import IGNORED
from fast.data.views import Augment

KEPT = 90  # of 255: from here on a pixel of a warped mask is defect, so that a line one pixel wide stays whole


@dataclass(frozen=True)
class Classical:
    """A random affine view about the centre, then other grey levels. The edge is mirrored where nothing lies.

    `angle`: largest turn in degrees, either way; `right_angles`: quarter turns and mirrors beside it. `scale`: least
    and largest factor; `shift`: largest share of a side; `contrast`: largest relative change about the image's mean,
    `brightness`: largest change in levels of 255.
    """

    angle: float = 180.0
    right_angles: bool = True
    scale: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1
    contrast: float = 0.15
    brightness: float = 20.0

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 (H,W,3), labels uint8 (H,W), 1 defect and 255 ignored -> another view of both, the same size."""
        if self.right_angles and image.shape[0] == image.shape[1]:
            image, mask = Augment(flips=True)(image, mask, rng)
        image, mask = self._warped(np.ascontiguousarray(image), np.ascontiguousarray(mask), rng)
        return grey_levels(image, rng, self.contrast, self.brightness), mask

    def _warped(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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


def grey_levels(image: np.ndarray, rng: np.random.Generator, contrast: float, brightness: float) -> np.ndarray:
    """uint8 (H,W,3) with another contrast, about the image's mean, and another brightness."""
    factor = rng.uniform(1 - contrast, 1 + contrast)
    offset = rng.uniform(-brightness, brightness)
    mean = float(image.mean())
    levels = np.clip((np.arange(256) - mean) * factor + mean + offset, 0, 255)
    return np.rint(levels).astype(np.uint8)[image]


# "upright": for parts that lie one way only, such as a print or a connector.
AUGMENTATIONS = {
    "classical": Classical(),
    "upright": Classical(angle=8.0, right_angles=False),
}
AUGMENT = ("none", "light", *AUGMENTATIONS)
