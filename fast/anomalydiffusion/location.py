"""Location encoders ("spatial embedding"): where the defect is, as vectors in the text encoder's token space."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError

SIDE = 256  # pixels a side that every encoder looks at


def picture_of(mask: Tensor) -> Tensor:
    """Masks (B,1,H,W) in {0,1} as pictures (B,3,256,256): -1 around the defect and 1 in it.

    Pixels that a defect fills in part have values in between.
    """
    shrunk = F.adaptive_avg_pool2d(mask.float(), (SIDE, SIDE))
    return (2 * shrunk - 1).expand(-1, 3, -1, -1)


class Bottleneck(nn.Module):
    """The residual block of ArcFace's IR networks (Deng et al. 2019): normalized first, no activation after the sum."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.skip: nn.Module = nn.MaxPool2d(1, stride)
        if channels != out:
            self.skip = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.PReLU(out),
            nn.Conv2d(out, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class IR50(nn.Module):
    """Picture (B,3,256,256) to features (B,128,64,64), (B,256,32,32), (B,512,16,16). 30,727,360 parameters."""

    STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.stages = nn.ModuleList()
        channels = 64
        for out, blocks in self.STAGES:
            first = Bottleneck(channels, out, 2)
            self.stages.append(nn.Sequential(first, *(Bottleneck(out, out, 1) for _ in range(blocks - 1))))
            channels = out

    def forward(self, x: Tensor) -> list[Tensor]:
        x, features = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


class TokenHead(nn.Sequential):
    """Features (B,512,64,64) to one vector (B,width)."""

    def __init__(self, width: int):
        layers: list[nn.Module] = []
        for step in range(6):
            layers += [nn.Conv2d(512 if step == 0 else width, width, 3, 2, padding=1), nn.LeakyReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(width, width))


class LocationEncoder(nn.Module):
    """Encode a mask (B,1,H,W) in {0,1} as location vectors (B,tokens,width), as published.

    IR-50 is followed by a top-down pyramid and a head for each token. 356,019,392 parameters for 4 tokens of width
    1280.
    """

    def __init__(self, width: int, tokens: int = 4):
        super().__init__()
        self.backbone = IR50()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 512, 1) for channels in (256, 128))
        self.heads = nn.ModuleList(TokenHead(width) for _ in range(tokens))

    def forward(self, mask: Tensor) -> Tensor:
        *finer, top = self.backbone(picture_of(mask).to(next(self.parameters()).dtype))
        for lateral, features in zip(self.lateral, reversed(finer), strict=True):
            side = lateral(features)
            top = side + F.interpolate(top, side.shape[-2:], mode="bilinear", align_corners=True)
        return torch.stack([head(top) for head in self.heads], dim=1)


class SmallLocationEncoder(nn.Module):
    """Encode a mask as `LocationEncoder` does, for a small base: 549,328 parameters for 4 tokens of width 128.

    Convolutions lead to 4 x 4 cells, and one linear layer to the vectors. The cells are flattened and not averaged,
    because the vectors have to tell where the defect is.
    """

    CHANNELS = (8, 16, 32, 64)

    def __init__(self, width: int, tokens: int = 4):
        super().__init__()
        self.width, self.tokens = width, tokens
        layers: list[nn.Module] = [nn.AvgPool2d(4)]
        channels = 3
        for out in self.CHANNELS:
            layers += [nn.Conv2d(channels, out, 3, 2, padding=1), nn.LeakyReLU(0.2)]
            channels = out
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.out = nn.Linear(16 * channels, tokens * width)

    def forward(self, mask: Tensor) -> Tensor:
        x = self.body(picture_of(mask).to(next(self.parameters()).dtype))
        return self.out(x).unflatten(1, (self.tokens, self.width))


ENCODERS = {"ir50": LocationEncoder, "small": SmallLocationEncoder}


def location_encoder(kind: str, width: int, tokens: int) -> nn.Module:
    """An encoder by its name, "ir50" or "small".

    Raises:
        UserError: when the name is unknown.
    """
    if kind not in ENCODERS:
        raise UserError(f"model.params.location={kind} is unknown; use {' or '.join(ENCODERS)}")
    return ENCODERS[kind](width, tokens)
