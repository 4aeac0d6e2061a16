"""A small network behind a frozen U-Net that corrects its prediction by the mask: STAGE's MGA (Sec. III-D), and the
mask adaptor of FAST's release."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.modules.diffusionmodules.util import zero_module

# Of the adaptor in the authors' release of FAST: 1,113,092 parameters on four latent channels.
FAST_WIDTHS = (64, 128, 256, 256, 64)


class MGA(nn.Module):
    """A small network `mga(eps, mask) -> eps` that corrects the noise a U-Net predicts, by the mask.

    eps is (B,channels,h,w) and mask (B,1,h,w) in [0, 1], of any size. For each of `widths` there is a 3x3 convolution,
    batch norm and ReLU, in the order of the release (the paper: convolution, ReLU, norm), then a 1x1 convolution.

    Args:
        channels: channels of the latent.
        widths: channels of the layers, whole numbers from 1. The defaults, as published, give 2,662,532 parameters.
        residual: True adds the U-Net's own prediction to the answer, whose last layer starts at zero. This is not in
            the paper: there the network has to learn to repeat the noise first, which takes longer than the correction.

    Raises:
        UserError: `widths` is no list of whole numbers from 1.
    """

    def __init__(self, channels: int = 4, widths: Sequence[int] = (64, 256, 512, 256, 64), residual: bool = False):
        super().__init__()
        if not widths or any(not isinstance(w, int) or isinstance(w, bool) or w < 1 for w in widths):
            raise UserError(f"widths={list(widths)} must be whole numbers from 1; write [64, 128, 64]")
        self.residual = residual
        self.blocks = nn.Sequential(*[_block(a, b) for a, b in itertools.pairwise([2 * channels, *widths])])
        out = nn.Conv2d(widths[-1], channels, 1)
        self.out = zero_module(out) if residual else out

    def forward(self, eps: Tensor, mask: Tensor) -> Tensor:
        # The mask fills as many channels as the noise, so that neither outweighs the other at the start.
        seen = torch.cat([eps, mask.to(eps).expand_as(eps)], dim=1)
        answer = self.out(self.blocks(seen))
        return eps + answer if self.residual else answer


def _block(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


def corrected(adaptor: nn.Module | None, prediction: Tensor, mask: Tensor) -> Tensor:
    """What a U-Net predicts (B,C,h,w) as the adaptor corrects it by the mask (B,1,h,w), float32; as it is without
    one."""
    return prediction.float() if adaptor is None else adaptor(prediction, mask).float()


def corrected_noise(
    adaptor: nn.Module,
    schedule: NoiseSchedule,
    parameterization: str,
    x: Tensor,
    t: Tensor,
    eps: Tensor,
    mask: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The noise eps in x (B,C,h,w) at t (B,) in 1..T, float32, as an adaptor corrects it that was trained on what the
    U-Net predicts itself: eps, x0 or v, its `parameterization`. `dtype`: of the adaptor."""
    answer = corrected(adaptor, from_noise(schedule, parameterization, x, t, eps).to(dtype), mask)
    if parameterization == "v":
        signal, sigma = schedule.scales(t, x)
        return signal * answer + sigma * x
    return answer if parameterization == "eps" else schedule.predict_eps(x, t, answer)


def from_noise(schedule: NoiseSchedule, parameterization: str, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """What the U-Net predicts where that says the noise eps is in x."""
    if parameterization == "eps":
        return eps
    x0 = schedule.predict_x0(x, t, eps)
    if parameterization == "x0":
        return x0
    signal, sigma = schedule.scales(t, x0)
    return signal * eps - sigma * x0
