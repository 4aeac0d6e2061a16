"""Training a segmentation network: AdamW, a warm-up, a fall to zero; nothing is chosen by a score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.masks import to_tensor
from fast.segmentation.data import Labelled, Views
from ldm.errors import UserError
from ldm.rng import seed_of

LOSSES = ("ce", "ce+dice")
WARM_UP = 0.05  # share of the training
DECAY = 0.01
CLIP = 5.0  # largest norm of the gradient


def train(
    model: nn.Module,
    pairs: Sequence[Labelled],
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int = 8,
    lr: float = 5e-4,
    seed: int = 0,
    size: int = 256,
    native: bool = False,
    loss: str = "ce+dice",
    defect_weight: float = 3.0,
    augment: bool = True,
    bf16: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int, float, float], None] | None = None,
) -> nn.Module:
    """Train `model` on pairs, drawn by their weights; returns it, in evaluation mode, on `device`.

    `steps` or `minutes`, or both: what ends first; a training by the clock is not the same twice. `size`: side of the
    square that pictures are resized to, with `native` of the windows taken at their own resolution. `loss`:
    cross-entropy, or with Dice added, which does not fade as defects get small; `defect_weight`: weight of a defect
    pixel in the cross-entropy. `bf16`: matrix products in bfloat16. `progress(step, share, loss)` follows each step.
    """
    _check(pairs, steps, minutes, batch_size, lr, loss, defect_weight)
    device = torch.device(device)
    model = model.to(device).train()
    views = Views(pairs, size, native)
    weights = np.array([pair.weight for pair in pairs], np.float64)
    optimizer = torch.optim.AdamW(_groups(model), lr=lr, weight_decay=DECAY)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gpus = [device] if device.type == "cuda" else []
    start, step, share = time.perf_counter(), 0, 0.0
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)  # dropout
        while share < 1:
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule(share)
            image, target = _batch(views, weights, batch_size, seed, step, augment)
            image, target = image.to(device), target.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(image)
            value = objective(logits.float(), target, loss, defect_weight)
            now = float(value.detach())
            if not math.isfinite(now):
                raise UserError(f"the loss became {now} at step {step}; lower lr={lr}")
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            step += 1
            spent = (time.perf_counter() - start) / 60
            share = max(step / steps if steps else 0.0, spent / minutes if minutes else 0.0)
            if progress:
                progress(step, min(share, 1.0), now)
    return model.eval()


def schedule(share: float) -> float:
    """Factor of the learning rate: linear up to 1 in the first steps, then down as (1 - share)^0.9."""
    return max(0.01, min(1.0, share / WARM_UP)) * math.pow(1 - share, 0.9)


def objective(logits: Tensor, target: Tensor, loss: str = "ce+dice", defect_weight: float = 1.0) -> Tensor:
    """Scalar loss of logits (B,K,H,W) for labels (B,H,W) in 0..K-1; class 0 is background, all others are defects."""
    weight = torch.full((logits.shape[1],), float(defect_weight), device=logits.device)
    weight[0] = 1.0
    value = F.cross_entropy(logits, target, weight)
    return value if loss == "ce" else value + dice(1 - logits.softmax(dim=1)[:, 0], (target > 0).float())


def dice(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of the whole batch, (B,H,W) each. Pooled, so that a picture without a defect does not decide it."""
    both = (probability * target).sum()
    return 1 - (2 * both + 1) / (probability.sum() + target.sum() + 1)


def _batch(
    views: Views, weights: np.ndarray, batch_size: int, seed: int, step: int, augment: bool
) -> tuple[Tensor, Tensor]:
    """image (B,3,size,size) in [-1, 1] and labels int64 (B,size,size); depends on the seed and the step alone."""
    rng = np.random.default_rng(seed_of(seed, step))
    chosen = rng.choice(len(views), size=batch_size, p=weights / weights.sum())
    drawn = [views.draw(int(i), rng, augment) for i in chosen]
    images = torch.stack([to_tensor(image) for image, _ in drawn])
    return images, torch.from_numpy(np.stack([mask for _, mask in drawn]).astype(np.int64))


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Biases and the scales of norms do not decay."""
    free = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in free if p.ndim > 1]},
        {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _check(
    pairs: Sequence[Labelled],
    steps: int | None,
    minutes: float | None,
    batch_size: int,
    lr: float,
    loss: str,
    defect_weight: float,
) -> None:
    if not pairs:
        raise UserError("no pairs to train a segmenter on; give a folder that holds some")
    limits = [limit for limit in (steps, minutes) if limit is not None]
    if not limits or min(limits) <= 0:
        raise UserError(f"steps={steps}, minutes={minutes}: give one of them, above 0")
    if batch_size < 2:
        raise UserError(f"batch_size={batch_size} is below 2, which batch normalisation needs; raise it")
    if not lr > 0 or not defect_weight > 0:
        raise UserError(f"lr={lr} and defect_weight={defect_weight} must be above 0")
    if loss not in LOSSES:
        raise UserError(f"loss '{loss}' is unknown; use one of {', '.join(LOSSES)}")
