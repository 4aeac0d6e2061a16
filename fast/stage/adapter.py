"""MGA, the mask guidance adapter (STAGE, Sec. III-D): what a frozen U-Net says, corrected by one who knows the mask."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.diffusionmodules.util import zero_module


class MGA(nn.Module):
    """`MGA(eps, mask) -> eps`: noise as the U-Net predicts it (B,channels,h,w) and mask (B,1,h,w) in [0, 1], any size.

    A 3x3 convolution, batch norm and ReLU for each of `widths`, in the order of the release (the paper: conv, ReLU,
    norm), then 1x1. 2,662,532 parameters as published.
    `residual`: add the U-Net's own prediction to the answer, whose last layer starts at zero. Not in the paper: there
    the adapter learns to repeat the noise before it can correct it, which takes longer than the correction.
    """

    def __init__(self, channels: int = 4, widths: Sequence[int] = (64, 256, 512, 256, 64), residual: bool = False):
        super().__init__()
        if not widths or any(not isinstance(w, int) or isinstance(w, bool) or w < 1 for w in widths):
            raise UserError(f"mga.widths={list(widths)} must be whole numbers from 1; write [64, 256, 512, 256, 64]")
        self.residual = residual
        self.blocks = nn.Sequential(*[_block(a, b) for a, b in itertools.pairwise([2 * channels, *widths])])
        out = nn.Conv2d(widths[-1], channels, 1)
        self.out = zero_module(out) if residual else out

    def forward(self, eps: Tensor, mask: Tensor) -> Tensor:
        # The mask fills as many channels as the noise, so that neither outweighs the other at the start.
        seen = torch.cat([eps, mask.to(eps).expand_as(eps)], dim=1)
        answer = self.out(self.blocks(seen))
        return eps + answer if self.residual else answer


def _block(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())
