"""DFMGAN's networks: the backbone (StyleGAN2's generator), the defect branch on it, and the discriminators."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.generators.dfmgan.layers import Conv, Head, Linear, StyledConv, leaky, upsample
from ldm.errors import UserError

DEFECT_BLOCKS = 3  # the finest resolutions have a residual block: 64, 128 and 256 of a picture of 256 pixels
SLOW = 0.01  # learning rate of a mapping network relative to the others'
W_DECAY = 0.995  # of the running mean of w


@dataclass(frozen=True)
class Sizes:
    """`resolution`: of the square picture, a power of two; a layer at side r has min(channel_base / r, channel_max)
    channels; `z_dim`, `w_dim`: of the codes before and after the mapping; the defaults are the published ones."""

    resolution: int = 256
    channel_base: int = 16384
    channel_max: int = 512
    z_dim: int = 512
    w_dim: int = 512

    def __post_init__(self) -> None:
        if self.resolution < 32 or self.resolution & (self.resolution - 1):
            raise UserError(f"model.params.resolution={self.resolution} must be a power of two, 32 or more")
        if min(self.channels(self.resolution), self.channel_max, self.z_dim, self.w_dim) < 1:
            raise UserError(f"model.params.channel_base={self.channel_base}: use {self.resolution} or more")

    def channels(self, side: int) -> int:
        return min(self.channel_base // side, self.channel_max)

    @property
    def sides(self) -> list[int]:
        """4, 8, ..., resolution."""
        return [2**k for k in range(2, self.resolution.bit_length())]

    @property
    def defect_sides(self) -> list[int]:
        return self.sides[-DEFECT_BLOCKS:]


class Mapping(nn.Module):
    """z (B,z_dim) to w (B,w_dim): normalized, two layers. `mean`: the running mean of w."""

    mean: Tensor

    def __init__(self, z_dim: int, w_dim: int):
        super().__init__()
        self.layers = nn.ModuleList([Linear(z_dim, w_dim, SLOW), Linear(w_dim, w_dim, SLOW)])
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = leaky(layer(x))
        return x if truncation == 1 else self.mean + truncation * (x - self.mean)

    @torch.no_grad()
    def track(self, mean: Tensor) -> None:
        """Move the running mean towards the mean of a batch's w."""
        self.mean.lerp_(mean, 1 - W_DECAY)


