"""GLASS's image-level branch, "local anomaly synthesis": a half-transparent texture on the object."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fast.generators.base import Generator
from fast.generators.blend import ImageMask, blend, changed_pair, check_change, check_range, drawn_mask, given_mask
from fast.generators.textures import Textures, augment_glass, grey_as
from fast.masks.foreground import Ground
from fast.masks.perlin import perlin_mask
from ldm.errors import UserError


def combine(first: np.ndarray, second: np.ndarray, draw: float) -> np.ndarray:
    """Two masks in one: the union for a `draw` above 2/3, the intersection above 1/3, else the first alone."""
    if draw > 2 / 3:
        return first | second
    return first & second if draw > 1 / 3 else first


def glass_mask(place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a mask (H,W) uint8 in {0,1} on the foreground `place` (H,W), in {0,1}; it is never empty.

    Raises:
        UserError: when every draw is empty, because the image or the foreground is too small.
    """
    shape = place.shape

    def draw() -> np.ndarray:
        return combine(perlin_mask(shape, rng), perlin_mask(shape, rng), rng.uniform()) & place

    return drawn_mask(draw)


class GLASS(Generator):
    """The branch of GLASS (Chen et al. 2024) that makes pictures: DRAEM's blend with beta ~ N(0.5, 0.1^2), clipped.

    Without a given mask, two Perlin masks are combined and kept on the foreground, and drawn again while no pixel is
    left. The release redraws while its 8 x 8 max-pooled map is empty, which is the same rule, since one pixel fills a
    cell. A given mask is used as it is, on the foreground or not. The method knows no types and learns nothing.

    Args:
        textures: a folder of images. None: textures that the project draws.
        foreground: a rule of `fast.masks.foreground` ("none" for the whole picture), or the path of one mask of the
            object that holds for every image.
        beta: the limits, within [0, 1], that the share of the normal image is clipped to.
        beta_mean, beta_deviation: mean and standard deviation of the normal distribution that this share is drawn from.
        min_change, keep_grey: as for `DRAEM`.

    Raises:
        UserError: when an option is unknown or out of range, or when the folder of textures is missing or holds no
            image.
    """

    name = "glass"

    def __init__(
        self,
        textures: str | None = None,
        foreground: str = "auto",
        beta: Sequence[float] = (0.2, 0.8),
        beta_mean: float = 0.5,
        beta_deviation: float = 0.1,
        min_change: float = 3.0,
        keep_grey: bool = True,
    ):
        self.textures = Textures(textures)
        self.ground = Ground(foreground)
        self.beta = check_range("beta", beta, 0, 1)
        self.beta_mean, self.beta_deviation = float(beta_mean), float(beta_deviation)
        if self.beta_deviation < 0:
            raise UserError(f"beta_deviation={beta_deviation} is negative; give 0 or more")
        self.min_change = check_change(min_change)
        self.keep_grey = bool(keep_grey)

    def synthesize(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> ImageMask:
        """See `Generator.synthesize`; outside the mask every byte is the image's."""
        given = None if mask is None else given_mask(mask, image)
        ground = self.ground.of(image) if given is None else given

        def draw() -> ImageMask:
            place = glass_mask(ground, rng) if given is None else given
            texture = augment_glass(self.textures.draw(image.shape[:2], rng, "crop"), rng)
            texture = grey_as(image, texture) if self.keep_grey else texture
            beta = np.clip(rng.normal(self.beta_mean, self.beta_deviation), *self.beta)
            return blend(image, texture, place, 1 - float(beta)), place

        return changed_pair(draw, image, self.min_change)

    def settings(self) -> dict[str, Any]:
        return {
            "textures": self.textures.settings(),
            "foreground": self.ground.settings(),
            "beta": list(self.beta),
            "beta_mean": self.beta_mean,
            "beta_deviation": self.beta_deviation,
            "min_change": self.min_change,
            "keep_grey": self.keep_grey,
        }
