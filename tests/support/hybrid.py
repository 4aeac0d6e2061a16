"""A tiny base that sees the defect's place, as `models/mini` is one, and a batch for it."""

from typing import Any

import torch

from ldm.models.autoencoder import AutoencoderTiny
from ldm.models.diffusion.ddpm import LatentDiffusion

UNET = {
    "image_size": 8, "in_channels": 9, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_head_channels": 16, "use_spatial_transformer": True,
    "context_dim": 16, "legacy": False, "patch_size": 2,
}  # fmt: skip
TINY = {"embed_dim": 4, "ddconfig": {"z_channels": 4, "widths": [8, 16], "blocks": 1}}


def first_stage() -> AutoencoderTiny:
    torch.manual_seed(0)
    model = AutoencoderTiny(**TINY, lossconfig={"target": "torch.nn.Identity"}).eval().requires_grad_(False)
    for p in model.parameters():  # residual blocks start as the identity; give all layers a say
        if not p.any():
            p.copy_(0.1 * torch.randn(p.shape))
    return model


def base(**options: Any) -> LatentDiffusion:
    torch.manual_seed(0)
    model = LatentDiffusion(
        unet_config={"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": UNET},
        first_stage_config={
            "target": "ldm.models.autoencoder.AutoencoderTiny",
            "params": {**TINY, "lossconfig": {"target": "torch.nn.Identity"}},
        },
        cond_stage_config={
            "target": "ldm.modules.encoders.modules.BERTEmbedder",
            "params": {
                "n_embed": 16, "n_layer": 1, "vocab_size": 2000, "max_seq_len": 8, "tokenizer": "configs/mini/tokenizer"
            },
        },
        **{"conditioning_key": "hybrid", "use_ema": False, "linear_start": 8.5e-4, "linear_end": 1.2e-2, **options},
    )  # fmt: skip
    for p in model.model.parameters():
        if not p.any():
            p.data = 0.2 * torch.randn(p.shape)
    return model


def batch() -> dict[str, Any]:
    g = torch.Generator().manual_seed(3)
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 8:13, 3:30] = 1
    return {
        "latent": torch.randn(4, 4, 8, 8, generator=g),
        "normal_latent": torch.randn(4, 4, 8, 8, generator=g),
        "mask": mask,
        "caption": ["crack", "a hole", "a hole", "crack"],
        "seed": torch.arange(4),
    }
