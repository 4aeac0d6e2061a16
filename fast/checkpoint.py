"""FAST's artifact: `fast-<step>.safetensors` with FARM, the prompt vectors and, as metadata, all that made them."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from typing import Any

import torch

from fast.model import FAST
from ldm.checkpoint import file_hash, load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.util import get_obj_from_str, instantiate_from_config


@dataclass(frozen=True)
class Artifact:
    """A trained FAST on disk, before its weights are read."""

    path: Path
    step: int
    config: dict[str, Any]
    types: list[str]
    base: str
    base_sha256: str


def find_artifact(folder: str | os.PathLike[str], step: int | None = None) -> Artifact:
    """The artifact of `step`, or the last one, in a folder or in its `checkpoints`. Raises `UserError`."""
    given = Path(folder)
    places = [*given.glob("*"), *given.glob("checkpoints/*")]
    found = {int(m[1]): p for p in places if (m := re.fullmatch(r"fast-(\d+)\.safetensors", p.name))}
    if given.is_file():
        found = {read_artifact(given).step: given}
    if not found:
        raise UserError(f"--pt_path {folder}: no fast-<step>.safetensors there; train with main.py first")
    if step is not None and step not in found:
        raise UserError(f"--weight_idx {step}: {folder} has the steps {', '.join(map(str, sorted(found)))}")
    return read_artifact(found[max(found) if step is None else step])


def read_artifact(path: Path) -> Artifact:
    """The artifact in a file, from its metadata. Raises `UserError` for a damaged or foreign file."""
    meta = read_metadata(path)
    try:
        config, types = json.loads(meta["config"]), json.loads(meta["types"])
        artifact = Artifact(path, int(meta["step"]), config, types, meta["base"], meta["base_sha256"])
        whole = isinstance(config["model"]["params"], dict) and types and all("/" in t for t in types)
    except (KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is not an artifact of main.py: its step, config, types or base is missing or broken")
    return artifact


def load_fast(artifact: Artifact, base: str | None = None) -> FAST:
    """Build the model on its base and put FARM and the prompt vectors in. `base` replaces the recorded path."""
    path = Path(base or artifact.base)
    if not path.is_file():
        raise UserError(
            f"the base checkpoint {base or artifact.base or '(not recorded)'} that {artifact.path.name} was trained on "
            "is not there; give its place with --actual_resume"
        )
    if file_hash(path) != artifact.base_sha256:
        raise UserError(
            f"{path} is not the base that {artifact.path.name} was trained on (sha256 {artifact.base_sha256[:12]}...); "
            "give that one with --actual_resume"
        )
    section = artifact.config["model"]
    _check_classes(section, artifact.path)
    params = {**section["params"], "ckpt_path": str(path), "types": artifact.types}
    model: FAST = instantiate_from_config({"target": section["target"], "params": params})
    state = {k: v.clone() for k, v in read_state_dict(artifact.path).items()}
    load_strict(_Part(model), state, str(artifact.path))
    return model.eval().requires_grad_(False)


def _check_classes(section: dict[str, Any], path: Path) -> None:
    """An artifact is data: the classes it names are this project's, and its model is a FAST. Raises `UserError`."""
    for target in _targets(section):
        known = str(target).startswith(("fast.", "ldm.", "taming.", "torch.nn."))
        if not known or not isclass(get_obj_from_str(target)):
            raise UserError(f"{path} asks for target: {target}, which is no class of this project; it was not loaded")
    target = section.get("target")
    if not isinstance(target, str) or not issubclass(get_obj_from_str(target), FAST):
        raise UserError(f"{path} holds a {target}, not a FAST; give an artifact that FAST's training wrote")


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict) and "target" in node:
        yield node["target"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(child)


class _Part(torch.nn.Module):
    """The trained parts of a FAST model under their names in it."""

    def __init__(self, model: FAST):
        super().__init__()
        self.farm, self.prompts = model.farm, model.prompts
        if model.thaw_unet:
            self.model = model.model
