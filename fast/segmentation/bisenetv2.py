"""BiSeNetV2 (Yu et al., 2021): a wide branch for detail, a deep one for meaning, and gates between the two.

Layers and sizes are those of the widely used CoinCheung/BiSeNet, which differs from the paper in three activations:
after a gather-and-expansion layer's first depthwise convolution, in the context embedding and in the last fusion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.segmentation.layers import ConvNorm, Heads
from fast.segmentation.padding import on_multiples

EXPANSION = 6
WIDTH = 128  # channels of either branch where they meet


class BiSeNetV2(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W), any H and W; inside they are computed at an eighth.

    `aux` is for training alone: 3,341,202 parameters without it, 5,190,874 with it, for two classes.
    """

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.detail = nn.Sequential(
            *(ConvNorm(3, 64, stride=2), ConvNorm(64, 64)),
            *(ConvNorm(64, 64, stride=2), ConvNorm(64, 64), ConvNorm(64, 64)),
            *(ConvNorm(64, WIDTH, stride=2), ConvNorm(WIDTH, WIDTH), ConvNorm(WIDTH, WIDTH)),
        )
        self.semantic = Semantic()
        self.aggregation = Aggregation()
        self.head = SegmentationHead(WIDTH, 1024, num_classes)
        heads = ((16, 4), (32, 8), (64, 16), (128, 32))  # channels in, and how much smaller than the picture
        self.aux = nn.ModuleList(SegmentationHead(width, 128, num_classes, factor) for width, factor in heads)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(lambda x: self._run(x)[0], image, 32)

    def heads(self, image: Tensor) -> Heads:
        """What the main head and the four auxiliary ones answer."""
        together = on_multiples(lambda x: torch.cat(self._run(x, aux=True), dim=1), image, 32)
        return Heads(list(together.chunk(1 + len(self.aux), dim=1)))

    def _run(self, x: Tensor, aux: bool = False) -> list[Tensor]:
        size = (x.shape[-2], x.shape[-1])
        x = x.contiguous(memory_format=torch.channels_last)
        *stages, deep = self.semantic(x)
        logits = [self.head(self.aggregation(self.detail(x), deep), size)]
        if aux:
            logits += [head(stage, size) for head, stage in zip(self.aux, stages, strict=True)]
        return logits


class Semantic(nn.Module):
    """(B,3,H,W) to its stem's features at 1/4, its stages' at 1/8, 1/16 and 1/32, and the last with their context."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Expand(16, 32, stride=2), Expand(32, 32)),
                nn.Sequential(Expand(32, 64, stride=2), Expand(64, 64)),
                nn.Sequential(Expand(64, 128, stride=2), *(Expand(128, 128) for _ in range(3))),
            ]
        )
        self.context = Context()

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return [*found, self.context(found[-1])]


class Stem(nn.Module):
    """Two ways to a quarter of the size, by convolutions and by pooling, brought together."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 16, stride=2)
        self.left = nn.Sequential(ConvNorm(16, 8, kernel=1), ConvNorm(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = ConvNorm(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))


class Expand(nn.Module):
    """Gather-and-expansion layer: each channel becomes six by a 3x3 of its own, then all are drawn together again."""

    def __init__(self, before: int, after: int, stride: int = 1):
        super().__init__()
        wide = before * EXPANSION
        last = ConvNorm(wide, after, kernel=1, relu=False)
        nn.init.zeros_(last.bn.weight)  # begins as its shortcut
        if stride == 1:
            expand = [ConvNorm(before, wide, groups=before)]
            self.shortcut: nn.Module = nn.Identity()
        else:
            expand = [
                ConvNorm(before, wide, stride=stride, groups=before, relu=False),
                ConvNorm(wide, wide, groups=wide),
            ]
            self.shortcut = nn.Sequential(
                ConvNorm(before, before, stride=stride, groups=before, relu=False),
                ConvNorm(before, after, kernel=1, relu=False),
            )
        self.main = nn.Sequential(ConvNorm(before, before), *expand, last)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


class Context(nn.Module):
    """Adds what the whole picture looks like to every place."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(WIDTH)
        self.conv = ConvNorm(WIDTH, WIDTH, kernel=1)
        self.last = ConvNorm(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.conv(self.bn(x.mean(dim=(2, 3), keepdim=True))))


class Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch gates the other, at the size of either, and the two are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.detail_keep = _depthwise_then_pointwise()
        self.detail_down = nn.Sequential(
            ConvNorm(WIDTH, WIDTH, stride=2, relu=False), nn.AvgPool2d(3, stride=2, padding=1)
        )
        self.semantic_up = ConvNorm(WIDTH, WIDTH, relu=False)
        self.semantic_keep = _depthwise_then_pointwise()
        self.fuse = ConvNorm(WIDTH, WIDTH)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """detail (B,128,4h,4w), semantic (B,128,h,w) -> (B,128,4h,4w)."""
        fine = self.detail_keep(detail) * torch.sigmoid(F.interpolate(self.semantic_up(semantic), scale_factor=4))
        coarse = self.detail_down(detail) * torch.sigmoid(self.semantic_keep(semantic))
        return self.fuse(fine + F.interpolate(coarse, scale_factor=4))


def _depthwise_then_pointwise() -> nn.Sequential:
    depthwise = ConvNorm(WIDTH, WIDTH, groups=WIDTH, relu=False)
    return nn.Sequential(depthwise, nn.Conv2d(WIDTH, WIDTH, 1, bias=False))


class SegmentationHead(nn.Module):
    """Features to logits of the picture's size. With `factor`, how much smaller the features are, there is a layer
    more at twice their size: the auxiliary heads'."""

    def __init__(self, before: int, width: int, num_classes: int, factor: int | None = None):
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(before, width), nn.Dropout(0.1)]
        if factor is not None:
            layers += [nn.Upsample(scale_factor=2), ConvNorm(width, factor * factor)]
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(width if factor is None else factor * factor, num_classes, 1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(self.last(self.features(x)), size=size, mode="bilinear", align_corners=False)
