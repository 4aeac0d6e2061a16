"""The rows of `few_defects`, as its command line names them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from fast.bench.placeholders import SEED
from fast.generators import FREE, LATENT, arguments_of, create
from ldm.errors import UserError
from ldm.util import check_params

if TYPE_CHECKING:
    from fast.bench.rows import Row

# Keep their defects on the object; these parts are measured as they fill the image.
PLACED = ("procedural", "transplant")
OF_DRAFTS = "draft_options."  # before an option of what makes a row's drafts


def rows_of(options: argparse.Namespace) -> dict[str, Row]:
    """The rows by label. UserError where a label, method or option is none."""
    asked = _asked(options)  # refused before what takes long to import
    from fast.bench.rows import Row
    from fast.generators.latent import check_options

    for row in asked.values():
        if row.get("method") in LATENT:
            check_options(row["method"], row["options"])
    rows = {label: Row(**row) for label, row in asked.items()}
    if options.looks and all(row.looks is None for row in rows.values()):
        raise UserError(f"--looks {options.looks[0]} says what is drawn, and no row draws anything; leave it out")
    return rows


def _asked(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The arguments of each label's `Row`. UserError where a label, method or option is none."""
    from fast.generators.looks import given_looks

    looks = given_looks(options.looks)
    rows: dict[str, dict[str, Any]] = {name: _row(name, "--methods", {}, looks) for name in options.methods}
    for flag in ("row", "folder", "mix"):
        for label, _ in (_pair(f"--{flag}", text) for text in getattr(options, flag)):
            _check_label(label, flag, options)
    for text in options.row:
        label, value = _pair("--row", text)
        method, *given = re.split(r",(?![^\[]*\])", value)
        pairs = dict(_pair(f"--row {text}:", item) for item in given)
        rows[label] = _row(method, f"--row {text}", {k: _value(v) for k, v in pairs.items()}, looks)
    for label, folder in (_pair("--folder", text) for text in options.folder):
        if options.nested and options.nested > 1 and SEED not in folder:
            raise UserError(f"--folder {label}={folder}: each nested split needs pairs of its own; write {SEED} for "
                            "its number")  # fmt: skip
        rows[label] = {"folder": folder}
    for label, value in (_pair("--mix", text) for text in options.mix):
        first, sign, second = value.partition(":")
        if unknown := next((name for name in (first, second) if name not in rows), "" if sign else value):
            raise UserError(f"--mix {label}={value}: {unknown} is no row; name two of {', '.join(rows)}, as in "
                            f"{label}=A:B")  # fmt: skip
        rows[label] = {"mix": (first, second)}
    if unnamed := [name for name in options.at_all if name not in rows]:
        raise UserError(f"--at_all {unnamed[0]} is no row; name some of {', '.join(rows)}")
    return rows


def _check_label(label: str, flag: str, options: argparse.Namespace) -> None:
    """UserError where a label stands for two rows."""
    given = [text.partition("=")[0] for name in ("row", "folder", "mix") for text in getattr(options, name)]
    if given.count(label) > 1 or label in options.methods:
        raise UserError(f"--{flag} {label}=... is the label of another row too; give each its own")


def notes_of(rows: Iterable[Row], kinds: Sequence[str], change: str = "--looks {name}=scratch,pit") -> list[str]:
    """What to tell of types that are drawn as others, each line once. `change`: how to say what they look like."""
    from fast.generators.looks import looks_notes, own_looks, undrawable

    found: list[str] = []
    for row in rows:
        if row.looks is not None:
            looks = own_looks(row.looks)
            found += looks_notes(kinds, looks, change)
            if row.options.get("draft") == "mixed" and (without := undrawable(kinds, looks)):
                found.append(f"note: mixed drafts of {', '.join(without)} are real defects alone, nothing is drawn")
    return list(dict.fromkeys(found))


def _row(method: str, flag: str, given: dict[str, Any], looks: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method's `Row`. What is wrong with them is told before anything is computed."""
    from fast.generators.looks import with_looks

    found = arguments_of(method)
    if method in PLACED:
        given = {"on_object": "off", **given}
    given = _with_drafts(method, flag, given)
    given = with_looks(method, given, looks)
    masks = {"masks": given.pop("masks")} if "masks" in given and not found.own_masks else {}
    fakes = {"counterfeits": given.pop("counterfeits")} if "counterfeits" in given else {}
    check_params(found, given, flag)
    if method in FREE:
        create(method, **given)
    elif not given.get("weights"):
        raise UserError(f"{flag} {method} needs weights; add weights=RUN, where {SEED} stands for the split's number")
    return {"method": method, "options": given, **masks, **fakes}


def _with_drafts(method: str, flag: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a row, those of what makes its drafts in one. Raises `UserError`."""
    own = {k.removeprefix(OF_DRAFTS): given.pop(k) for k in list(given) if k.startswith(OF_DRAFTS)}
    own = {**(given.pop("draft_options", None) or {}), **own}
    if given.get("draft", "none") == "none":
        if own:
            remedy = "add draft=mixed" if method in LATENT else f"{method} has no drafts, leave {OF_DRAFTS} out"
            raise UserError(f"{flag}: {OF_DRAFTS}{next(iter(own))} is an option of drafts; {remedy}")
        return given
    for name in own:
        if name in ("defects", "split"):
            raise UserError(f"{flag}: {OF_DRAFTS}{name} is settled by --dataset, --split and --counts; leave it out")
        if name.startswith("looks."):
            raise UserError(f"{flag}: what is drawn for a type is said for all rows, by --looks {name[6:]}=A,B")
    return {**given, "draft_options": {"on_object": "off", **own}}


def _value(text: str) -> Any:
    """A number, a switch or a list as YAML reads it, but the words on and off, which YAML takes for switches."""
    return text if text in ("on", "off") else yaml.safe_load(text)


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise UserError(f"{flag} {text} is not NAME=VALUE; see --help")
    return name, value
