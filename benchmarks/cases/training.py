"""One step of FAST's training: loss, backward, optimizer."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks.machine import threads, timed
from benchmarks.network import build_fast, cells, channels, recipe, trained_side
from benchmarks.original import as_original
from fast.runtime.workers import cores
from fast.training.memory import Checkpointing
from fast.training.trainer import computes_in_bf16, make_trainer, quiet, settle_precision


def step(
    device: str, size: str, kind: str, batch: int = 4, times: int = 2, checkpointing: str = "auto"
) -> dict[str, Any]:
    """Seconds per image of a step on cached latents, the best of `times` after one that is not counted.

    `kind`: "ours", in the trainer that `main.py` makes of the recipe; "original": float32, an original U-Net that
    computes its activations again in the backward pass. `checkpointing`: whether ours does, `lightning.checkpointing`.
    """
    with threads(cores()), quiet():
        if kind == "original":
            seconds = _original(device, size, batch, times)
        else:
            seconds = _ours(device, size, batch, times, checkpointing)
    return {"seconds": seconds / batch, "batch": batch}


def _original(device: str, size: str, batch: int, times: int) -> float:
    model = build_fast(size, frozen_precision="fp32").to(device).train()
    as_original(model.model)
    optimizer = torch.optim.AdamW(model.trainable(), lr=1e-4)

    def once(given: dict[str, Any]) -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(given)[0].backward()
        optimizer.step()

    once(_batch(size, 1, device))  # a quarter of the time of a whole one
    given = _batch(size, batch, device)
    return min(timed(lambda: once(given), device) for _ in range(times))


def _ours(device: str, size: str, batch: int, times: int, checkpointing: str) -> float:
    settings = {**recipe(size)["lightning"]["trainer"], "max_steps": times + 1}
    model = build_fast(size, frozen_precision="bf16" if computes_in_bf16(settings) else "fp32")
    clock = _Clock()
    accelerator = "gpu" if device == "cuda" else "cpu"
    settle_precision(settings, accelerator)
    where = {"accelerator": accelerator, "devices": 1}
    with TemporaryDirectory() as folder:
        callbacks = [Checkpointing(checkpointing), clock]
        trainer = make_trainer(settings, where, default_root_dir=str(Path(folder)), callbacks=callbacks)
        batches: Any = [_batch(size, batch, "cpu")] * (times + 1)
        trainer.fit(model, DataLoader(batches, batch_size=None))
    return min(after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False))


class _Clock(pl.Callback):
    """Times at which steps ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def _batch(size: str, batch: int, device: str) -> dict[str, Any]:
    side, pixels = cells(size), trained_side(size)
    mask = torch.zeros(batch, 1, pixels, pixels)
    mask[..., pixels // 4 : pixels // 2, pixels // 4 : pixels // 2] = 1
    return {
        "latent": torch.randn(batch, channels(size), side, side, device=device),
        "mask": mask.to(device),
        "type": torch.zeros(batch, dtype=torch.long, device=device),
        "seed": torch.arange(batch),
    }
