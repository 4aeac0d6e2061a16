"""STDC-Seg (Fan et al., 2021): a short-term dense concatenation network, an attention path, and detail in training.

Layers, sizes and the backbone's names are those of MichaelFan01/STDC-Seg, whose ImageNet weights therefore fit.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.segmentation.layers import ConvNorm, Heads
from fast.segmentation.segformer import MEAN, STD
from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError

STDC1, STDC2 = (2, 2, 2), (4, 5, 3)  # modules of each stage
WIDTHS = (64, 256, 512, 1024)
PREFIXES = ("module.", "cp.", "backbone.")  # around the backbone in published files


class STDC(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W), any H and W; inside they are computed at an eighth.

    `aux` is for training alone: for two classes, 8,270,752 parameters without it, 8,566,368 with it; with the
    modules of STDC2 12,301,216 and 12,596,832. `weights`: a file with ImageNet weights of the backbone under the
    published names; a classifier or other heads in it are not used. Raises `UserError` when it is not all there.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int = 2,
        modules: tuple[int, int, int] = STDC1,
        weights: str | os.PathLike[str] | None = None,
    ):
        super().__init__()
        self.backbone = Backbone(modules)
        self.context = ContextPath()
        self.fusion = Fusion()
        self.head = _head(256, 256, num_classes)
        self.aux = nn.ModuleDict(
            {"c8": _head(128, 64, num_classes), "c16": _head(128, 64, num_classes), "detail": _head(256, 64, 1)}
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        if weights is not None:
            _load_backbone(self.backbone, weights)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        f8, c8, _ = self._features(image)
        return _resized(self.head(self.fusion(f8, c8)), image)

    def heads(self, image: Tensor) -> Heads:
        """What the main head and the two auxiliary ones answer, and where detail is seen, at an eighth."""
        f8, c8, c16 = self._features(image)
        logits = [self.head(self.fusion(f8, c8)), self.aux["c8"](c8), self.aux["c16"](c16)]
        return Heads([_resized(value, image) for value in logits], self.aux["detail"](f8))

    def _features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = ((image + 1) / 2 - self.mean) / self.std
        f8, f16, f32 = self.backbone(x.contiguous(memory_format=torch.channels_last))
        return f8, *self.context(f16, f32, (f8.shape[-2], f8.shape[-1]))


class Backbone(nn.Module):
    """(B,3,H,W) to features of 256 channels at 1/8, 512 at 1/16 and 1024 at 1/32."""

    def __init__(self, modules: tuple[int, int, int]):
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, stride=2), ConvNorm(32, WIDTHS[0], stride=2)]
        ends = []
        for before, after, count in zip(WIDTHS, WIDTHS[1:], modules, strict=False):
            layers += [Concat(before, after, stride=2), *(Concat(after, after) for _ in range(count - 1))]
            ends.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.ends = ends

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.ends:
                found.append(x)
        return found


class Concat(nn.Module):
    """Short-term dense concatenation: four convolutions in a row, each half as wide, and what each of them found."""

    def __init__(self, before: int, after: int, stride: int = 1):
        super().__init__()
        widths = (after // 2, after // 4, after // 8, after // 8)
        inputs = (before, *widths[:-1])
        kernels = (1, 3, 3, 3)
        self.conv_list = nn.ModuleList(ConvNorm(*sizes) for sizes in zip(inputs, widths, kernels, strict=True))
        self.avd_layer: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            wide = widths[0]
            self.avd_layer = nn.Sequential(
                nn.Conv2d(wide, wide, 3, stride=2, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide)
            )
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_list[0](x)
        found = [self.skip(first)]
        x = self.avd_layer(first)
        for conv in list(self.conv_list)[1:]:
            x = conv(x)
            found.append(x)
        return torch.cat(found, dim=1)


class ContextPath(nn.Module):
    """Features (B,512,h,w) at 1/16 and (B,1024,h/2,w/2) at 1/32 to 128 channels at 1/8, of `size`, and at 1/16."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = ConvNorm(1024, 128, kernel=1)
        self.attend32, self.attend16 = AttentionRefinement(1024), AttentionRefinement(512)
        self.refine32, self.refine16 = ConvNorm(128, 128), ConvNorm(128, 128)

    def forward(self, f16: Tensor, f32: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        height, width = f16.shape[-2:]
        deep = self.attend32(f32) + self.whole(f32.mean(dim=(2, 3), keepdim=True))
        c16 = self.refine32(F.interpolate(deep, size=(height, width)))
        c8 = self.refine16(F.interpolate(self.attend16(f16) + c16, size=size))
        return c8, c16


class AttentionRefinement(nn.Module):
    """Attention refinement: 128 channels, each weighed by what the whole picture looks like."""

    def __init__(self, before: int):
        super().__init__()
        self.conv = ConvNorm(before, 128)
        self.weigh = ConvNorm(128, 128, kernel=1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.weigh(x.mean(dim=(2, 3), keepdim=True)))


class Fusion(nn.Module):
    """Feature fusion: the backbone's features at 1/8 and the context's, weighed by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNorm(384, 256, kernel=1)
        self.weigh = nn.Sequential(
            nn.Conv2d(256, 64, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(64, 256, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, f8: Tensor, c8: Tensor) -> Tensor:
        x = self.conv(torch.cat([f8, c8], dim=1))
        return x + x * self.weigh(x.mean(dim=(2, 3), keepdim=True))


def _head(before: int, width: int, after: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(before, width), nn.Conv2d(width, after, 1, bias=False))


def _resized(logits: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(logits, size=(image.shape[-2], image.shape[-1]), mode="bilinear", align_corners=True)


def _load_backbone(backbone: Backbone, weights: str | os.PathLike[str]) -> None:
    given = {}
    for name, tensor in read_state_dict(weights).items():
        while name.startswith(PREFIXES):
            name = name.removeprefix(next(p for p in PREFIXES if name.startswith(p)))
        if name.startswith("features."):
            given[name] = tensor
    if not given:
        raise UserError(f"{weights} is no STDC backbone: no name begins with features.; give its ImageNet weights")
    counters = {k: v for k, v in backbone.state_dict().items() if k.endswith("num_batches_tracked")}
    load_strict(backbone, {**counters, **given}, str(weights))
