"""Sets of several parts by one command: `--pt_path` a list, each part's weights one after the other in one process."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fast.runtime.flags import flag_of
from fast.synthesis.options import SynthesisOptions
from ldm.errors import UserError


def parts_of(options: SynthesisOptions) -> dict[str, SynthesisOptions]:
    """The options of each part by its name, the folder of its weights; of one part, as they are, under "".

    Raises `UserError` for lists of different lengths and for names that occur twice.
    """
    weights = _listed(options.weights)
    if len(weights) == 1:
        return {"": options}
    names = [_name(path) for path in weights]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--pt_path names two parts {twice}; let their folders have names of their own")
    if options.preview:
        raise UserError("--preview shows the masks of one part; leave it out, or give one --pt_path")
    roots, masks = (_for_each(options, name, len(weights)) for name in ("data_root", "mask_path"))
    place = options.sample_name.rstrip("/")
    own = zip(names, weights, roots, masks, strict=True)
    return {
        name: replace(options, weights=path, data_root=root, mask_path=mask, sample_name=f"{place}/{name}")
        for name, path, root, mask in own
    }


def for_each_part(
    parts: dict[str, SynthesisOptions], make: Callable[[SynthesisOptions], None], say: bool = True
) -> None:
    """`make` each part's set; the weights of one part are gone before the next part's come."""
    for number, (name, options) in enumerate(parts.items(), 1):
        if name and say:
            print(f"part {number} of {len(parts)}: {name}", flush=True)
        make(options)
        gc.collect()


def _listed(value: str | Path | None) -> list[str]:
    """The parts of a list by commas; a path that is there is one, whatever its name. `~/` is expanded in each."""
    text = "" if value is None else str(value)
    if "," not in text or Path(text).expanduser().exists():
        return [text]
    return [os.path.expanduser(item.strip()) for item in text.split(",")]


def _for_each(options: SynthesisOptions, name: str, count: int) -> list[str | None]:
    value = getattr(options, name)
    found = _listed(value)
    if len(found) > 1 and not all(found):
        raise UserError(f"{flag_of(options, name)} {value} names nothing beside a comma; give folders")
    if len(found) not in (1, count):
        raise UserError(
            f"{flag_of(options, name)} {value} names {len(found)}, and --pt_path {count} parts; give one for each in "
            "the same order, or one for all"
        )
    return [value] * count if len(found) == 1 else list(found)


def _name(path: str) -> str:
    """A part's name: of its run's folder, also where its `checkpoints` or a file in it is given."""
    place = Path(path)
    place = place.parent if place.suffix == ".safetensors" else place
    place = place.parent if place.name == "checkpoints" else place
    if place.name in ("", ".."):
        raise UserError(f"--pt_path {path!r} in a list names no part; give the folders of their weights")
    return place.name
