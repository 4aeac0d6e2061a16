"""What a defect has to know of a material: how hard, rough and shiny it is, and what lies under its surface."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Traits:
    """`kind`: the family whose defects it shares, one of KINDS. `bare`: colour under the surface, in grey levels.

    From 0 to 1: `hard`, how cleanly edges break (1: glass, steel); `rough`, how ragged outlines are; `gloss`, how
    strongly edges that face the light shine; `soaks`, how far liquids spread into it instead of standing on it.
    """

    kind: str
    bare: Colour
    hard: float
    rough: float
    gloss: float
    soaks: float


KINDS = ("metal", "wood", "hide", "cloth", "mineral", "polymer", "paint", "glass", "board", "paper")

TRAITS: dict[str, Traits] = {
    "brushed_metal": Traits("metal", (215, 216, 218), 1.0, 0.09, 1.0, 0.0),
    "cast_metal": Traits("metal", (190, 190, 188), 0.9, 0.25, 0.6, 0.1),
    "milled_metal": Traits("metal", (220, 221, 224), 1.0, 0.08, 1.0, 0.0),
    "rolled_metal": Traits("metal", (212, 214, 216), 0.95, 0.1, 0.8, 0.0),
    "turned_metal": Traits("metal", (218, 218, 220), 1.0, 0.08, 1.0, 0.0),
    "perforated_metal": Traits("metal", (210, 211, 213), 0.95, 0.1, 0.8, 0.0),
    "sintered_metal": Traits("metal", (150, 150, 150), 0.9, 0.3, 0.3, 0.1),
    "wood": Traits("wood", (226, 196, 152), 0.5, 0.22, 0.25, 0.7),
    "chipboard": Traits("wood", (222, 196, 156), 0.4, 0.35, 0.1, 0.8),
    "leather": Traits("hide", (196, 160, 122), 0.3, 0.2, 0.35, 0.6),
    "fabric": Traits("cloth", (205, 200, 190), 0.1, 0.26, 0.05, 1.0),
    "mesh": Traits("cloth", (200, 200, 198), 0.3, 0.2, 0.3, 0.2),
    "carpet": Traits("cloth", (190, 184, 172), 0.05, 0.4, 0.0, 1.0),
    "knit": Traits("cloth", (210, 204, 196), 0.1, 0.3, 0.05, 1.0),
    "stone_tile": Traits("mineral", (222, 219, 213), 0.9, 0.34, 0.4, 0.3),
    "ceramic_tile": Traits("mineral", (214, 196, 176), 0.95, 0.25, 0.7, 0.05),
    "marble": Traits("mineral", (232, 230, 226), 0.9, 0.3, 0.6, 0.2),
    "concrete": Traits("mineral", (186, 182, 176), 0.8, 0.4, 0.05, 0.8),
    "rubber": Traits("polymer", (70, 70, 72), 0.2, 0.15, 0.3, 0.0),
    "plastic": Traits("polymer", (228, 226, 222), 0.6, 0.12, 0.6, 0.0),
    "foam": Traits("polymer", (226, 222, 206), 0.1, 0.35, 0.05, 0.8),
    "painted": Traits("paint", (176, 174, 170), 0.7, 0.2, 0.7, 0.0),
    "glass": Traits("glass", (226, 236, 234), 1.0, 0.1, 1.0, 0.0),
    "circuit_board": Traits("board", (196, 170, 120), 0.7, 0.15, 0.5, 0.0),
    "cardboard": Traits("paper", (214, 196, 164), 0.15, 0.35, 0.0, 1.0),
}

# What the name of a family stands for: one material of it.
FAMILIES = {
    "metal": "rolled_metal",
    "wood": "wood",
    "hide": "leather",
    "cloth": "fabric",
    "mineral": "stone_tile",
    "polymer": "plastic",
    "paint": "painted",
    "glass": "glass",
    "board": "circuit_board",
    "paper": "cardboard",
}

# Drawn as the others are, but never trained on: what the shipped base is judged by.
HELD_APART = ("milled_metal", "marble", "rubber", "knit")
