"""Tiny runs of the training door, for the tests of it."""

import copy
import csv
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from fast.runtime.command import run_cli
from main import main

EMA_BASE = {
    "use_ema": True,
    "ema_decay": 0.9,
    "cond_stage_trainable": True,
    "scale_by_std": True,
    "lr": 1e-3,
    "scheduler_config": {
        "target": "ldm.lr_scheduler.LambdaLinearScheduler",
        "params": {"warm_up_steps": [3], "cycle_lengths": [8], "f_start": [0.1], "f_max": [1.0], "f_min": [0.1]},
    },
}
FIRST_STAGE = {
    "target": "ldm.models.autoencoder.AutoencoderKL",
    "params": {
        "embed_dim": 2,
        "lr": 1e-3,
        "ddconfig": {
            "z_channels": 2, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1],
            "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.1,
        },
        "lossconfig": {
            "target": "ldm.modules.losses.LPIPSWithDiscriminator",
            "params": {"disc_start": 3, "disc_weight": 0.5, "perceptual_weight": 0.0, "disc_ndf": 8},
        },
    },
}  # fmt: skip


def recipe(folder: Path, model: dict[str, Any], data: Path, steps: int = 7, **params: Any) -> Path:
    """Write a recipe: every step logged, a checkpoint every third; `params` go to the data section."""
    anew = {} if params.get("cache", True) else {"augment": {"flips": True}}
    section = {"path": str(data), "size": 64, "batch_size": 2, "use": "defects", **anew, **params}
    config = {
        "model": copy.deepcopy(model),
        "data": {"target": "fast.data.module.DefectData", "params": section},
        "lightning": {
            "trainer": {"max_steps": steps, "precision": "32", "log_every_n_steps": 1, "accelerator": "cpu"},
            "checkpoint_every": 3,
            "images_every": 0,
            "tensorboard": False,
        },
    }
    path = folder / "recipe.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    return path


def door(*argv: object) -> int:
    return run_cli(main, [str(a) for a in argv])


def losses(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def artifact(run: Path, step: int) -> dict[str, torch.Tensor]:
    (path,) = (run / "checkpoints").glob(f"*-{step}.safetensors")
    return load_file(path)


def assert_same_run(one: Path, other: Path, step: int) -> None:
    """Bit for bit: what was logged, and the artifact of `step`."""
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    a, b = artifact(one, step), artifact(other, step)
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
