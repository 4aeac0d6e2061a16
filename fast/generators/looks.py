"""What the types of a part are drawn as: by their names, or as the user says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fast.generators.names import SYNONYMS, drawn_as
from fast.procedural.defects import DRAWABLE
from fast.runtime.options import did_you_mean
from fast.synthesis.options import draft_methods
from ldm.errors import UserError

NO_LOOK = "none"  # of a type that is not to be drawn, though its name says how: drafts of it are real defects


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
    option = shlex.quote(_said(f"{change}.{{name}}=[scratch]", word))
    return UserError(
        f"procedural cannot draw {word!r}{meant}; name one of {', '.join(DRAWABLE)}, or say how it looks: {option}"
    )


def _said(change: str, word: str) -> str:
    """How to say what a type looks like. A name that is no plain word cannot stand in a dotted key."""
    if re.fullmatch(r"[\w-]+", word) or not change.startswith("method."):
        return change.format(name=word)
    key = word if re.fullmatch(r"[\w -]+", word) else json.dumps(word, ensure_ascii=False)
    option, looks = change.split(".{name}=", 1)
    looks, bracket, rest = looks.partition("]")
    return f"{option}={{{key}: {looks}{bracket}}}{rest}"


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


def drawn_otherwise(types: Iterable[str], given: Mapping[str, Any]) -> dict[str, str]:
    """What types "category/type" are drawn as, in words, by name: those that their names make others.

    `given`: the option `looks`, whose types are left out.
    """
    words = dict.fromkeys(key.rpartition("/")[2] for key in types)
    taken = {word: drawn_as(word) for word in words if word not in given}
    return {word: " or ".join(looks) for word, looks in taken.items() if looks not in ((), (word,))}


def looks_notes(types: Sequence[str], given: Mapping[str, Any], change: str) -> list[str]:
    """A line about the types "category/type" that are drawn as others because of their names, and how to change that,
    and one about looks that are given for none of them. `given`: the option `looks`; `change`: how to set it, {name}
    for the type's word."""
    found = []
    if taken := drawn_otherwise(types, given):
        told = "; ".join(f"{word} is drawn as {looks}" for word, looks in taken.items())
        said = _said(change, next(iter(taken)))
        said = shlex.quote(said) if " " in said and change.endswith("]") else said
        found.append(f"note: {told}; if it looks otherwise, say how: {said}")
    words = dict.fromkeys(key.rpartition("/")[2] for key in types)
    if unused := [name for name in given if name not in words]:
        found.append(
            f"note: looks of {', '.join(unused)} are not used: no type here has that name ({', '.join(words)})"
        )
    return found
