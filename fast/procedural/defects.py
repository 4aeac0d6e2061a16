"""Which flaws there are, what draws each, and on which materials they occur."""

from __future__ import annotations

from fast.procedural.areas import hole, pit
from fast.procedural.broken import broken
from fast.procedural.damage import chip, crease, dent
from fast.procedural.deposits import DEPOSITS
from fast.procedural.fibres import fray, tear, thread
from fast.procedural.finish import uneven
from fast.procedural.lines import crack, scratch
from fast.procedural.site import Painter
from fast.procedural.spall import spall
from fast.procedural.structure import STRUCTURES
from fast.procedural.traits import FAMILIES, TRAITS, Traits
from ldm.errors import UserError

OCCURRING: dict[str, Painter] = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "pit": pit,
    "dent": dent,
    "chip": chip,
    "crease": crease,
    "fray": fray,
    "tear": tear,
    "thread": thread,
    **DEPOSITS,
    **STRUCTURES,
}
# What occurs on the drawn materials, and what `mini` was taught.
DEFECTS: tuple[str, ...] = tuple(OCCURRING)
# All that can be drawn: into photographs by name also what those materials do not have.
PAINTERS: dict[str, Painter] = {**OCCURRING, "break": broken, "spall": spall, "uneven": uneven}
DRAWABLE: tuple[str, ...] = tuple(PAINTERS)
# An area as large as the part may run over the picture's edge; what is broken off lies at the object's.
LARGE, AT_EDGE = ("uneven",), ("break",)
# Types that can be drawn in a given outline; the others are things of their own shape, or pieces of a pattern.
FOLLOWERS = (
    "scratch", "crack", "hole", "pit", "dent", "chip", "crease", "stain", "oil", "burn", "rust", "fade", "bubble",
    "break", "spall", "uneven",
)  # fmt: skip

# What occurs on each family of materials, besides what any surface may have.
ANYWHERE = ("scratch", "hole", "stain", "contamination")
OF_KIND: dict[str, tuple[str, ...]] = {
    "metal": ("crack", "pit", "dent", "chip", "oil", "burn", "rust"),
    "wood": ("crack", "pit", "dent", "chip", "fray", "oil", "burn", "fade"),
    "hide": ("crack", "crease", "fray", "tear", "pit", "oil", "burn", "fade"),
    "cloth": ("crease", "fray", "tear", "thread", "oil", "burn", "fade"),
    "mineral": ("crack", "pit", "chip", "oil", "burn", "fade"),
    "polymer": ("crack", "pit", "dent", "crease", "chip", "tear", "oil", "burn", "fade", "bubble", "misprint"),
    "paint": ("crack", "pit", "dent", "chip", "crease", "oil", "rust", "burn", "fade", "bubble", "misprint"),
    "glass": ("crack", "pit", "chip", "oil", "bubble", "fade"),
    "board": ("crack", "pit", "chip", "oil", "burn", "rust", "bubble", "missing", "doubled", "misprint", "shift"),
    "paper": ("crease", "fray", "tear", "thread", "dent", "oil", "burn", "fade", "misprint"),
}
# What single materials have on top: parts that repeat can be missing, doubled or out of place.
ALSO: dict[str, tuple[str, ...]] = {
    "brushed_metal": ("crease",),
    "rolled_metal": ("crease",),
    "perforated_metal": ("crease", "missing", "doubled", "shift"),
    "mesh": ("missing", "doubled", "shift", "rust"),
    "fabric": ("missing", "doubled", "shift", "misprint"),
    "knit": ("missing", "doubled", "shift"),
    "carpet": ("shift",),
    "stone_tile": ("missing",),
    "ceramic_tile": ("missing", "misprint", "shift"),
}


def traits_named(material: str | Traits) -> Traits:
    """The traits of a material or of a family of them, by name. Raises `UserError`."""
    if isinstance(material, Traits):
        if material.kind not in OF_KIND:
            raise UserError(f"unknown kind of material {material.kind!r}; choose from {', '.join(OF_KIND)}")
        return material
    if material not in TRAITS and material not in FAMILIES:
        families = ", ".join(name for name in FAMILIES if name not in TRAITS)
        raise UserError(f"unknown material {material!r}; choose from {', '.join(TRAITS)}, or a family: {families}")
    return TRAITS[FAMILIES.get(material, material)]


def defects_of(material: str | Traits) -> tuple[str, ...]:
    """The types of defect that occur on a material, in the order of `DEFECTS`."""
    also = () if isinstance(material, Traits) else ALSO.get(material, ())
    found = {*ANYWHERE, *OF_KIND[traits_named(material).kind], *also}
    return tuple(name for name in DEFECTS if name in found)
