"""One call for every sampler that can fill a mask: AIAS and the three that the papers compare it with."""

import math
from typing import Any

import torch
from torch import Tensor

from fast.aias import AIASOptions, Guidance, aias
from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.models.diffusion.samplers import Denoise, Noise

SAMPLERS = ("aias", "ddpm", "ddim", "plms")


def check_scale(scale: float, name: str) -> None:
    """Raise `UserError` for what is no scale of classifier-free guidance; `name`: the option's."""
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"{name}={scale} is no guidance scale; give a number from 0, 1 for no guidance")


@torch.no_grad()
def sample_latents(
    denoise: Denoise,
    guidance: Guidance,
    like: Tensor,
    *,
    noise: Noise,
    options: AIASOptions,
    sampler: str = "aias",
    draft: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Sample scaled latents x0 (B,C,h,w) with a defect inside the guidance's mask and its background around it.

    Every sampler gets the same background injection and FARM, so that only the sampler differs (paper, Table 7).

    Args:
        denoise: `denoise(x, t)` predicts the noise in x at t (B,) in 0..T-1.
        guidance: mask, background, FARM and the noise schedule.
        like: a tensor (B,C,h,w) of the shape to make.
        noise: `noise(x)` returns standard normal noise like x, in float32.
        options: options of AIAS. `steps` counts the network evaluations of every sampler, except that ddpm always takes
            all T and plms takes one more.
        sampler: one of `SAMPLERS`.
        draft: (B,C,h,w), scaled latents of a first version of the picture, from which aias starts. None: pure noise.
        strength: the draft is noised to t = strength * T, strength in 0..1. At 1 nothing of it is left.

    Raises:
        UserError: the sampler is unknown, or there is a draft for another one than aias.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler {sampler} is unknown; use one of {', '.join(SAMPLERS)}")
    x, schedule = noise(like), guidance.schedule
    if draft is not None and strength < 1:
        if sampler != "aias":
            raise UserError(f"a draft is for --sampler aias, not {sampler}; leave one of the two out")
        start = max(1, round(strength * schedule.timesteps))
        x = schedule.q_sample(draft, start, x)
        return aias(denoise, schedule, x, guidance=guidance, noise=noise, options=options, start=start)
    if sampler == "aias":
        return aias(denoise, schedule, x, guidance=guidance, noise=noise, options=options)
    common: dict[str, Any] = {"noise": noise, "inject": guidance.hook(noise, options)}
    if sampler == "ddpm":
        return samplers.ddpm(denoise, schedule, x, **common)
    return getattr(samplers, sampler)(denoise, schedule, x, steps=options.steps, **common)
