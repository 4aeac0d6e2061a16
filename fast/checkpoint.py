"""FAST's artifact: `fast-<step>.safetensors` with FARM, the prompt vectors and, as metadata, all that made them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fast.model import FAST
from ldm.checkpoint import file_hash, load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.util import instantiate_from_config


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
    if given.is_file():
        return read_artifact(given)
    places = [p for p in (given, given / "checkpoints") if p.is_dir()]
    found = {int(p.stem.split("-")[1]): p for place in places for p in place.glob("fast-*.safetensors")
             if p.stem.split("-")[1].isdigit()}  # fmt: skip
    if not found:
        raise UserError(f"--pt_path {folder}: no fast-<step>.safetensors there; train with main.py first")
    if step is not None and step not in found:
        raise UserError(f"--weight_idx {step}: {folder} has the steps {', '.join(map(str, sorted(found)))}")
    return read_artifact(found[max(found) if step is None else step])


def read_artifact(path: Path) -> Artifact:
    meta = read_metadata(path)
    try:
        return Artifact(
            path, int(meta["step"]), json.loads(meta["config"]), json.loads(meta["types"]),
            meta["base"], meta["base_sha256"],
        )  # fmt: skip
    except (KeyError, ValueError):
        raise UserError(f"{path} is not an artifact of main.py: step, config, types or base is missing in it") from None


def load_fast(artifact: Artifact, base: str | None = None) -> FAST:
    """Build the model on its base and put FARM and the prompt vectors in. `base` replaces the recorded path."""
    path = Path(base or artifact.base)
    if not path.is_file():
        raise UserError(
            f"the base checkpoint {path} that {artifact.path.name} was trained on is not there; "
            "give its place with --actual_resume"
        )
    if file_hash(path) != artifact.base_sha256:
        raise UserError(
            f"{path} is not the base that {artifact.path.name} was trained on (sha256 {artifact.base_sha256[:12]}...); "
            "give that one with --actual_resume"
        )
    section = artifact.config["model"]
    params = {**section["params"], "ckpt_path": str(path), "types": artifact.types}
    model: FAST = instantiate_from_config({"target": section["target"], "params": params})
    state = {k: v.clone() for k, v in read_state_dict(artifact.path).items()}
    load_strict(_Part(model), state, str(artifact.path))
    return model.eval().requires_grad_(False)


class _Part(torch.nn.Module):
    """The trained parts of a FAST model under their names in it."""

    def __init__(self, model: FAST):
        super().__init__()
        self.farm, self.prompts = model.farm, model.prompts
        if model.thaw_unet:
            self.model = model.model
