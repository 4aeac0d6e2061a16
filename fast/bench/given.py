"""What the user has beside a protocol, and which of a training's files decide what it becomes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from fast.artifact import find_artifact, find_base
from fast.bench.protocol import Entry, Protocol, learns
from fast.generators import LATENT
from fast.runtime.project import in_project
from fast.segmentation.networks import PRETRAINED
from fast.training.config import load_recipe, merge
from ldm.errors import UserError
from ldm.hashing import file_hash

TEXTURED = ("draem", "glass")


@dataclass(frozen=True)
class Given:
    """What the user has beside the protocol. `weights`: trained runs by method, instead of trainings of the grid;
    `imagenet`: initial weights by segmenter; `textures`: a folder for DRAEM and GLASS; `networks`: files by name
    (`inception`, `lpips`) for scores of the pairs; `base`, `tokenizer`: the checkpoint that the methods on a latent
    base stand on, and its tokenizer's folder, where the recipes name none. `device`: of synthesis and segmenters."""

    weights: Mapping[str, Path] = field(default_factory=dict)
    imagenet: Mapping[str, Path] = field(default_factory=dict)
    base: Path | None = None
    tokenizer: Path | None = None
    networks: Mapping[str, Path] = field(default_factory=dict)
    textures: Path | None = None
    device: str = "auto"


def is_given(entry: Entry, given: Given) -> bool:
    """Whether given weights take the place of an entry's training. An entry that trains another model trains it
    itself."""
    own = any(item.startswith("model.") for item in entry.train)
    return entry.method in given.weights and learns(entry.method) and not own


def refuse_unused(protocol: Protocol, given: Given) -> None:
    """UserError for the first thing given that nothing of the protocol takes, or that takes the place of what an entry
    asks for."""
    for flag, why in _unused(protocol, given):
        raise UserError(f"{flag}: {why}; leave it out")
    for entry in protocol.entries:
        told = next((item for item in entry.train if item.startswith("data.")), entry.recipe)
        if told and is_given(entry, given):
            raise UserError(
                f"--weights {entry.method}={given.weights[str(entry.method)]} takes the place of the training that "
                f"{entry.label!r} asks for with {told}; leave one of them out"
            )


def _unused(protocol: Protocol, given: Given) -> Iterator[tuple[str, str]]:
    """(flag, why nothing takes it) of what is given."""
    methods = [entry.method for entry in protocol.entries if entry.method]
    taken = {entry.method for entry in protocol.entries if is_given(entry, given)}
    latent = [e for e in protocol.entries if e.method in LATENT and not is_given(e, given)]
    segmenters = protocol.segmentation.networks
    for name, path in given.imagenet.items():
        if name == "quick" or name not in segmenters:
            why = "quick has an encoder of its own" if name == "quick" else f"segmenters are {', '.join(segmenters)}"
            yield f"--imagenet {name}={path}", why
    for name, path in given.weights.items():
        if name not in taken:
            why = "its entries train models of their own" if name in methods else f"no entry makes pairs with {name}"
            yield f"--weights {name}={path}", why
    for name, place in (("base", given.base), ("tokenizer", given.tokenizer)):
        if place is not None and not latent:
            yield f"--{name} {place}", f"none of {', '.join(LATENT)} is trained here"
    if given.base is not None and all("ckpt_path" in _named(overrides_of(protocol, e)) for e in latent):
        yield f"--base {given.base}", "model.params.ckpt_path= is set for every training on a base"
    if given.textures is not None and not set(TEXTURED) & set(methods):
        yield f"--textures {given.textures}", f"no entry makes pairs with {' or '.join(TEXTURED)}"
    if not methods:
        yield from ((f"--{name} {path}", "no entry makes pairs to be scored") for name, path in given.networks.items())


def notes(protocol: Protocol, given: Given) -> list[str]:
    """What of the protocol gives way to what is given."""
    seg = protocol.segmentation
    begun = [name for name in seg.networks if name in given.imagenet and name not in PRETRAINED]
    if seg.start is None or not begun:
        return []
    return [f"{', '.join(begun)}: --imagenet takes the place of the drawn defects to begin with (segmentation.start)"]


def overrides_of(protocol: Protocol, entry: Entry) -> list[str]:
    """What of its recipe an entry's training changes, the entry's own last."""
    return [*protocol.training.overrides, *entry.train]


def begun_with(method: str, recipe: Path, overrides: Sequence[str], given: Given) -> dict[str, str | None]:
    """SHA-256 of the files that a training begins with: the base, which overrides name before --base and that before
    the recipe, FARM's that they name or that lies beside such a base, and those of the tokenizer given. Raises
    `UserError`."""
    latent, named = method in LATENT, _named(overrides)
    base, flag = (os.path.abspath(given.base), "--base") if latent and given.base else (None, "")
    if "ckpt_path" in named:
        base, flag = named["ckpt_path"], "model.params.ckpt_path"
    found: dict[str, str | None] = {}
    if base is not None:
        file, farm = _found(base, flag)
        found["base_sha256"] = hash_once(Path(file))
        if farm and method == "fast":
            found["farm_sha256"] = hash_once(Path(farm))
    elif latent:
        own = _base_of(recipe)
        found["base_sha256"] = None if own is None else hash_once(own)
    if "farm_from" in named:
        found["farm_sha256"] = hash_once(find_artifact(named["farm_from"], flag="model.params.farm_from").path)
    if latent and given.tokenizer:
        found["tokenizer_sha256"] = _files_hash(given.tokenizer)
    return found


def _named(overrides: Sequence[str]) -> dict[str, str]:
    """The files that a training's overrides name."""
    config = merge([], [item for item in overrides if item.partition("=")[0].split(".")[0] == "model"])
    places = {name: f"model.params.{name}" for name in ("ckpt_path", "farm_from")}
    found = {n: OmegaConf.select(config, place, throw_on_resolution_failure=False) for n, place in places.items()}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def _found(base: str, flag: str) -> tuple[str, str | None]:
    try:
        return find_base(base)
    except UserError as error:
        raise UserError(str(error).replace("--actual_resume", flag)) from None


def _base_of(recipe: Path) -> Path | None:
    """The checkpoint that a recipe stands on, if it names one that is there."""
    named = OmegaConf.select(load_recipe(recipe), "model.params.ckpt_path")
    if not named:
        return None
    path = in_project(Path(named))
    path = path / "base.safetensors" if path.is_dir() else path
    return path if path.is_file() else None


@cache
def hash_once(path: Path) -> str:
    """SHA-256 of a file, which is read once by a process."""
    return file_hash(path)


@cache
def _files_hash(folder: Path) -> str:
    """SHA-256 of the names and bytes of the files in a folder."""
    if not folder.is_dir():
        raise UserError(f"--tokenizer {folder} is no folder; give the one that holds the tokenizer's files")
    lines = [f"{file.name} {file_hash(file)}" for file in sorted(folder.iterdir()) if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
