"""What a defect is drawn into and what drawing one yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fast.data.drawn.noise import Field, Rng, fractal
from fast.data.drawn.shapes import Array


@dataclass
class Site:
    """Where a defect goes: the picture enlarged (h, w, 3) in grey levels, px per photo px, light and grain."""

    picture: Field
    scale: float
    material: str
    light: tuple[float, float]
    grain: float
    grained: bool
    dark: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.picture.shape[0], self.picture.shape[1]

    def spot(self, rng: Rng, margin: float = 0.18) -> Array:
        """A random point (x, y) away from the border."""
        h, w = self.shape
        return np.array([w, h]) * rng.uniform(margin, 1 - margin, 2)

    def noise(self, rng: Rng, cell: float, octaves: int = 3) -> Field:
        """Fractal noise (h, w) with grains of `cell` photo px."""
        h, w = self.shape
        return fractal(rng, max(h, w), cell * self.scale, octaves, 0.6)[:h, :w]


@dataclass
class Change:
    """out = picture * gain + add, both (h, w, 3) or (h, w, 1); `solid` fills the mask's inner gaps."""

    gain: Field
    add: Field
    solid: bool = False


def tinted(field: Field, colour: tuple[float, float, float] = (1, 1, 1)) -> Field:
    return field[..., None] * np.asarray(colour, np.float32)


# What lies under the surface: colour in grey levels, and how light the torn edge is.
BARE = {
    "brushed_metal": (215, 216, 218),
    "leather": (196, 160, 122),
    "wood": (226, 196, 152),
    "fabric": (205, 200, 190),
    "stone_tile": (222, 219, 213),
}
