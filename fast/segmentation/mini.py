"""A small, fast encoder-decoder with skip connections, for CPUs: 0.8 M parameters, trained in a minute."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.segmentation.padding import on_multiples


def _block(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = _block(width, width)
        self.outer = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.outer(self.inner(x)))


class Mini(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W), any H and W.

    Nothing is computed at full resolution: on a CPU that would cost more than all the rest. The last layer answers for
    the four pixels of each half-resolution cell instead, so that defects of a pixel or two can still be drawn.
    """

    WIDTHS = (24, 48, 96, 128)  # at 1/2, 1/4, 1/8, 1/16

    def __init__(self, num_classes: int = 2):
        super().__init__()
        inputs = (3, *self.WIDTHS[:-1])
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in zip(inputs, self.WIDTHS, strict=True))
        self.refine = nn.ModuleList([nn.Identity(), *(_Residual(width) for width in self.WIDTHS[1:])])
        # What the whole picture looks like tells a defect from a pattern that repeats.
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(self.WIDTHS[-1], self.WIDTHS[-1], 1))
        coarse_to_fine = list(zip(self.WIDTHS[:0:-1], self.WIDTHS[-2::-1], strict=True))
        self.narrow = nn.ModuleList(_block(a, b, kernel=1) for a, b in coarse_to_fine)
        self.merge = nn.ModuleList(_block(b, b) for _, b in coarse_to_fine)
        self.head = nn.Conv2d(self.WIDTHS[0], 4 * num_classes, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter off the time of a training step on a CPU

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(self._logits, image.contiguous(memory_format=torch.channels_last), 16)

    def _logits(self, x: Tensor) -> Tensor:
        skips = []
        for down, refine in zip(self.down, self.refine, strict=True):
            x = refine(down(x))
            skips.append(x)
        x = skips.pop()
        x = x + self.context(x)
        for narrow, merge in zip(self.narrow, self.merge, strict=True):
            x = merge(F.interpolate(narrow(x), scale_factor=2, mode="nearest") + skips.pop())
        return F.pixel_shuffle(self.head(x), 2)
