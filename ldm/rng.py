"""Random generators keyed by numbers, so that a draw depends on what it is for and never on what ran before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # heavy: a program that draws with numpy alone, or is asked for help, does not wait for it
    import torch
    from torch import Tensor


def seed_of(*key: int) -> int:
    """One 63-bit seed for a tuple of non-negative numbers, such as (run seed, step, position in the batch)."""
    return int(np.random.SeedSequence([int(k) for k in key]).generate_state(1, np.uint64)[0] >> 1)


def generator(*key: int) -> torch.Generator:
    """A CPU generator for this key. On the CPU always, so that every device sees the same numbers."""
    import torch

    return torch.Generator().manual_seed(seed_of(*key))


class PairNoise:
    """Standard normal noise for a batch whose every row has a generator of its own: `noise(x)` is like x (B, ...).

    Drawn a few steps at a time, and moved to a GPU without waiting for what it is doing.
    """

    AHEAD = 8

    def __init__(self, generators: Sequence[torch.Generator]):
        self.generators = list(generators)
        self._ready: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        if not self._ready:
            shape = (self.AHEAD, *x.shape[1:])
            rows = [torch.randn(shape, generator=g, dtype=torch.float32) for g in self.generators]
            drawn = torch.stack(rows, dim=1)
            drawn = drawn.pin_memory() if x.device.type == "cuda" else drawn
            self._ready = list(drawn.to(x.device, non_blocking=True))
        return self._ready.pop(0).to(x.dtype)
