"""The training of a segmenter as a Lightning module: its loss, its optimizer and its schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from fast.data.mask_looks import IGNORED
from fast.data.tensors import to_tensor
from fast.segmentation.data import Views, is_normal
from fast.segmentation.layers import Heads
from fast.segmentation.losses import objective
from fast.segmentation.prior import PixelShare
from fast.segmentation.recipes import TrainingRecipe
from ldm.errors import UserError
from ldm.rng import seed_of

Batch = tuple[Tensor, Tensor]


class Batches(Dataset[Batch]):
    """Batch number `step`, drawn by the pairs' weights: image (B,3,H,W) in [-1, 1] and labels int64 (B,H,W), 255 for
    pixels that no loss sees. It depends on the seed and the step alone. `drawn`: the pixels of all views of pictures
    with a defect that were drawn so far."""

    def __init__(self, views: Views, count: int, batch_size: int, seed: int, augment: str):
        self.views, self.count, self.batch_size, self.seed, self.augment = views, count, batch_size, seed, augment
        weights = np.array([pair.weight for pair in views.samples], np.float64)
        self.chances = weights / weights.sum()
        self.drawn = PixelShare()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng(seed_of(self.seed, step))
        chosen = rng.choice(len(self.views), size=self.batch_size, p=self.chances)
        drawn = [self.views.draw(int(i), rng, self.augment) for i in chosen]
        for i, (_, mask) in zip(chosen, drawn, strict=True):
            if not is_normal(self.views.samples[i]):
                self.drawn.add(mask)
        images = torch.stack([to_tensor(image) for image, _ in drawn])
        kinds = np.array([self.views.samples[i].label for i in chosen], np.int64)
        labels = np.stack([mask for _, mask in drawn])
        return images, torch.from_numpy(np.where(labels == IGNORED, IGNORED, labels * kinds[:, None, None]))


class SegmentationModule(pl.LightningModule):
    """Trains a segmentation network in place, with the loss, optimizer and schedule of a recipe.

    `finish` returns the network when the training has ended.

    Args:
        network: the network to train. Its auxiliary heads take part if it has an attribute `heads`.
        recipe: optimizer and schedule. The learning rate follows the share of the budget that is spent.
        lr: learning rate, which the recipe's schedule scales.
        loss: a loss of `fast.segmentation.losses.objective`.
        defect_weight: weight of a defect pixel in the cross-entropy of "ce" and "ce+dice".
        classes: how many classes the labels need, the background among them.
        steps, minutes: the budget in optimizer steps and minutes of the clock. None: no such limit. What is reached
            first ends the training.
        ema: decay of the averaged weights, which `finish` puts in the place of the trained ones. 0: no average.
        bf16: compute matrix products in bfloat16.
        progress: called as `progress(step, share, loss)` after each step, with the share (0..1) of the budget that is
            spent.

    Raises:
        UserError: in training, when the network has too few classes or the loss is no longer finite.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: TrainingRecipe,
        *,
        lr: float,
        loss: str,
        defect_weight: float = 1.0,
        classes: int = 2,
        steps: int | None = None,
        minutes: float | None = None,
        ema: float = 0.0,
        bf16: bool = False,
        progress: Callable[[int, float, float], None] | None = None,
    ):
        super().__init__()
        self.network, self.recipe = network, recipe
        self.lr, self.loss, self.defect_weight, self.classes = lr, loss, defect_weight, classes
        self.steps, self.minutes, self.bf16, self.progress = steps, minutes, bf16, progress
        self.ema = ema
        self.averaged = AveragedModel(network, avg_fn=self._average, use_buffers=True) if ema else None
        self.start, self.step, self.share, self.now = time.perf_counter(), 0, 0.0, math.nan

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.recipe.make_optimizer(self.network, self.lr)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["base_lr"] * self.recipe.factor(self.share)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        image, target = batch
        all_heads = getattr(self.network, "heads", None)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            heads = all_heads(image) if all_heads else Heads([self.network(image)])
        if (count := heads.logits[0].shape[1]) < self.classes:
            raise UserError(f"labels need {self.classes} classes, the segmenter has {count}; build it with more")
        value = objective(heads, target, self.loss, self.defect_weight)
        self.now = float(value.detach())
        if not math.isfinite(self.now):
            raise UserError(f"the loss became {self.now} at step {self.step}; lower lr={self.lr:g}")
        return value

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        spent = (time.perf_counter() - self.start) / 60
        self.share = max(self.step / self.steps if self.steps else 0.0, spent / self.minutes if self.minutes else 0.0)
        if self.progress:
            self.progress(self.step, min(self.share, 1.0), self.now)
        self.trainer.should_stop = self.trainer.should_stop or self.share >= 1

    def finish(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        if self.averaged is not None:
            self.network.load_state_dict(self.averaged.module.state_dict())
        return self.network.eval()

    def _average(self, mean: Tensor, now: Tensor, _: Tensor | int) -> Tensor:
        """Early averages reach back less far, so that short trainings keep nothing of the first weights."""
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        return mean.lerp(now, 1 - decay) if now.is_floating_point() else now
