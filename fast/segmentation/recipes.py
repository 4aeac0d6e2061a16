"""How segmenters are trained: one recipe for all of them, and the one that each was published with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ldm.errors import UserError


@dataclass(frozen=True)
class TrainingRecipe:
    """Optimizer and schedule. What was published in steps is kept as a share of the whole training, so that it fits a
    shorter one too."""

    lr: float
    batch_size: int
    loss: str
    optimizer: str = "adamw"  # or "sgd", with momentum 0.9
    decay: float = 0.01  # none on biases and the scales of norms
    warm_up: float = 0.05  # share of the training
    warm_up_from: float = 0.01  # factor of the learning rate at its start
    exponential: bool = False  # the warm-up; else it is linear
    power: float = 0.9  # of the fall to zero
    heads: tuple[str, ...] = ()  # parts of the network that learn ten times as fast
    clip: float | None = None  # largest norm of the gradient
    defect_weight: float = 3.0  # of a defect pixel in the cross-entropy

    def factor(self, share: float) -> float:
        """Of the learning rate after `share` of the training: up to 1 in the warm-up, down as (1 - share)^power."""
        done = min(1.0, share / self.warm_up)
        first = self.warm_up_from ** (1 - done) if self.exponential else max(self.warm_up_from, done)
        return first * (1 - share) ** self.power

    def make_optimizer(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Each group keeps its own highest rate as `base_lr`."""
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        head = [p for name, p in named if name.startswith(self.heads)]  # no name does with an empty tuple
        body = [p for name, p in named if not name.startswith(self.heads)]
        groups = [*_groups(body, lr, self.decay), *_groups(head, 10 * lr, self.decay)]
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=0.9)
        return torch.optim.AdamW(groups, lr=lr)


def _groups(parameters: Iterable[nn.Parameter], lr: float, decay: float) -> list[dict[str, object]]:
    parameters = list(parameters)
    parts = [([p for p in parameters if p.ndim > 1], decay), ([p for p in parameters if p.ndim <= 1], 0.0)]
    return [{"params": part, "lr": lr, "base_lr": lr, "weight_decay": value} for part, value in parts if part]


COMMON = TrainingRecipe(lr=5e-4, batch_size=8, loss="ce+dice", clip=5.0)
# Networks with an encoder that comes trained.
PRETRAINED = {"FPN": TrainingRecipe(lr=5e-4, batch_size=8, loss="ce+dice", clip=5.0, defect_weight=1.0)}
# By the network's class. Published for Cityscapes or ADE20K; rates are for these batch sizes.
PUBLISHED = {
    # CoinCheung/BiSeNet: 1000 steps of warm-up in 150,000
    "BiSeNetV2": TrainingRecipe(
        lr=5e-3, batch_size=8, loss="ohem", optimizer="sgd", decay=5e-4, warm_up=1000 / 150_000, warm_up_from=0.1,
        exponential=True, heads=("head.", "aux."),
    ),
    # MichaelFan01/STDC-Seg: 16 on each of 3 GPUs, 1000 steps of warm-up from 1e-5 in 60,000
    "STDC": TrainingRecipe(
        lr=0.01, batch_size=48, loss="ohem+detail", optimizer="sgd", decay=5e-4, warm_up=1000 / 60_000,
        warm_up_from=1e-3, exponential=True, heads=("fusion.", "head.", "aux."),
    ),
    # mmsegmentation: 1500 steps of warm-up in 160,000
    "SegFormer": TrainingRecipe(
        lr=6e-5, batch_size=16, loss="ce", warm_up=1500 / 160_000, warm_up_from=1e-6, power=1.0,
        heads=("network.decode_head.",),
    ),
}  # fmt: skip
RECIPES = ("common", "published")


def find(name: str, network: nn.Module) -> TrainingRecipe:
    """The recipe "common" or "published" for a network. Raises `UserError` where none was published."""
    if name not in RECIPES:
        raise UserError(f"recipe '{name}' is unknown; use one of {', '.join(RECIPES)}")
    return PRETRAINED.get(type(network).__name__, COMMON) if name == "common" else published(network)


def published(network: nn.Module) -> TrainingRecipe:
    recipe = PUBLISHED.get(type(network).__name__)
    if recipe is None:
        raise UserError(f"nothing is published for {type(network).__name__}; use recipe=common and another loss")
    return recipe