class SynthesisBlock(nn.Module):
    """The two convolutions of one resolution, the first of which doubles the side."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, side: int):
        super().__init__()
        self.first = StyledConv(inputs, outputs, w_dim, side, up=True)
        self.second = StyledConv(outputs, outputs, w_dim, side)

    def forward(self, x: Tensor, first: Tensor, second: Tensor, random: bool) -> Tensor:
        return self.second(self.first(x, first, random), second, random)


class DefectBranch(nn.Module):
    """A defect's code to residual features at the finest resolutions and to logits of its mask at the coarsest of them.

    Styles `wd` (B,styles,w_dim): two for each block, the last for the mask.
    """

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.styles = sizes, 2 * DEFECT_BLOCKS + 1
        self.mapping = Mapping(sizes.z_dim, sizes.w_dim)
        sides = sizes.defect_sides
        self.blocks = nn.ModuleList(
            [SynthesisBlock(sizes.channels(s // 2), sizes.channels(s), sizes.w_dim, s) for s in sides]
        )
        self.mask = Head(sizes.channels(sides[0]), 1, sizes.w_dim)

    def logits(self, x: Tensor, wd: Tensor, random: bool = False) -> tuple[Tensor, Tensor]:
        """(residual features, mask logits (B,1,h,w)) of the coarsest block; x: the features entering it."""
        residual = self.blocks[0](x, wd[:, 0], wd[:, 1], random)
        return residual, self.mask(residual, wd[:, -1])

    def residual(self, i: int, x: Tensor, m: Tensor | None, wd: Tensor, random: bool) -> tuple[Tensor, Tensor]:
        """(residual features, mask logits) of block i; m: the logits of the block before, None for the first."""
        if m is None:
            return self.logits(x, wd, random)
        return self.blocks[i](x, wd[:, 2 * i], wd[:, 2 * i + 1], random), upsample(m)


class Rendered(NamedTuple):
    """`image` (B,3,R,R), about [-1, 1]; `m` (B,1,R,R): mask logits, a defect where >= 0, None without a branch;
    `features`: what each resolution's ToRGB saw, coarse to fine; `open` (B,1,R,R): True in cells whose gate was open at
    any resolution, which may be where the full-size logits are negative; None without a branch."""

    image: Tensor
    m: Tensor | None
    features: list[Tensor]
    open: Tensor | None = None


class SynthesisNetwork(nn.Module):
    """StyleGAN2's generator with skip connections. Styles `ws` (B,styles,w_dim), a resolution's ToRGB sharing the next
    one's first."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes, self.styles = sizes, 2 * len(sizes.sides)
        self.mapping = Mapping(sizes.z_dim, sizes.w_dim)
        width, coarsest = sizes.channels, sizes.sides[0]
        self.constant = nn.Parameter(torch.randn(width(coarsest), coarsest, coarsest))
        self.start = StyledConv(width(coarsest), width(coarsest), sizes.w_dim, coarsest)
        self.blocks = nn.ModuleList([SynthesisBlock(width(s // 2), width(s), sizes.w_dim, s) for s in sizes.sides[1:]])
        self.to_rgb = nn.ModuleList([Head(width(s), 3, sizes.w_dim) for s in sizes.sides])

    def trunk(self, ws: Tensor, random: bool = False) -> Tensor:
        """The features that enter the coarsest residual block."""
        x = self.start(self.constant.expand(len(ws), -1, -1, -1), ws[:, 0], random)
        for i, block in enumerate(list(self.blocks)[:-DEFECT_BLOCKS]):
            x = block(x, ws[:, 2 * i + 1], ws[:, 2 * i + 2], random)
        return x

    def render(
        self, ws: Tensor, branch: DefectBranch | None = None, wd: Tensor | None = None, random: bool = False
    ) -> Rendered:
        """Styles to a picture. With a branch its residual is added to the features where m >= 0, before ToRGB.

        The gate is hard: no gradient reaches m through it. `random`: with new noise, as in training.
        """
        x = self.start(self.constant.expand(len(ws), -1, -1, -1), ws[:, 0], random)
        rgb, m, features = self.to_rgb[0](x, ws[:, 1]), None, [x]
        gates: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            y = block(x, ws[:, 2 * i + 1], ws[:, 2 * i + 2], random)
            k = i - len(self.blocks) + DEFECT_BLOCKS
            if branch is not None and wd is not None and k >= 0:
                residual, m = branch.residual(k, x, m, wd, random)
                gates.append((m.detach() >= 0).to(y.dtype))
                y = y + residual * gates[-1]
            rgb = upsample(rgb) + self.to_rgb[i + 1](y, ws[:, 2 * i + 3])
            x = y
            features.append(x)
        grown = [F.interpolate(gate, rgb.shape[-2:], mode="nearest") for gate in gates]
        return Rendered(rgb, m, features, torch.stack(grown).amax(0) > 0 if grown else None)


class DiscriminatorBlock(nn.Module):
    """Residual block to half the side (StyleGAN2, figure 7c)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Conv(inputs, inputs, 3)
        self.second = Conv(inputs, outputs, 3, down=True)
        self.skip = Conv(inputs, outputs, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        # The sum of two unit variances is brought back to one.
        return leaky(self.second(leaky(self.first(x))), math.sqrt(0.5)) + self.skip(x) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """StyleGAN2's residual discriminator with a minibatch standard deviation over groups of four. `channels`: of the
    picture. (B,channels,R,R) to (B,)."""

    GROUP = 4

    def __init__(self, sizes: Sizes, channels: int = 3):
        super().__init__()
        sides, width = sizes.sides[::-1], sizes.channels
        self.from_rgb = Conv(channels, width(sides[0]), 1)
        self.blocks = nn.ModuleList([DiscriminatorBlock(width(s), width(s // 2)) for s in sides[:-1]])
        last = width(4)
        self.conv = Conv(last + 1, last, 3)
        self.dense = Linear(last * 16, last)
        self.out = Linear(last, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = leaky(self.from_rgb(image))
        for block in self.blocks:
            x = block(x)
        x = leaky(self.conv(torch.cat([x, spread(x, self.GROUP)], 1)))
        score: Tensor = self.out(leaky(self.dense(x.flatten(1))))
        return score[:, 0]


def spread(x: Tensor, group: int) -> Tensor:
    """Minibatch standard deviation: how much groups of samples differ, one number each, as a channel (B,1,H,W).

    The group is the largest divisor of B up to `group`; its members lie B / group apart (Karras et al. 2018, 3).
    """
    count = next(g for g in range(min(group, len(x)), 0, -1) if len(x) % g == 0)
    parts = x.reshape(count, -1, *x.shape[1:])
    deviation = ((parts - parts.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.repeat(count)[:, None, None, None].expand(-1, 1, *x.shape[2:])
