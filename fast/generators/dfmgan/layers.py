"""What StyleGAN2 networks are made of, in plain tensor operations that can be differentiated twice.

Weights are unit normal and scaled where they are used, so that every layer learns at the same rate (Karras et al.
2018, section 4.1); modulation, demodulation and filtered resampling follow Karras et al. 2020 (StyleGAN2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)  # the binomial low-pass filter along each axis


def _fir(x: Tensor, gain: float) -> Tensor:
    """The filter as a kernel for each channel of x, (C,1,4,4), its sum `gain`."""
    taps = torch.tensor(TAPS, device=x.device, dtype=x.dtype) / sum(TAPS)
    return (gain * torch.outer(taps, taps)).expand(x.shape[1], 1, 4, 4)


def upsample(x: Tensor) -> Tensor:
    """(B,C,H,W) to (B,C,2H,2W): zeros between the pixels, filtered, zeros around the picture."""
    return F.conv_transpose2d(x, _fir(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """(B,C,H,W) to (B,C,H/2,W/2): filtered, every second pixel kept."""
    return F.conv2d(x, _fir(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """(B,C,H,W) filtered; each side grows by 2 * padding - 3."""
    return F.conv2d(x, _fir(x, gain), padding=padding, groups=x.shape[1])


def leaky(x: Tensor, gain: float = 1.0) -> Tensor:
    """Leaky ReLU, slope 0.2, scaled to keep unit variance; `gain` on top."""
    return F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)


class Linear(nn.Module):
    """Equalized fully connected layer. `rate`: its learning rate relative to the others'; `bias`: the bias at first."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Module):
    """Equalized convolution, zero padding; with `down` filtered and to half the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True, down: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.kernel, self.down = 1 / math.sqrt(inputs * kernel**2), kernel, down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if not self.down:
            return F.conv2d(x, weight, self.bias, padding=self.kernel // 2)
        if self.kernel == 1:  # the filter commutes with it, and the smaller picture is cheaper
            return F.conv2d(downsample(x), weight, self.bias)
        return F.conv2d(blur(x, self.kernel // 2 + 1), weight, self.bias, stride=2)


class ModulatedConv(nn.Module):
    """Convolution whose input channels a style scales (StyleGAN2, equation 1); with `demodulate` the output channels
    are brought back to unit variance (equation 3). Scaling activations instead of weights is the same product.

    `forward(x (B,I,H,W), w (B,w_dim)) -> (B,O,H,W)`, or (B,O,2H,2W) with `up`. No bias: it follows the noise.
    """

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, kernel: int = 3, demodulate: bool = True, up: bool = False
    ):
        super().__init__()
        self.affine = Linear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.demodulate, self.up = 1 / math.sqrt(inputs * kernel**2), demodulate, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.affine(w), self.weight * self.scale
        y = x * style[:, :, None, None]
        if self.up:
            y = blur(F.conv_transpose2d(y, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        else:
            y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            variance = style.square() @ weight.square().sum((2, 3)).T
            y = y * (variance + 1e-8).rsqrt()[:, :, None, None]
        return y


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU. Noise is one picture for all channels, scaled by a learnt
    strength: drawn anew in training, else the layer's own."""

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, w_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, random: bool) -> Tensor:
        y = self.conv(x, w)
        noise = torch.randn_like(y[:, :1]) if random else self.noise
        return leaky(y + noise * self.strength + self.bias[:, None, None])


class Head(nn.Module):
    """Modulated 1x1 convolution with a bias and without demodulation: features to colours, or to mask logits."""

    def __init__(self, inputs: int, outputs: int, w_dim: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, w_dim, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias[:, None, None]
