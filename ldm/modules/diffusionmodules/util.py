"""Small parts shared by the networks."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of t (B,) -> (B, dim) float32: cosines first, then sines, a zero column if dim is odd."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * freqs[None]
    embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
    return nn.functional.pad(embedding, (0, dim % 2))


def zero_module(module: nn.Module) -> Any:
    """Zero a module's parameters, so that the block around it starts as its skip path."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def normalization(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels)


def conv_nd(dims: int, *args: Any, **kwargs: Any) -> nn.Module:
    return {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](*args, **kwargs)


def avg_pool_nd(dims: int, *args: Any, **kwargs: Any) -> nn.Module:
    return {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[dims](*args, **kwargs)


def checkpointed(function: Callable[..., Tensor], enabled: bool, *args: Any) -> Tensor:
    """`function(*args)`, its activations recomputed in the backward pass instead of kept when `enabled`."""
    if enabled and torch.is_grad_enabled():
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)
    return function(*args)
