"""Coders of a small first stage: residual convolutions without norms, so that a crop looks to them as the whole does.

They work at half the resolution at most (pixels in squares of four become channels), which is what a CPU has time for.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.diffusionmodules.util import zero_module


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), the identity at the start, which is what a net without norms needs to train."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        zero_module(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class _Grow(nn.Module):
    """Twice the sides, nearest, and another width."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class TinyEncoder(nn.Module):
    """Image (B,3,H,W) to moments (B,2*z_channels,H/f,W/f), f = 2 ** len(widths).

    `widths`: channels from half the resolution downwards; `blocks`: residual blocks at each.
    """

    def __init__(self, z_channels: int, widths: Sequence[int], blocks: int = 2):
        super().__init__()
        self.conv_in = nn.Conv2d(12, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i:
                layers.append(nn.Conv2d(widths[i - 1], width, 3, stride=2, padding=1))
            layers += [_Residual(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.conv_out = nn.Conv2d(widths[-1], 2 * z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(F.relu(self.layers(self.conv_in(F.pixel_unshuffle(x, 2)))))


class TinyDecoder(nn.Module):
    """Latent (B,z_channels,h,w) to image (B,3,f*h,f*w); arguments as for `TinyEncoder`."""

    def __init__(self, z_channels: int, widths: Sequence[int], blocks: int = 2):
        super().__init__()
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        layers: list[nn.Module] = []
        for i in reversed(range(len(widths))):
            layers += [_Residual(widths[i]) for _ in range(blocks)]
            if i:
                layers.append(_Grow(widths[i], widths[i - 1]))
        self.layers = nn.Sequential(*layers)
        self.conv_out = nn.Conv2d(widths[0], 12, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv_out(F.relu(self.layers(self.conv_in(z)))), 2)
