"""What happens around the steps of a training: seeds, a stop at a bad loss, sample grids."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from fast.data.images import write_image
from fast.data.samples import Pictures
from fast.data.tensors import to_image
from fast.latent.decoder import fit_decoder
from fast.runtime.progress import in_words
from fast.training.trainer import say
from ldm.errors import UserError
from ldm.rng import seed_of


class Stopped(UserError):
    """Ends a run on every rank at once; the first process tells the user."""


class Clock(pl.Callback):
    """Counts the minutes of a training, over all its resumptions, and ends it after `limit` of them (None: never).

    Everything counts that comes after the start: reading, encoding and saving too.
    """

    def __init__(self, limit: float | None):
        self.limit = limit
        self._before = 0.0
        self._start: float | None = None

    @property
    def minutes(self) -> float:
        return self._before + (0.0 if self._start is None else (time.monotonic() - self._start) / 60)

    def state_dict(self) -> dict[str, Any]:
        return {"minutes": self.minutes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before, self._start = state["minutes"], time.monotonic()

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.limit is not None:
            over = trainer.strategy.reduce_boolean_decision(self.minutes >= self.limit, all=False)
            trainer.should_stop = trainer.should_stop or over


class StepSeeds(pl.Callback):
    """Seeds torch's global generator from (seed, step, rank), so that a resumed run draws what an unbroken one drew."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        part = batch_idx % trainer.accumulate_grad_batches
        torch.manual_seed(seed_of(self.seed, trainer.global_step, part, trainer.global_rank))


class StopOnBadLoss(pl.Callback):
    """Ends the run on every rank when a loss is not a number, before the step reaches the weights."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: Tensor) -> None:
        if trainer.strategy.reduce_boolean_decision(not bool(torch.isfinite(loss.detach()).all()), all=False):
            raise Stopped(f"the loss is not finite (NaN) at step {trainer.global_step + 1}; {way_on(self.folder)}")


def way_on(folder: Path) -> str:
    """What to do after a run that diverged."""
    kept = folder / "checkpoints" / "last.ckpt"
    if kept.is_file():
        return f"the last good checkpoint is {kept}: go on with -t -r {folder} and a lower model.params.lr"
    return "there is no checkpoint yet: start again with a lower model.params.lr"


class Rate(pl.Callback):
    """A resumed optimizer brings its old learning rate; the config's counts, so that `-r` can change it."""

    def __init__(self, rate: float | None):
        self.rate = rate

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if self.rate is None:
            return
        schedules = {id(c.scheduler.optimizer): c.scheduler for c in trainer.lr_scheduler_configs}
        for optimizer in trainer.optimizers:
            schedule: Any = schedules.get(id(optimizer))
            for i, group in enumerate(optimizer.param_groups):
                if group.get("initial_lr", group["lr"]) == self.rate:
                    continue
                group["lr"] = self.rate
                if schedule is not None:
                    schedule.base_lrs[i] = group["initial_lr"] = self.rate
                    group["lr"] *= schedule.lr_lambdas[i](schedule.last_epoch)


class DecoderFit(pl.Callback):
    """Before the first step of a run whose FAST has `fit_decoder`: the fit, once; a resumed run brings its result.

    `pictures()`: the training pictures, normals and defects, asked for only then. `minutes`: of the run at most, of
    which the fit takes a share at most; None: it does two steps for three of the run at most.
    """

    def __init__(self, pictures: Callable[[], Pictures], seed: int, minutes: float | None = None):
        self.pictures, self.seed, self.minutes = pictures, seed, minutes

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        options = getattr(module, "fit_decoder", None)
        if options is None or module.decoder_fitted:
            return
        pictures = self.pictures()
        seconds = None if self.minutes is None else 60 * self.minutes * options.share
        if seconds is None and trainer.max_steps > 0:
            options = replace(options, steps=min(options.steps, max(1, 2 * trainer.max_steps // 3)))
        within = "" if seconds is None else f" in {in_words(seconds)}"
        say(f"fitting the first stage's decoder to {len(pictures)} pictures, at most {options.steps} steps{within}")
        show = lambda i, s: pictures.view(i, s)[0]  # noqa: E731
        before, after = fit_decoder(module, len(pictures), show, options, self.seed, seconds)
        module.decoder_fitted = True
        if before == after:
            why = "which is good" if before >= options.enough else "and no fit within its steps or time betters it"
            say(f"the training pictures through the first stage: {before:.2f} dB, {why}: its decoder stays")
            return
        say(f"the training pictures through the first stage: {before:.2f} dB before the fit, {after:.2f} dB after it")


class SampleGrid(pl.Callback):
    """Every `every` steps writes `images/<step>.png`: a row for each kind of picture that the module shows."""

    def __init__(self, folder: Path, every: int, count: int = 8):
        self.folder, self.every, self.count = folder / "images", every, count
        self._shown = 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        step = trainer.global_step
        if not self.every or step % self.every or step == self._shown or not trainer.is_global_zero:
            return
        self._shown = step
        batch = trainer.datamodule.examples(self.count)  # type: ignore[attr-defined]
        batch = {k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        training = module.training
        module.eval()
        with torch.random.fork_rng(devices=[]), trainer.precision_plugin.forward_context():
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
