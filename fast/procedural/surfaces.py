"""The materials. Each maker returns a `Scene` of (n, n) px in which one px of a 256-px photo is `s` px.

`dye` draws what a product keeps from picture to picture, its colours and make; `rng` draws all the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fast.procedural.camera import Scene, photograph
from fast.procedural.hide import leather
from fast.procedural.made import MADE
from fast.procedural.metals import METALS
from fast.procedural.minerals import MINERALS
from fast.procedural.noise import Rng
from fast.procedural.soft import SOFT
from fast.procedural.woven import fabric, wood
from ldm.errors import UserError

# Side in px of the photo the sizes in this package are given for, and the smallest that can be drawn.
REFERENCE, SMALLEST = 256, 32

MAKERS: dict[str, Callable[[Rng, Rng, int, float], Scene]] = {
    "leather": leather,
    "wood": wood,
    "fabric": fabric,
    **METALS,
    **MINERALS,
    **SOFT,
    **MADE,
}
MATERIALS: tuple[str, ...] = tuple(MAKERS)


def check_material(material: str) -> None:
    """Raise UserError unless the material is one that can be drawn."""
    if material not in MAKERS:
        raise UserError(f"unknown material {material!r}; choose from {', '.join(MATERIALS)}")


def draw_surface(material: str, rng: Rng, size: int = 256, dye: Rng | None = None) -> NDArray[np.uint8]:
    """A photo-like picture of a flawless surface: uint8 (size, size, 3) RGB.

    Pictures drawn with equal `dye` generators show one product: same colours, other light, grain and place.
    """
    check_material(material)
    if size < SMALLEST:
        raise UserError(f"size is {size}; it must be {SMALLEST} or more")
    # Below half the reference size the grain would fall under one px, so small pictures show a smaller piece instead.
    scale = 2 * max(size / REFERENCE, 0.5)
    return photograph(MAKERS[material](rng, dye or rng, 2 * size, scale), size, rng)
