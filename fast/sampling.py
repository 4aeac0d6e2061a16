"""One call for every sampler that can fill a mask: AIAS and the three that the papers compare it with."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fast.aias import Guidance, aias
from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.models.diffusion.ddim import bind

if TYPE_CHECKING:
    from fast.model import FAST

SAMPLERS = ("aias", "ddpm", "ddim", "plms")


@torch.no_grad()
def sample_latents(
    model: "FAST",
    *,
    background: Tensor,
    mask: Tensor,
    cond: Tensor,
    noise: Callable[[Tensor], Tensor],
    sampler: str = "aias",
    steps: int | None = None,
    use_farm: bool = True,
) -> Tensor:
    """Scaled latents x0 (B,C,h,w) with a defect inside `mask` (B,1,h,w) in {0,1} and `background` (B,C,h,w) around it.

    `cond` (B,L,width): encoded prompts; `noise(x)`: standard normal like x, in float32.
    `steps`: network evaluations (default: the model's `aias.steps`; ddpm always takes all T; plms takes one more).
    Every sampler gets the same background injection and FARM, so that only the sampler differs (paper, Table 7).
    """
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler {sampler} is unknown; use one of {', '.join(SAMPLERS)}")
    options = model.aias_options if steps is None else replace(model.aias_options, steps=steps)
    x = noise(background)
    denoise = bind(model, cond)
    farm = (lambda state, t: model.farm(state, mask, t, cond).float()) if use_farm else None
    guidance = Guidance(model.schedule, mask, background, farm)
    if sampler == "aias":
        return aias(denoise, model.schedule, x, guidance=guidance, noise=noise, options=options)
    common: dict[str, Any] = {"noise": noise, "inject": guidance.hook(noise, options.background_window)}
    if sampler == "ddpm":
        return samplers.ddpm(denoise, model.schedule, x, **common)
    return getattr(samplers, sampler)(denoise, model.schedule, x, steps=options.steps, **common)
