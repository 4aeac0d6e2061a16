"""Learning-rate multipliers that published configs name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ldm.util import instantiate_from_config


class LambdaLinearScheduler:
    """Per cycle: linear warm-up from `f_start` to `f_max`, then a linear fall to `f_min` at the cycle's end."""

    def __init__(
        self,
        warm_up_steps: Sequence[int],
        f_min: Sequence[float],
        f_max: Sequence[float],
        f_start: Sequence[float],
        cycle_lengths: Sequence[int],
        verbosity_interval: int = 0,
    ):
        self.warm_up, self.f_min, self.f_max, self.f_start = warm_up_steps, f_min, f_max, f_start
        self.cycles = cycle_lengths

    def schedule(self, n: int) -> float:
        """The multiplier of step n."""
        start = 0
        for cycle, length in enumerate(self.cycles):
            if n - start <= length or cycle == len(self.cycles) - 1:
                break
            start += length
        n -= start
        if n < self.warm_up[cycle]:
            return self.f_start[cycle] + (self.f_max[cycle] - self.f_start[cycle]) * n / self.warm_up[cycle]
        left = max(length - n, 0) / length
        return self.f_min[cycle] + (self.f_max[cycle] - self.f_min[cycle]) * left


class LambdaWarmUpCosineScheduler:
    """Linear warm-up from `lr_start` to `lr_max`, then half a cosine down to `lr_min` at `max_decay_steps`."""

    def __init__(
        self,
        warm_up_steps: int,
        lr_min: float,
        lr_max: float,
        lr_start: float,
        max_decay_steps: int,
        verbosity_interval: int = 0,
    ):
        self.warm_up, self.last = warm_up_steps, max_decay_steps
        self.lr_min, self.lr_max, self.lr_start = lr_min, lr_max, lr_start

    def schedule(self, n: int) -> float:
        """The multiplier of step n."""
        if n < self.warm_up:
            return self.lr_start + (self.lr_max - self.lr_start) * n / self.warm_up
        done = min((n - self.warm_up) / (self.last - self.warm_up), 1.0)
        return self.lr_min + (self.lr_max - self.lr_min) * (1 + math.cos(math.pi * done)) / 2


def scheduled(optimizer: torch.optim.Optimizer, config: Mapping[str, Any] | None) -> Any:
    """What Lightning takes from `configure_optimizers`: the optimizer, its rate following `scheduler_config` if any."""
    if config is None:
        return optimizer
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, instantiate_from_config(config).schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
