"""The segmentation networks by name, and their weights on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fast.segmentation.mini import Mini
from fast.segmentation.segformer import SegFormer
from ldm.checkpoint import load_strict, read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError

SEGMENTERS: dict[str, Callable[..., nn.Module]] = {"mini": Mini, "segformer": SegFormer}
ENCODERS = ("segformer",)  # those that take `weights`


def build(
    name: str, num_classes: int = 2, *, weights: str | os.PathLike[str] | None = None, seed: int | None = None
) -> nn.Module:
    """A segmentation network: image (B,3,H,W) float in [-1, 1] to logits (B,num_classes,H,W); class 0 is background.

    `weights`: a `.safetensors` file with ImageNet weights of the encoder ("segformer" only). `seed`: makes the initial
    weights the same each time and leaves the global generator alone; without it they are drawn from that.
    """
    if name not in SEGMENTERS:
        raise UserError(f"segmenter '{name}' is unknown; use one of {', '.join(sorted(SEGMENTERS))}")
    if num_classes < 2:
        raise UserError(f"num_classes={num_classes} is below 2; background is a class too")
    if weights is not None and name not in ENCODERS:
        raise UserError(
            f"segmenter '{name}' takes no encoder weights; leave {weights} out or use {', '.join(ENCODERS)}"
        )
    options = {} if weights is None else {"weights": weights}
    if seed is None:
        return SEGMENTERS[name](num_classes, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SEGMENTERS[name](num_classes, **options)


def save(model: nn.Module, path: str | os.PathLike[str], name: str, num_classes: int = 2) -> Path:
    """Write the weights as `.safetensors`, whole or not at all; `load` reads them."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    save_safetensors(state, path, {"segmenter": name, "num_classes": str(num_classes)})
    return Path(path)


def load(path: str | os.PathLike[str]) -> nn.Module:
    """A network that `save` has written, in evaluation mode. UserError when the file is something else."""
    state = read_state_dict(path)
    about = read_metadata(path)
    if about.get("segmenter") not in SEGMENTERS or not about.get("num_classes", "").isdecimal():
        raise UserError(f"{path} holds no segmenter; give a file that scripts/segment.py wrote")
    model = build(about["segmenter"], int(about["num_classes"]))
    load_strict(model, state, str(path))
    return model.eval()
