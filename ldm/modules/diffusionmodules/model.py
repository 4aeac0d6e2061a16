"""Encoder and decoder of the first stage; parameter names are those of latent-diffusion checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.modules.attention import attend
from ldm.util import check_params

NORM_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class CoderConfig:
    """What a `ddconfig` section may say; one config describes both halves, each reads what concerns it."""

    ch: int
    out_ch: int
    in_channels: int
    resolution: int  # of the training images; only decides where attention goes
    z_channels: int
    num_res_blocks: int
    attn_resolutions: Sequence[int]
    ch_mult: Sequence[int] = (1, 2, 4, 8)
    dropout: float = 0.0
    resamp_with_conv: bool = True
    double_z: bool = True  # the encoder returns mean and log variance
    give_pre_end: bool = False
    tanh_out: bool = False
    use_linear_attn: bool = False
    attn_type: str = "vanilla"

    @classmethod
    def parse(cls, ddconfig: dict[str, Any]) -> "CoderConfig":
        """Check names and values. Raises `UserError`."""
        check_params(cls, ddconfig, "ddconfig")
        config = cls(**ddconfig)
        if config.attn_type not in ("vanilla", "linear", "none"):
            raise UserError(f"ddconfig.attn_type={config.attn_type} is unknown; take vanilla, linear or none")
        if not config.ch_mult:
            raise UserError("ddconfig.ch_mult is empty; it needs one factor per resolution level, such as [1, 2, 4]")
        wrong = [width for width in (config.ch, *config.widths) if width % NORM_GROUPS or width <= 0]
        if wrong:
            raise UserError(
                f"ddconfig.ch={config.ch} times ch_mult gives {wrong[0]} channels; "
                f"every level needs a multiple of {NORM_GROUPS}"
            )
        return config

    @property
    def widths(self) -> list[int]:
        return [self.ch * factor for factor in self.ch_mult]

    @property
    def attention(self) -> str:
        return "linear" if self.use_linear_attn else self.attn_type


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W): nearest neighbour, then a convolution if asked."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(channels, channels, 3, padding=1) if with_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H/2, W/2): strided convolution, padded right and below only, or the mean of 2x2."""

    def __init__(self, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


class ResnetBlock(nn.Module):
    """Two norm-SiLU-conv steps and a shortcut, (B, in, H, W) -> (B, out, H, W)."""

    def __init__(
        self, in_channels: int, out_channels: int | None = None, *, conv_shortcut: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        out = in_channels if out_channels is None else out_channels
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out, 3, padding=1)
        self.norm2 = group_norm(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut_name = ""
        if in_channels != out:
            self.shortcut_name = "conv_shortcut" if conv_shortcut else "nin_shortcut"
            size = 3 if conv_shortcut else 1
            self.add_module(self.shortcut_name, nn.Conv2d(in_channels, out, size, padding=size // 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + (getattr(self, self.shortcut_name)(x) if self.shortcut_name else x)


class AttnBlock(nn.Module):
    """One head of self-attention over all positions, with a residual; any spatial size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # (B, C, H, W) -> (B, 1, HW, C); the memory-saving kernels need the last axis contiguous.
        q, k, v = (f(h).flatten(2).transpose(1, 2).contiguous().unsqueeze(1) for f in (self.q, self.k, self.v))
        h = attend(q, k, v).squeeze(1)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class LinAttnBlock(nn.Module):
    """Attention linear in the positions: keys softmaxed over positions, no residual (Shen et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.to_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).flatten(2).chunk(3, dim=1)  # (B, C, HW)
        context = k.softmax(-1) @ v.transpose(1, 2)
        return self.to_out((context.transpose(1, 2) @ q).reshape(x.shape))


def make_attn(channels: int, kind: str) -> nn.Module:
    """`kind`: vanilla, linear or none."""
    return {"vanilla": AttnBlock, "linear": LinAttnBlock, "none": nn.Identity}[kind](channels)


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention if `attend`, then the step to the next resolution."""

    def __init__(self, config: CoderConfig, in_channels: int, out_channels: int, blocks: int, attend: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(a, b, dropout=config.dropout) for a, b in pairwise(widths))
        self.attn = nn.ModuleList(make_attn(out_channels, config.attention) for _ in range(blocks if attend else 0))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, config: CoderConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, dropout=config.dropout)
        self.attn_1 = make_attn(channels, config.attention)
        self.block_2 = ResnetBlock(channels, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Image (B, in_channels, H, W) -> (B, z_channels or twice that with `double_z`, H/f, W/f), f = 2^(levels-1)."""

    def __init__(self, **ddconfig: Any) -> None:
        super().__init__()
        config = CoderConfig.parse(ddconfig)
        widths = config.widths
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (a, b) in enumerate(zip([config.ch, *widths[:-1]], widths, strict=True)):
            level = Level(config, a, b, config.num_res_blocks, config.resolution // 2**i in config.attn_resolutions)
            if i < len(widths) - 1:
                level.downsample = Downsample(b, config.resamp_with_conv)
            self.down.append(level)
        self.mid = Middle(config, widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels * (2 if config.double_z else 1), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latent (B, z_channels, h, w) -> image (B, out_ch, f h, f w), or with `give_pre_end` what enters `norm_out`."""

    def __init__(self, **ddconfig: Any) -> None:
        super().__init__()
        config = CoderConfig.parse(ddconfig)
        widths = config.widths
        last = len(widths) - 1
        self.give_pre_end, self.tanh_out = config.give_pre_end, config.tanh_out
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(config, widths[-1])
        self.up = nn.ModuleList()
        for i, (a, b) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
            resolution = config.resolution // 2**last * 2 ** (last - i)
            level = Level(config, a, b, config.num_res_blocks + 1, resolution in config.attn_resolutions)
            if i > 0:
                level.upsample = Upsample(b, config.resamp_with_conv)
            self.up.append(level)
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        if self.give_pre_end:
            return h
        h = self.conv_out(F.silu(self.norm_out(h)))
        return torch.tanh(h) if self.tanh_out else h
