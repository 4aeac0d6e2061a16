"""A feature pyramid (Lin et al., 2017) on the shipped ImageNet encoder: the default segmenter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.features.efficientnet import CHANNELS, pretrained
from fast.segmentation.layers import ConvNorm
from fast.segmentation.padding import on_multiples

WIDTH = 64
FROZEN = 2  # stages


class FPN(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W), any H and W; inside they are computed at a quarter.

    The encoder has the shipped ImageNet weights. Its normalization keeps their statistics, and its layers at strides 2
    and 4 keep their weights: a third of a training step less, and 27 thousand numbers fewer to fit to a few defects.
    """

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.encoder = pretrained()
        for part in (self.encoder.stem, *self.encoder.stages[:FROZEN]):
            part.requires_grad_(False)
        scales = CHANNELS[1:]
        self.lateral = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in scales)
        self.smooth = nn.ModuleList(ConvNorm(WIDTH, WIDTH) for _ in scales)
        self.fuse = ConvNorm(WIDTH, WIDTH)
        self.dropout = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(WIDTH, num_classes, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> FPN:
        super().train(mode)
        self.encoder.eval()  # batches of 8 would be poor statistics
        return self

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(self._logits, image, 32)

    def _logits(self, x: Tensor) -> Tensor:
        laterals = [layer(f) for layer, f in zip(self.lateral, self.encoder(x)[1:], strict=True)]
        level, merged = laterals[-1], []
        for number in range(len(laterals) - 1, -1, -1):
            if number < len(laterals) - 1:
                level = laterals[number] + F.interpolate(level, scale_factor=2, mode="nearest")
            merged.append(self.smooth[number](level))
        size = merged[-1].shape[-2:]
        total = sum(F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in merged)
        logits = self.head(self.dropout(self.fuse(total)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
