"""A small pixel classifier on the frozen encoder's features, and both as one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.features.efficientnet import CHANNELS, pretrained
from fast.features.store import CELL, WIDTH, to_cells
from fast.segmentation.padding import on_multiples
from ldm.errors import UserError

HIDDEN = (128, 64)


class PixelHead(nn.Module):
    """Three linear layers for each cell: standardized features, 128, 64, then the log-odds of a defect.

    The first is applied to each scale at its own resolution, and what comes out is interpolated and summed: the same
    numbers as those of interpolated features, for a fraction of the work.
    """

    mean: Tensor
    std: Tensor
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN[0])
        self.rest = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], 1))
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("std", torch.ones(WIDTH))
        self.register_buffer("threshold", torch.zeros(()))

    def cells(self, features: Tensor) -> Tensor:
        """Log-odds (n,) of features (n, WIDTH)."""
        return self.rest(self.first((features - self.mean) / self.std))[:, 0]

    def image(self, maps: Sequence[Tensor]) -> Tensor:
        """Log-odds (B,1,h,w) from five maps (B,C,.,.), of which the finest has h x w cells."""
        size = maps[0].shape[-2:]
        weights = (self.first.weight / self.std).split(CHANNELS, dim=1)
        offset = self.first.bias - (self.first.weight / self.std) @ self.mean
        total: Tensor = offset[:, None, None]
        for features, weight in zip(maps, weights, strict=True):
            part = F.conv2d(features, weight[:, :, None, None])
            same = part.shape[-2:] == size
            total = total + (part if same else F.interpolate(part, size=size, mode="bilinear", align_corners=False))
        return self.rest(total.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Quick(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,2,H,W), any H and W: the frozen encoder and a `PixelHead`. The two logits are
    equal at its chosen threshold. `QuickJudge.fit` trains the head, not `fast.segmentation.train`."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        if num_classes != 2:
            raise UserError(f"segmenter 'quick' tells defects from background only, not {num_classes} classes; use fpn")
        self.encoder = pretrained().eval().requires_grad_(False)
        self.head = PixelHead()

    @classmethod
    def of(cls, head: PixelHead) -> Quick:
        """The network of a trained head."""
        network = cls()
        network.head = head
        return network

    def train(self, mode: bool = True) -> Quick:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(self._logits, image, 32)

    def _logits(self, x: Tensor) -> Tensor:
        odds = self.head.image(to_cells(self.encoder(x))) - self.head.threshold
        return to_pixels(odds, CELL)


def to_pixels(odds: Tensor, factor: int) -> Tensor:
    """Log-odds (B,1,h,w) to logits (B,2,H,W), with those of the background 0."""
    odds = F.interpolate(odds, scale_factor=factor, mode="bilinear", align_corners=False)
    return torch.cat([torch.zeros_like(odds), odds], dim=1)
