"""DRAEM's synthesis: a textured, partly transparent patch in the shape of thresholded noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fast.generators.base import Generator
from fast.generators.blend import ImageMask, blend, changed_pair, check_change, check_range, drawn_mask, given_mask
from fast.generators.textures import Textures, augment_draem, grey_as
from fast.masks.perlin import perlin_mask


class DRAEM(Generator):
    """DRAEM (Zavrtanik et al. 2021): an augmented, partly transparent texture laid over the picture in a noise mask.

    A pair's image is I' = (1 - M) I + M [(1 - beta) A + beta I], with the normal picture I, the mask M, the texture A
    and beta ~ U(`beta`). Without a given mask, M is a Perlin mask, redrawn while it is empty. The method knows no types
    and learns nothing.

    Two things of the release serve its detector and are not offered: half of its items are normal pictures with an
    empty mask, and 3 of 10 pictures are turned, with black corners.

    Args:
        textures: a folder of images. None: textures that the project draws.
        beta: range of the share of the normal image, within [0, 1].
        min_change: the least mean absolute difference inside the mask, in grey levels. A pair below it is drawn anew,
            and if 20 draws stay below, the one that changes most is kept. 0: none is drawn anew, as published.
        keep_grey: True takes the colours out of the texture for a picture without colours. False keeps them, as
            published, where colour gives the defect away.

    Raises:
        UserError: when an option is out of range, or when the folder of textures is missing or holds no image.
    """

    name = "draem"

    def __init__(
        self,
        textures: str | None = None,
        beta: Sequence[float] = (0.0, 0.8),
        min_change: float = 3.0,
        keep_grey: bool = True,
    ):
        self.textures = Textures(textures)
        self.beta = check_range("beta", beta, 0, 1)
        self.min_change = check_change(min_change)
        self.keep_grey = bool(keep_grey)

    def synthesize(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> ImageMask:
        """See `Generator.synthesize`; outside the mask every byte is the image's."""
        given = None if mask is None else given_mask(mask, image)
        shape = image.shape[:2]

        def draw() -> ImageMask:
            place = drawn_mask(lambda: perlin_mask(shape, rng)) if given is None else given
            texture = augment_draem(self.textures.draw(shape, rng), rng)
            texture = grey_as(image, texture) if self.keep_grey else texture
            return blend(image, texture, place, 1 - rng.uniform(*self.beta)), place

        return changed_pair(draw, image, self.min_change)

    def settings(self) -> dict[str, Any]:
        return {
            "textures": self.textures.settings(),
            "beta": list(self.beta),
            "min_change": self.min_change,
            "keep_grey": self.keep_grey,
        }
