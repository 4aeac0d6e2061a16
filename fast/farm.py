"""FARM, the foreground-aware reconstruction module (FAST, Sec. 3.2): the clean defect's latent from a noisy one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.modules.diffusionmodules.util import timestep_embedding, zero_module


def _conv(c_in: int, c_out: int) -> nn.Sequential:
    # Group statistics are a sample's own, so the answer does not depend on the batch, as batch statistics would.
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.GroupNorm(min(8, c_out), c_out), nn.ReLU())


class FARM(nn.Module):
    """FARM, an encoder-decoder that reconstructs the clean latent of a defect from a noisy one (FAST, Sec. 3.2).

    `farm(x_t, M, t)` estimates M * x0. x_t (B,channels,h,w) is the noisy latent, of any size. The mask M (B,1,h,w) is 1
    on the defect and 0 elsewhere, and t (B,) lies in 0..T-1. The answer has the shape of x_t.

    Args:
        channels: channels of the latent.
        base_width: channels of the first level, doubled at each of the two deeper ones. 64 gives 1.6 M parameters.
        time_width: width of the time embedding, an even number.
        skip: True adds `M * s(t) * x_t` to the answer, with a learned s that is zero at the start. The paper's
            bottleneck has no path for fine detail, which at small t is all in x_t already. False gives the paper's
            network.
        context_dim: width of an encoded prompt (B,L,context_dim) that a call may give too, so that one FARM can serve
            many defect types. Its effect is zero at the start. None gives the paper's network, which learns one type at
            a time.
        sees_known: True shows the network a second latent beside x_t, what is known of the normal picture. Every call
            then has to give it, as `known` (B,channels,h,w).
    """

    def __init__(
        self,
        channels: int = 4,
        base_width: int = 64,
        time_width: int = 128,
        skip: bool = True,
        context_dim: int | None = None,
        sees_known: bool = False,
    ):
        super().__init__()
        w = base_width
        self.time_width, self.sees_known = time_width, sees_known
        self.enc1 = nn.Sequential(_conv(2 * channels if sees_known else channels, w), _conv(w, w))
        self.enc2 = nn.Sequential(_conv(w, 2 * w), _conv(2 * w, 2 * w))
        self.enc3 = nn.Sequential(_conv(2 * w, 4 * w), _conv(4 * w, 4 * w), nn.Conv2d(4 * w, 4 * w, 1))
        self.gate = nn.Sequential(nn.Linear(time_width, 4 * w), nn.ReLU(), nn.Linear(4 * w, 4 * w))
        self.proj = nn.Linear(time_width, 4 * w)
        self.dec3 = nn.Conv2d(4 * w, 4 * w, 1)
        self.dec2 = _conv(4 * w + 1, 2 * w)
        self.dec1 = _conv(2 * w + 1, w)
        self.out = nn.Conv2d(w + 1, channels, 3, padding=1)
        self.skip = zero_module(nn.Linear(time_width, channels)) if skip else None
        self.words = zero_module(nn.Linear(context_dim, 8 * w)) if context_dim else None

    def forward(
        self, x: Tensor, mask: Tensor, t: Tensor, context: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        mask = mask.to(x.dtype)
        tau = timestep_embedding(t, self.time_width).to(x.dtype)
        if self.sees_known and known is None:
            raise ValueError("this FARM was built to see what is known of the picture; give known")
        h1 = self.enc1(torch.cat([x, known.to(x.dtype)], dim=1) if self.sees_known and known is not None else x)
        h2 = self.enc2(F.max_pool2d(h1, 2, ceil_mode=True))
        h3 = self.enc3(F.max_pool2d(h2, 2, ceil_mode=True))
        down2 = F.adaptive_max_pool2d(mask, h2.shape[-2:])
        down3 = F.adaptive_max_pool2d(mask, h3.shape[-2:])
        soft = down3 + (1 - down3) * torch.sigmoid(self.gate(tau))[..., None, None]  # Eq. 9
        z = soft * h3 + self.proj(tau)[..., None, None]  # Eq. 10
        if self.words is not None and context is not None:
            scale, shift = self.words(context.to(x.dtype).mean(dim=1))[..., None, None].chunk(2, dim=1)
            z = z * (1 + scale) + shift
        z = self.dec3(z)
        z = self.dec2(torch.cat([_grow(z, h2), down2], dim=1))
        z = self.dec1(torch.cat([_grow(z, h1), mask], dim=1))
        z = self.out(torch.cat([z, mask], dim=1))
        return z if self.skip is None else z + mask * self.skip(tau)[..., None, None] * x


def _grow(z: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the size of `like`, which is not always twice: sides may be odd."""
    return F.interpolate(z, size=like.shape[-2:], mode="bilinear", align_corners=False)
