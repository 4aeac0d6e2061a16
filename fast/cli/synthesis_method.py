"""A method's weights and options for synthesis: of its recipe or of what its weights record, and of the command."""

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast.artifact import find_weights, in_project
from fast.bench.provenance import NORMALS, data_of
from fast.cli.synthesis_options import weights_of
from fast.generators import method_class
from fast.generators.base import Learned
from fast.runtime.device import pick_device
from fast.runtime.folders import parse_json
from fast.synthesis.options import SynthesisOptions
from fast.training.config import load_recipe, plain
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.hashing import file_hash


def check_weights(options: SynthesisOptions) -> None:
    """Raises `UserError` for weights that are not there."""
    method = method_class(options.method)
    if issubclass(method, Learned):
        find_weights(weights_of(options), method.artifact, options.step)


def weights_settings(path: Path) -> dict[str, Any]:
    """Which weights, and what their training had: optimiser steps, minutes, the split, and whether only normals."""
    meta = read_metadata(path)
    budget = {"steps": meta.get("step"), "minutes": meta.get("minutes"), "split": meta.get("split")}
    use = data_of(meta).get("use")
    budget |= {"use": use} if use == NORMALS else {}
    return {"weights": path.name, "weights_sha256": file_hash(path), "training": budget}


def method_options(options: SynthesisOptions, weights: Path | None) -> dict[str, Any]:
    """The method's options: of its recipe, or of the one that its weights were trained by, then of the command line."""
    if weights is None:
        file = in_project(Path(f"configs/methods/{options.method}.yaml"))
        config: Any = OmegaConf.to_container(load_recipe(file)) if file.is_file() else {}
    else:
        config = _recorded(weights)
    method = config.get("method") or {}
    try:
        merged = OmegaConf.merge(method.get("params") or {}, OmegaConf.from_dotlist(options.overrides))
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"method options: {' '.join(str(error).split())[:200]}") from None
    return {str(k): v for k, v in plain(merged, "method options").items()}


def _recorded(weights: Path) -> dict[str, Any]:
    """The config that an artifact records of its training. Raises `UserError`."""
    try:
        return dict(parse_json(read_metadata(weights).get("config", "{}")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{weights} is not an artifact of main.py: its config is broken ({error})") from None


def device_named(name: str) -> str:
    """The device that `--device` means, "cpu" or "cuda", of several processes each its own. Raises `UserError`."""
    if pick_device(name, "--device ").type == "cpu":
        return "cpu"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return "cuda"
