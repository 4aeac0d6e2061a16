"""The U-Net of diffusers with the widths of ours, built from a config with random weights: nothing is fetched."""

from typing import Any

import torch
from torch import nn

from benchmarks.network import cells, materialize, recipe


def diffusers_config(size: str) -> dict[str, Any]:
    """Arguments of `UNet2DConditionModel` for the same network."""
    own = recipe(size)["model"]["params"]["unet_config"]["params"]
    widths = [own["model_channels"] * m for m in own["channel_mult"]]
    attends = [2**level in own["attention_resolutions"] for level in range(len(widths))]
    per_head = own.get("num_head_channels", -1)
    heads = [own["num_heads"] if per_head == -1 else max(1, width // per_head) for width in widths]
    down = ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attends]
    return {
        "sample_size": cells(size),
        "in_channels": own["in_channels"],
        "out_channels": own["out_channels"],
        "block_out_channels": tuple(widths),
        "layers_per_block": own["num_res_blocks"],
        "cross_attention_dim": own["context_dim"],
        "attention_head_dim": tuple(heads),  # a number of heads, whatever it is called
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
    }


def build_diffusers_unet(size: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """On `device`, ready to answer; on "meta" its shapes alone. ImportError without diffusers."""
    from diffusers import UNet2DConditionModel
    from diffusers.utils import logging

    logging.set_verbosity_error()

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**diffusers_config(size))
    unet.to(dtype)
    if device != "meta":
        materialize(unet, device)
    unet.eval().requires_grad_(False)
    return unet
