"""Names that datasets and inspectors give to defects, and the types that are drawn for them."""

from __future__ import annotations

import re

from fast.procedural.defects import DRAWABLE

# Made where no type is named: what happens to any hard surface.
USUAL = ("scratch", "crack", "dent", "hole", "pit", "chip", "stain", "contamination")
# What datasets and inspectors call them, and the types that look so.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "blowhole": ("hole", "pit"),
    "pore": ("pit",),
    "porosity": ("pit",),
    "pitting": ("spall", "pit"),
    "spalling": ("spall",),
    "flaking": ("spall",),
    "erosion": ("spall",),
    "poke": ("hole",),
    "puncture": ("hole",),
    "cut": ("scratch", "tear"),
    "squeeze": ("dent",),
    "bent": ("crease", "dent"),
    "wrinkle": ("crease",),
    "fold": ("crease",),
    "broken": ("break", "chip", "crack"),
    "breakage": ("break",),
    "edge": ("break", "chip"),
    "rough": ("uneven", "fray", "pit"),
    "unground": ("uneven",),
    "unpolished": ("uneven",),
    "matt": ("uneven",),
    "matte": ("uneven",),
    "mura": ("uneven", "fade"),
    "wear": ("uneven", "scratch"),
    "worn": ("uneven", "scratch"),
    "abrasion": ("uneven", "scratch"),
    "spot": ("stain",),
    "mark": ("stain", "scratch"),
    "smudge": ("stain", "oil"),
    "fingerprint": ("oil",),
    "grease": ("oil", "contamination"),
    "dust": ("contamination",),
    "particle": ("contamination",),
    "inclusion": ("contamination",),
    "foreign": ("contamination",),
    "fibre": ("thread",),
    "fiber": ("thread",),
    "hair": ("thread",),
    "gouge": ("scratch", "dent"),
    "nick": ("chip",),
    "notch": ("break", "chip"),
    "crazing": ("crack",),
    "fissure": ("crack",),
    "dimple": ("dent",),
    "void": ("hole",),
    "cavity": ("hole", "pit"),
    "pinhole": ("pit",),
    "rip": ("tear",),
    "torn": ("tear",),
    "burnt": ("burn",),
    "burned": ("burn",),
    "scorch": ("burn",),
    "color": ("stain", "fade"),
    "colour": ("stain", "fade"),
    "discoloration": ("fade",),
    "liquid": ("stain", "oil"),
    "glue": ("contamination",),
    "dirt": ("contamination", "stain"),
    "corrosion": ("rust",),
    "print": ("misprint",),
    "blister": ("bubble",),
    "cracked": ("crack",),
    "scratched": ("scratch",),
    "chipped": ("chip",),
    "pitted": ("spall", "pit"),
    "rusty": ("rust",),
    "damaged": USUAL,
    "damage": USUAL,
}
# Words that say something else as part of a longer name: where it is (chip_around_edge), what is wrong with a thing
# (cut_lead, bent_wire), which thing it is (thread_side of a screw), how it looks (same_colour_spot).
_ALONE = (
    "edge", "cut", "bent", "thread", "shift", "doubled", "print", "color", "colour", "mark", "damaged", "damage",
)  # fmt: skip
# Words that turn a longer name into its opposite (no_crack), or say that there is nothing to draw (missing_hole).
_NOT = ("no", "non", "not", "without", "free", "ok", "good", "normal", "missing")
_ENDS = (("ies", "y"), ("es", ""), ("s", ""))  # of plurals


def drawn_as(name: str) -> tuple[str, ...]:
    """The types that a defect's name is drawn as; empty where it names nothing to draw.

    A name is a word to draw, one of `SYNONYMS`, or a longer name that holds such words, in any case and in the plural
    too: `scratch_head`, `Scratches` and `metal_contamination` are drawn as scratches and contaminations, `blow-hole` as
    `blowhole`. Of a longer name words of place and manner are not looked at, and of `no_crack` or `missing_hole`
    nothing is drawn.
    """
    if _known(name):
        return _looks(name)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # ScratchHead
    parts = _joined([_singular(part) for part in re.findall(r"[^\W\d_]+", spaced.lower())])
    if len(parts) > 1:
        parts = [] if any(part in _NOT for part in parts) else [part for part in parts if part not in _ALONE]
    return tuple(dict.fromkeys(look for part in parts for look in _looks(part)))


def _known(word: str) -> bool:
    return word in DRAWABLE or word in SYNONYMS


def _looks(word: str) -> tuple[str, ...]:
    return (word,) if word in DRAWABLE else SYNONYMS.get(word, ())


def _singular(part: str) -> str:
    """A word that is known, without the ending of its plural; any other as it is."""
    forms = [part, *(part.removesuffix(end) + instead for end, instead in _ENDS if part.endswith(end))]
    return next((form for form in forms if _known(form)), part)


def _joined(parts: list[str]) -> list[str]:
    """Two words that are one when written together, pin and hole, as one."""
    found: list[str] = []
    for part in parts:
        if found and _known(whole := found[-1] + part):
            found[-1] = whole
        else:
            found.append(part)
    return found
