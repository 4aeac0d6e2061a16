"""What the conditioning model makes of prompts, kept for a frozen one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution


def encode(encoder: nn.Module, condition: Any, method: str | None = None) -> Tensor:
    """Encode a condition by a method of the encoder.

    Without `method` that is its `encode`, or a call of the encoder where it has none. Of a Gaussian the mode is taken.
    """
    call = getattr(encoder, method or "encode", None if method else encoder)
    if call is None:
        raise UserError(f"cond_stage_forward={method} is no method of {type(encoder).__name__}")
    encoded = call(condition)
    return encoded.mode() if isinstance(encoded, DiagonalGaussianDistribution) else encoded


class PromptCache:
    """Encodings by prompt, at most `limit` of them."""

    def __init__(self, limit: int = 4096):
        self.limit = limit
        self.known: dict[str, Tensor] = {}

    def get(self, prompts: Sequence[str], encode: Callable[[list[str]], Tensor], device: Any) -> Tensor:
        """Encodings (B,L,width) of B prompts; `encode` is called for those not known, each once."""
        fresh = sorted(set(prompts) - set(self.known))
        if len(self.known) + len(fresh) > self.limit:
            self.known.clear()
            fresh = sorted(set(prompts))
        if fresh:
            self.known.update(zip(fresh, encode(fresh), strict=True))
        return torch.stack([self.known[p].to(device) for p in prompts])
