"""What happens around the steps of a training: seeds, checkpoints, artifacts, sample grids, a clean stop."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fast.data.images import write_image
from fast.masks import to_image
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.rng import seed_of


class StepSeeds(pl.Callback):
    """Seeds torch's global generator from (seed, step, rank), so that a resumed run draws what an unbroken one drew."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(seed_of(self.seed, batch_idx, trainer.global_rank))


class StopOnBadLoss(pl.Callback):
    """Ends the run on every rank when a loss is not a number, before the step reaches the weights."""

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: Tensor) -> None:
        bad = (~torch.isfinite(loss.detach())).float()
        if trainer.world_size > 1:
            torch.distributed.all_reduce(bad)
        if bad > 0:
            kept = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            remedy = f"the last good checkpoint is {kept}; go on with -r" if kept.is_file() else "start again"
            raise UserError(
                f"loss is {float(loss):g} at step {trainer.global_step}; {remedy} and a lower model.params.lr"
            )


class Saver(pl.Callback):
    """Every `every` steps, at the end and on Ctrl-C: `checkpoints/last.ckpt` to resume from, and the artifact."""

    def __init__(self, folder: Path, every: int, keep: int, metadata: Callable[[], dict[str, str]]):
        self.folder, self.every, self.keep, self.metadata = folder / "checkpoints", max(1, every), keep, metadata
        self.stopping = False
        self.latest: Path | None = None
        self._saved = -1
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._saved = trainer.global_step
        self._previous = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        stopping = trainer.strategy.reduce_boolean_decision(self.stopping, all=False)
        if stopping or (trainer.global_step % self.every == 0 and trainer.global_step != self._saved):
            self.save(trainer)
        if stopping:
            self.stopping = trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self._saved != trainer.global_step:
            self.save(trainer)
        signal.signal(signal.SIGINT, self._previous)

    def save(self, trainer: pl.Trainer) -> None:
        """Artifact first, then the resume point: a kill in between loses nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        step, part = trainer.global_step, self.folder / "last.ckpt.part"
        try:
            if trainer.is_global_zero:
                name, tensors = trainer.lightning_module.artifact()  # type: ignore[operator]
                self.latest = self.folder / f"{name}-{step}.safetensors"
                save_safetensors(tensors, self.latest, self._describe(trainer))
                self._prune(name)
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                os.replace(part, self.folder / "last.ckpt")
                for logger in trainer.loggers:
                    logger.save()
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and "write" not in str(error):
                raise
            part.unlink(missing_ok=True)
            raise UserError(
                f"cannot write to {self.folder} at step {step} ({error}); free disk space and go on with -r"
            ) from None
        self._saved = step

    def _describe(self, trainer: pl.Trainer) -> dict[str, str]:
        own: dict[str, str] = getattr(trainer.lightning_module, "artifact_metadata", dict)()
        return {"step": str(trainer.global_step), **self.metadata(), **own}

    def _prune(self, name: str) -> None:
        if self.keep:
            found = sorted(self.folder.glob(f"{name}-*.safetensors"), key=lambda p: int(p.stem.rsplit("-", 1)[1]))
            for old in found[: -self.keep]:
                old.unlink()


class SampleGrid(pl.Callback):
    """Every `every` steps writes `images/<step>.png`: a row for each kind of picture that the module shows."""

    def __init__(self, folder: Path, every: int, count: int = 8):
        self.folder, self.every, self.count = folder / "images", every, count

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        step = trainer.global_step
        if not self.every or step % self.every or not trainer.is_global_zero or step == 0:
            return
        batch = trainer.datamodule.examples(self.count)  # type: ignore[attr-defined]
        batch = {k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        training = module.training
        module.eval()
        with torch.random.fork_rng(devices=[]):
            rows = module.log_images(batch)
        module.train(training)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_image(self.folder / f"{step:07d}.png", grid(list(rows.values())))


def grid(rows: list[Tensor], gap: int = 4) -> np.ndarray:
    """Rows of pictures (B,3,H,W) in [-1, 1] as one uint8 picture, B columns, white between them."""
    lines = []
    for row in rows:
        cells = [np.pad(to_image(p), ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in row]
        lines.append(np.concatenate(cells, axis=1))
    return np.concatenate(lines, axis=0)


def config_metadata(config: dict[str, Any], split: str) -> dict[str, str]:
    """What an artifact records of its making."""
    return {"config": json.dumps(config), "split": split}
