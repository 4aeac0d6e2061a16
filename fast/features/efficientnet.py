"""EfficientNet-Lite0 (Tan and Le, 2019, in the authors' variant for small devices): inverted residuals, ReLU6, no
squeeze-and-excitation. Here it is an image encoder: the classifier is left out, and five scales come out."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.runtime.project import of_project
from ldm.checkpoint import load_strict, read_state_dict
from ldm.errors import UserError

WEIGHTS = of_project("models/efficientnet_lite0/encoder.safetensors")
STEM = 32
# Of each stage: kernel, stride of its first block, expansion, channels, blocks (EfficientNet's Table 1).
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
TAPS = (0, 1, 2, 4, 6)  # the last stage at each of the strides
STRIDES = (2, 4, 8, 16, 32)
CHANNELS = tuple(STAGES[i][3] for i in TAPS)
# The published network was trained on (level - 127) / 128 of grey levels 0..255.
SCALE, SHIFT = 127.5 / 128, 0.5 / 128  # that of an image in [-1, 1]


class EfficientNetLite0(nn.Module):
    """Image (B,3,H,W) in [-1, 1], sides multiples of 32, to five feature maps: 16, 24, 40, 112 and 320 channels at
    strides 2, 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Layer(3, STEM, 3, stride=2)
        self.stages = nn.ModuleList()
        before = STEM
        for kernel, stride, expansion, after, count in STAGES:
            blocks = [MBConv(before, after, kernel, stride, expansion)]
            blocks += [MBConv(after, after, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            before = after

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem((image * SCALE + SHIFT).contiguous(memory_format=torch.channels_last))
        found = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPS:
                found.append(x)
        return found


class MBConv(nn.Module):
    """Inverted residual: widen each pixel, filter each channel, narrow again; added to its input where both agree in
    size (Sandler et al., 2018)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = before * expansion
        self.expand = Layer(before, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Layer(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Layer(wide, after, 1, relu=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Layer(nn.Module):
    """Convolution, batch normalization and ReLU6, padded as TensorFlow's SAME does for even sides: with stride 2 more
    on the right and bottom."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        self.pad = (kernel // 2 - 1, kernel // 2) * 2 if stride == 2 else None
        padding = 0 if self.pad else kernel // 2
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
        self.relu = nn.ReLU6(inplace=True) if relu else nn.Identity()
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        if self.pad:
            x = F.pad(x, self.pad)
        return self.relu(self.bn(self.conv(x)))


def pretrained(path: str | os.PathLike[str] = WEIGHTS) -> EfficientNetLite0:
    """The encoder with the shipped ImageNet weights, in float32 and channels-last memory, in training mode.

    Raises `UserError` where the file is missing, damaged, or of another network.
    """
    if not Path(path).is_file():
        raise UserError(
            f"encoder weights {path} do not exist; restore the file, or make it with scripts/convert_encoder.py"
        )
    encoder = EfficientNetLite0()
    state = {name: tensor.float() for name, tensor in read_state_dict(path).items()}
    load_strict(encoder, state, str(path))
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
