"""FAST with random weights in three sizes. Random weights take the same time as trained ones; no file is read."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fast.model import FAST
from fast.training.config import merge, resolved
from ldm.util import instantiate_from_config

MODEL, UNET, TEXT = "model.params", "model.params.unet_config.params", "model.params.cond_stage_config.params"
CODER = "model.params.first_stage_config.params.ddconfig"
# "full": the published 1.45 B-parameter layout; "mini": a laptop's; "tiny": for tests.
RECIPES: dict[str, tuple[str, list[str]]] = {
    "full": ("configs/fast_mvtec.yaml", [f"{TEXT}.tokenizer=configs/mini/tokenizer"]),
    "mini": ("benchmarks/mini.yaml", []),
    "tiny": (
        "benchmarks/mini.yaml",
        [
            *(f"{UNET}.model_channels=32", f"{UNET}.channel_mult=[1,2]", f"{UNET}.attention_resolutions=[2]"),
            *(f"{UNET}.context_dim=32", f"{TEXT}.n_embed=32", f"{TEXT}.n_layer=1"),
            *(f"{CODER}.ch_mult=[1,1,1]", f"{MODEL}.farm.base_width=8", "data.params.size=64"),
        ],
    ),
}
# A first stage and a text encoder of the same shapes and no weight, where only the U-Net is measured.
LIGHT = {
    "full": [f"{CODER}.ch=32", f"{CODER}.ch_mult=[1,1,1,1]", f"{TEXT}.n_layer=1", f"{TEXT}.vocab_size=1709"],
    "mini": [],
    "tiny": [],
}
TYPES = ["leather/crack"]
TOKENS = 77  # length of a prompt, where nothing but its length counts


def recipe(size: str, light: bool = False) -> dict[str, Any]:
    """The resolved recipe of a size; with `light`, small companions of a U-Net that stays what it is."""
    path, changes = RECIPES[size]
    return resolved(merge([path], [*changes, *(LIGHT[size] if light else [])]))


def trained_side(size: str) -> int:
    """Side in pixels of the pictures that this size is trained on."""
    return int(recipe(size)["data"]["params"]["size"])


def cells(size: str) -> int:
    """Side of those pictures' latents."""
    levels = recipe(size)["model"]["params"]["first_stage_config"]["params"]["ddconfig"]["ch_mult"]
    return trained_side(size) >> (len(levels) - 1)


def build_fast(size: str, light: bool = False, **changes: Any) -> FAST:
    """FAST on the CPU; `changes` to its parameters, such as `frozen_precision`."""
    params = recipe(size, light)["model"]["params"]
    with torch.device("meta"):
        model = FAST(**{**params, "types": TYPES, **changes})
    materialize(model)
    model.register_schedule()
    if isinstance(model.scale_factor, torch.Tensor):
        model.scale_factor.fill_(1.0)
    return model


def build_unet(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The U-Net alone, ready to answer; on "meta" its shapes alone."""
    with torch.device("meta"):
        unet: nn.Module = instantiate_from_config(recipe(size)["model"]["params"]["unet_config"])
    unet.to(dtype)
    if device != "meta":
        materialize(unet, device)
    return unet.eval().requires_grad_(False)


@torch.no_grad()
def materialize(module: nn.Module, device: str = "cpu") -> None:
    """Give a module of the meta device weights that keep numbers at their size: normal, of variance 1 / inputs."""
    module.to_empty(device=device).to(device)
    source = torch.randn(65_537, generator=torch.Generator().manual_seed(0)).to(device)  # prime: no two rows alike
    for name, p in module.named_parameters():
        if p.dim() < 2:
            p.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        some = (source * p[0].numel() ** -0.5).to(p.dtype)
        flat, n = p.view(-1), len(some)
        whole = flat.numel() // n * n
        flat[:whole].view(-1, n).copy_(some.expand(whole // n, n))
        flat[whole:] = some[: flat.numel() - whole]


def context_width(size: str) -> int:
    return int(recipe(size)["model"]["params"]["unet_config"]["params"]["context_dim"])


def channels(size: str) -> int:
    return int(recipe(size)["model"]["params"]["channels"])


def unet_operations(size: str, height: int, width: int) -> int:
    """Operations of one evaluation of one latent (height, width) by the U-Net; multiply and add are two."""
    unet = build_unet(size, "meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        x, t = torch.empty(1, channels(size), height, width), torch.zeros(1, dtype=torch.long)
        unet(x, t, context=torch.empty(1, TOKENS, context_width(size)))
    return int(counter.get_total_flops())


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
