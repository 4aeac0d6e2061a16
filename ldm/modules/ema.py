"""Exponential moving average of weights, with latent-diffusion's buffer names."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class LitEma(nn.Module):
    """Keeps `decay * average + (1 - decay) * weight` of every trainable parameter of `model`.

    The decay starts low and rises as (1 + n) / (10 + n), so that the average forgets the initial weights.
    """

    decay: Tensor
    num_updates: Tensor

    def __init__(self, model: nn.Module, decay: float = 0.9999):
        super().__init__()
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0, dtype=torch.int))
        for name, p in model.named_parameters():
            if p.requires_grad:
                self.register_buffer(self.buffer_name(name), p.detach().clone())

    @staticmethod
    def buffer_name(name: str) -> str:
        """A parameter's name without dots, which a buffer may not have."""
        return name.replace(".", "")

    @torch.no_grad()
    def forward(self, model: nn.Module) -> None:
        """Take one step towards the weights of `model`."""
        self.num_updates += 1
        n = int(self.num_updates)
        decay = min(float(self.decay), (1 + n) / (10 + n))
        own = dict(self.named_buffers())
        for name, p in model.named_parameters():
            if p.requires_grad:
                own[self.buffer_name(name)].lerp_(p.detach(), 1 - decay)

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The averaged weights under the model's own parameter names."""
        own = dict(self.named_buffers())
        return {n: own[self.buffer_name(n)] for n, p in model.named_parameters() if self.buffer_name(n) in own}

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within, `model` works with its averaged weights."""
        parameters = dict(model.named_parameters())
        averaged = self.weights(model)
        trained = {name: parameters[name].data for name in averaged}
        try:
            for name, value in averaged.items():
                parameters[name].data = value
            yield
        finally:
            for name, value in trained.items():
                parameters[name].data = value
