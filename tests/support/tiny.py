"""The tiny dataset's materials and types, and the tiny base and FAST as `model:` sections of a recipe."""

import copy
import json
from pathlib import Path
from typing import Any

import torch

from fast.model import FAST
from ldm.checkpoint import save_safetensors
from ldm.models.diffusion.ddpm import LatentDiffusion

MATERIALS = ("leather", "wood")
STEPS = (3, 7)
DRAWN = ("crack", "hole", "scratch", "stain")
TYPES = [f"{material}/{defect}" for material in MATERIALS for defect in DRAWN]
SIZE = 64


@torch.no_grad()
def randomize(module: torch.nn.Module, seed: int) -> None:
    """Seeded values in place of the initial ones, so that nothing answers with zeros."""
    source = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        values = torch.randn(p.shape, generator=source)
        around = 0.05 * values + (0 if name.endswith("bias") else 1)
        p.copy_(values / p[0].numel() ** 0.5 if p.dim() > 1 else around)


def fast_section() -> dict[str, Any]:
    extra = {"farm": {"base_width": 8}, "prompt_tokens": 8, "aias": {"steps": 3}, "lr": 1e-3}
    return {"target": "fast.model.FAST", "params": {**copy.deepcopy(BASE["params"]), **extra}}


BASE: dict[str, Any] = {
    "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
    "params": {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": 16,
        "channels": 4,
        "scale_factor": 0.5,
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {
                "image_size": 16,
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 32,
                "attention_resolutions": [2],
                "num_res_blocks": 1,
                "channel_mult": [1, 1],
                "num_head_channels": 16,
                "use_spatial_transformer": True,
                "transformer_depth": 1,
                "context_dim": 32,
                "legacy": False,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": 4,
                "ddconfig": {
                    "double_z": True,
                    "z_channels": 4,
                    "resolution": 64,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 32,
                    "ch_mult": [1, 1, 1],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                },
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.BERTEmbedder",
            "params": {
                "n_embed": 32,
                "n_layer": 1,
                "vocab_size": 1709,
                "max_seq_len": 24,
                "tokenizer": "configs/mini/tokenizer",
            },
        },
    },
}


def write_base(folder: Path, **params: Any) -> Path:
    """The tiny base as main.py writes one, `params` changed. Its random network answers with about unit noise."""
    config = {**BASE, "params": {**BASE["params"], **params}}
    model = LatentDiffusion(**config["params"])
    randomize(model, 1)
    path = folder / "ldm-5.safetensors"
    save_safetensors(model.artifact()[1], path, {"step": "5", "config": json.dumps({"model": config}), "split": ""})
    return path


def write_artifacts(folder: Path, base: Path, *steps: int, **params: Any) -> Path:
    """Folder with `checkpoints/fast-<step>.safetensors` as main.py writes them, FAST's `params` changed."""
    config = {"model": fast_section(), "data": {"target": "fast.data.module.DefectData", "params": {"size": SIZE}}}
    config["model"]["params"] |= {"types": TYPES, "ckpt_path": str(base), **params}
    for step in steps:
        model = FAST(**config["model"]["params"])
        for part in (model.farm, model.prompts):
            randomize(part, step)
        name, tensors = model.artifact()
        metadata = {"step": str(step), "config": json.dumps(config), "split": "drawn", **model.artifact_metadata()}
        save_safetensors(tensors, folder / "checkpoints" / f"{name}-{step}.safetensors", metadata)
    return folder
