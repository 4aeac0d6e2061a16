"""Names of defects, and which drawn types look like them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fast.procedural.defects import DRAWABLE
from fast.runtime.options import did_you_mean
from fast.synthesis.options import draft_methods
from ldm.errors import UserError

NO_LOOK = "none"  # of a type that is not to be drawn, though its name says how: drafts of it are real defects
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
    "foreign": ("contamination", "thread"),
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
    "damaged": USUAL,
}
# Pieces of a pattern, and a thread that lies on the part: as part of a longer name (missing_hole, thread_side of a
# screw) they mean something else.
_ALONE = ("missing", "doubled", "shift", "thread", "damaged")
_ENDS = ("es", "s")  # of a plural


Looks = Mapping[str, Sequence[str]]


def place_of_looks(method: str, draft: str = "none") -> str:
    """Where looks stand among the options of a method that starts from a `draft`: of its own `looks`, of what makes the
    drafts `draft_options.looks`; empty where nothing is drawn."""
    if method == "procedural":
        return "looks"
    return "draft_options.looks" if "procedural" in draft_methods(draft) else ""


def with_looks(method: str, options: Mapping[str, Any], looks: Looks) -> dict[str, Any]:
    """A method's options, and among them what its types are drawn as, where anything is drawn and nothing said yet."""
    place, given = place_of_looks(method, options.get("draft", "none")), dict(options)
    own = {"looks": {name: list(types) for name, types in looks.items()}} if looks and place else {}
    if place != "looks" and own:
        return {**given, "draft_options": {**own, **given.get("draft_options", {})}}
    return {**own, **given}


def looks_among(method: str, options: Mapping[str, Any]) -> Looks | None:
    """What the options say that types are drawn as; None where nothing is drawn."""
    place = place_of_looks(method, options.get("draft", "none"))
    if not place:
        return None
    return (options if place == "looks" else options.get("draft_options", {})).get("looks") or {}


def drawn_as(word: str) -> tuple[str, ...]:
    """The types that a defect's name is drawn as; empty where it names nothing to draw.

    A name is a type to draw or one of `SYNONYMS`, whatever its case, or holds such words, also in the plural:
    `scratch_head`, `Scratches` and `metal_contamination` are drawn as scratches and contaminations.
    """
    if word in DRAWABLE:
        return (word,)
    parts = re.findall(r"[^\W\d_]+", word.lower())
    found = [_named(part) for part in parts if len(parts) == 1 or _singular(part) not in _ALONE]
    return tuple(dict.fromkeys(look for looks in found for look in looks))


def _named(part: str) -> tuple[str, ...]:
    name = _singular(part)
    return (name,) if name in DRAWABLE else SYNONYMS.get(name, ())


def _singular(part: str) -> str:
    """A word that is known, without the ending of its plural; any other as it is."""
    forms = [part, *(part.removesuffix(end) for end in _ENDS)]
    return next((form for form in forms if form in DRAWABLE or form in SYNONYMS), part)


def undrawable(types: Iterable[str], own: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of the types "category/type" or "type" that nothing is drawn for, each once. `own`: the looks given, as
    `own_looks` returns them; of a word that is to have none, nothing is drawn whatever it says."""
    words = dict.fromkeys(key.rpartition("/")[2] for key in types)
    return [word for word in words if not own.get(word, drawn_as(word))]


def cannot_draw(word: str, own: Iterable[str] = (), change: str = "method.looks") -> UserError:
    """What to say of a type's word that names nothing to draw. `own`: the words that have looks; `change`: the option
    that gives a word some."""
    if word in own:
        return UserError(f"{change}.{word}={NO_LOOK} says that {word} is not drawn; leave that out, or the type")
    meant = did_you_mean(word, [*DRAWABLE, *SYNONYMS, *own])
    option = shlex.quote(f"{change}.{word}=[scratch]")
    return UserError(
        f"procedural cannot draw {word!r}{meant}; name one of {', '.join(DRAWABLE)}, or say how it looks: {option}"
    )


def own_looks(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The option `looks`, checked; a type whose look is `NO_LOOK` gets an empty one. Raises `UserError`."""
    if not isinstance(given, Mapping):
        raise UserError(f"looks={given} must say types by name, as in looks.blowhole=[hole,pit]")
    found: dict[str, tuple[str, ...]] = {}
    for name, types in given.items():
        listed = (types,) if isinstance(types, str) else tuple(types) if isinstance(types, list | tuple) else ()
        if listed == (NO_LOOK,):
            found[str(name)] = ()
            continue
        if not listed or any(word not in DRAWABLE for word in listed):
            meant = "".join(did_you_mean(str(word), DRAWABLE) for word in listed if word not in DRAWABLE)
            able = f"{', '.join(DRAWABLE)}, or {NO_LOOK}"
            raise UserError(f"looks.{name}={types}{meant} must be a list of types to draw, of {able}")
        found[str(name)] = listed
    return found


def given_looks(texts: Iterable[str]) -> dict[str, list[str]]:
    """The option `looks` of flags `--looks TYPE=A,B`, checked. Raises `UserError`."""
    looks = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise UserError(f"--looks {text} is not TYPE=A,B; see --help")
        looks[name] = value.split(",")
    own_looks(looks)
    return looks


def looks_notes(types: Iterable[str], given: Mapping[str, Any], change: str) -> list[str]:
    """A line about the types "category/type" that are drawn as others because of their names, and how to change that,
    and one about looks that are given for none of them. `given`: the option `looks`; `change`: how to set it, {name}
    for the type's word."""
    words = dict.fromkeys(key.rpartition("/")[2] for key in types)
    taken = [word for word in words if word not in given and drawn_as(word) not in ((), (word,))]
    found = []
    if taken:
        told = "; ".join(f"{word} is drawn as {' or '.join(drawn_as(word))}" for word in taken)
        found.append(f"note: {told}; if it looks otherwise, say how: {change.format(name=taken[0])}")
    if unused := [name for name in given if name not in words]:
        found.append(
            f"note: looks of {', '.join(unused)} are not used: no type here has that name ({', '.join(words)})"
        )
    return found
