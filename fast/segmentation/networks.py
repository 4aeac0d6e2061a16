"""The segmentation networks by name, and their weights on disk."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fast.runtime.precision import settled
from fast.segmentation.bisenetv2 import BiSeNetV2
from fast.segmentation.fpn import FPN
from fast.segmentation.mini import Mini
from fast.segmentation.names import require_name
from fast.segmentation.pixel_head import Quick
from fast.segmentation.prior import Corrected, corrected, uncorrected
from fast.segmentation.segformer import SegFormer
from fast.segmentation.stdc import STDC, STDC1, STDC2
from ldm.checkpoint import load_strict, read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError

SEGMENTERS: dict[str, Callable[..., nn.Module]] = {
    "bisenetv2": BiSeNetV2,
    "fpn": FPN,
    "mini": Mini,
    "quick": Quick,
    "segformer": SegFormer,
    "stdc": partial(STDC, modules=STDC1),
    "stdc2": partial(STDC, modules=STDC2),
}
PRETRAINED = ("fpn", "quick")  # those that come with an encoder of ImageNet
ENCODERS = ("segformer", "stdc", "stdc2")  # those whose published ImageNet weights fit
TRAINING_ONLY = "aux."


def precision_of(name: str, choice: str, device: str) -> str:
    """ "fp32" or "bf16": a choice for a segmenter's training, with "auto" decided. Depthwise convolutions of the
    pretrained encoder learn faster in float32 on a CPU."""
    return "fp32" if choice == "auto" and device == "cpu" and name in PRETRAINED else settled(choice, device)


def build(
    name: str, num_classes: int = 2, *, weights: str | os.PathLike[str] | None = None, seed: int | None = None
) -> nn.Module:
    """Make a segmentation network, which takes images (B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W).

    Args:
        name: one of `SEGMENTERS`.
        num_classes: classes with the background, which is class 0. At least 2.
        weights: a file that `save` wrote for the same segmenter, or for those in `ENCODERS` ImageNet weights of the
            encoder. Of the former all that was trained is taken, but not its correction for how common defects are. If
            it has another number of classes, the layers that answer keep their initial weights, too. None: all weights
            are initial ones.
        seed: makes the initial weights the same each time and leaves the global generator alone. None: they are drawn
            from that.

    Raises:
        UserError: when the name is unknown, `num_classes` is below 2, or the weights do not fit the network.
    """
    require_name(name)
    if num_classes < 2:
        raise UserError(f"num_classes={num_classes} is below 2; background is a class too")
    saved = None if weights is None else _segmenter_in(weights)
    if saved is not None and saved != name:
        raise UserError(f"{weights} holds a segmenter '{saved}', not '{name}'; give weights of the same one")
    if weights is not None and saved is None and name not in ENCODERS:
        raise UserError(
            f"segmenter '{name}' takes no encoder weights; leave {weights} out, use {', '.join(ENCODERS)}, "
            "or give what scripts/segment.py wrote for it"
        )
    options = {} if weights is None or saved is not None else {"weights": weights}
    if seed is None:
        model = SEGMENTERS[name](num_classes, **options)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = SEGMENTERS[name](num_classes, **options)
    if weights is not None and saved is not None:
        _load_whole(model, weights, num_classes)
    return model


def inference_parameters(model: nn.Module) -> int:
    """How many parameters answer when nothing is trained: without auxiliary heads."""
    return sum(p.numel() for name, p in uncorrected(model).named_parameters() if not name.startswith(TRAINING_ONLY))


def save(model: nn.Module, path: str | os.PathLike[str], name: str, split: str, num_classes: int = 2) -> Path:
    """Write the weights as `.safetensors`, whole or not at all; `load` and `build` read them. `split`: the hash of the
    split whose training side they learned from, or "drawn"."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in uncorrected(model).state_dict().items()}
    about = {"segmenter": name, "num_classes": str(num_classes), "split": split}
    if isinstance(model, Corrected):
        about["oversampling"] = repr(model.oversampling)
    save_safetensors(state, path, about)
    return Path(path)


def load(path: str | os.PathLike[str]) -> nn.Module:
    """A network that `save` has written, in evaluation mode. UserError when the file is something else."""
    about = read_metadata(path)
    if about.get("segmenter") not in SEGMENTERS or not about.get("num_classes", "").isdecimal():
        raise UserError(f"{path} holds no segmenter; give a file that scripts/segment.py wrote")
    network = build(about["segmenter"], int(about["num_classes"]), weights=path).eval()
    return corrected(network, _positive(about["oversampling"], path)) if "oversampling" in about else network


def _positive(text: str, path: str | os.PathLike[str]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{path}: its oversampling '{text}' is no number above 0; the file is damaged, train it again")
    return value


def _segmenter_in(path: str | os.PathLike[str]) -> str | None:
    """The name of the segmenter that `save` wrote there; None for any other file."""
    path = Path(path)
    return read_metadata(path).get("segmenter") if path.suffix == ".safetensors" and path.is_file() else None


def _load_whole(model: nn.Module, path: str | os.PathLike[str], num_classes: int) -> None:
    own, state = model.state_dict(), read_state_dict(path)
    if read_metadata(path).get("num_classes") != str(num_classes):  # layers that answer keep their initial weights
        differing = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
        state = {**state, **{k: own[k] for k in differing}}
    # In the memory layout that the network was made with.
    fits = {k: k in own and own[k].shape == v.shape for k, v in state.items()}
    load_strict(model, {k: own[k].clone().copy_(v) if fits[k] else v for k, v in state.items()}, str(path))
