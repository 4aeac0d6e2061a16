"""A tiny U-Net with cross-attention, and a batch of inputs for it."""

from typing import Any

import torch
from torch import Tensor

from ldm.modules.diffusionmodules.openaimodel import UNetModel
from support.tiny import randomize


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompted(**more: Any) -> UNetModel:
    options: dict[str, Any] = {
        "image_size": 8, "in_channels": 4, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
        "attention_resolutions": [1, 2], "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True,
        "context_dim": 12,
    }  # fmt: skip
    unet = UNetModel(**options | more).eval()
    randomize(unet, 0)
    return unet


X, T = noise(3, 4, 8, 8, seed=5), torch.tensor([0, 500, 999])
PROMPTS = noise(3, 9, 12, seed=6)  # three different ones in a batch
