"""What the convolutional segmenters share: their one repeated layer, and what they answer while they train."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Heads(NamedTuple):
    """What a segmenter with auxiliary heads answers in training. `logits`: (B,num_classes,H,W) each, the main ones
    first; `detail`: logits (B,1,h,w) of where defects end, of those networks that learn it."""

    logits: list[Tensor]
    detail: Tensor | None = None


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, and a ReLU unless `relu` is off; padded to keep the size."""

    def __init__(
        self, before: int, after: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))
