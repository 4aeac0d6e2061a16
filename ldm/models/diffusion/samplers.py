"""Samplers as functions over `denoise(x, t) -> eps` and a schedule; conditioning is bound before the call.

`t` given to `denoise` is a LongTensor (B,) in 0..T-1, as the U-Net takes it. `noise(x)` returns standard normal noise
like `x`; a caller who wants reproducible samples passes its own.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]
Inject = Callable[[Tensor, int], Tensor]


def network_time(x: Tensor, t: int) -> Tensor:
    """Paper time t (1..T) as the (B,) index 0..T-1 that the network takes."""
    return torch.full((x.shape[0],), t - 1, device=x.device, dtype=torch.long)


def posterior_step(
    x: Tensor, x0: Tensor, t_start: int, t_end: int, coefficients: tuple[float, float, float], noise: Noise
) -> Tensor:
    """One draw from q(x_te | x_ts, x0) with `coefficients` = (coef_xt, coef_x0, variance)."""
    coef_xt, coef_x0, variance = coefficients
    mean = coef_xt * x + coef_x0 * x0
    return mean if t_end == 0 else mean + math.sqrt(variance) * noise(x)


def ddpm(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, *, noise: Noise = torch.randn_like,
         inject: Inject | None = None) -> Tensor:  # fmt: skip
    """Ancestral sampling, T evaluations (Ho et al. 2020, Alg. 2). `inject(x, t)` may replace the state after a step."""
    for t in range(schedule.timesteps, 0, -1):
        x0 = schedule.predict_x0(x, t, denoise(x, network_time(x, t)))
        x = posterior_step(x, x0, t, t - 1, schedule.posterior(t, t - 1), noise)
        x = inject(x, t - 1) if inject else x
    return x


def ddim_timesteps(steps: int, timesteps: int, discretize: str = "uniform") -> np.ndarray:
    """Latent-diffusion's choice of table indices, ascending, shifted by one.

    Like the original, "uniform" gives more than `steps` where `steps` does not divide `timesteps`.
    """
    if not 1 <= steps <= timesteps:
        raise UserError(f"steps={steps} lies outside 1..{timesteps}; choose a number in that range")
    if discretize == "uniform":
        index = np.arange(0, timesteps, timesteps // steps)
    elif discretize == "quad":
        index = (np.linspace(0, np.sqrt(timesteps * 0.8), steps) ** 2).astype(int)
    else:
        raise UserError(f"ddim_discretize={discretize} is unknown; use uniform or quad")
    # The shift leaves the table where its last index is in use, which ends the original with an IndexError.
    full = steps == timesteps and discretize == "uniform"
    return index if full else np.minimum(index + 1, timesteps - 1)


def _pairs(index: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """(t, t_next) in paper time from the noisiest down; latent-diffusion ends at table index 0, which is t = 1."""
    times = [1] + [int(i) + 1 for i in index]
    return [(times[k], times[k - 1]) for k in range(len(times) - 1, 0, -1)]


def _ddim_step(
    schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: int, t_next: int, eta: float, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Song et al. 2021, Eq. 12 with sigma of Eq. 16. Returns (x at t_next, x0 estimate).

    Noise is drawn even where sigma is 0, as in latent-diffusion, so that a seed means the same there and here.
    """
    bar, bar_next = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(t_next))
    sigma = eta * math.sqrt((1 - bar_next) / (1 - bar) * max(1 - bar / bar_next, 0.0))
    x0 = schedule.predict_x0(x, t, eps)
    x = math.sqrt(bar_next) * x0 + math.sqrt(max(1 - bar_next - sigma**2, 0.0)) * eps
    return x + sigma * noise(x), x0


def ddim(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, *, steps: int = 50, eta: float = 0.0,
         noise: Noise = torch.randn_like, inject: Inject | None = None, discretize: str = "uniform",
         callback: Callable[[int, Tensor, Tensor], None] | None = None) -> Tensor:  # fmt: skip
    """DDIM; eta = 0 is deterministic, eta = 1 has DDPM's variance. `callback(i, x, x0)` after evaluation i."""
    for i, (t, t_next) in enumerate(_pairs(ddim_timesteps(steps, schedule.timesteps, discretize))):
        eps = denoise(x, network_time(x, t))
        x, x0 = _ddim_step(schedule, x, eps, t, t_next, eta, noise)
        x = inject(x, t_next) if inject else x
        if callback:
            callback(i, x, x0)
    return x


def plms(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, *, steps: int = 50, noise: Noise = torch.randn_like,
         inject: Inject | None = None, discretize: str = "uniform",
         callback: Callable[[int, Tensor, Tensor], None] | None = None) -> Tensor:  # fmt: skip
    """Pseudo linear multistep (Liu et al. 2022, Eq. 9-12), `steps + 1` evaluations: the first step is a Heun step."""
    old: list[Tensor] = []
    pairs = _pairs(ddim_timesteps(steps, schedule.timesteps, discretize))
    for i, (t, t_next) in enumerate(pairs):
        eps = denoise(x, network_time(x, t))
        if not old:
            ahead, _ = _ddim_step(schedule, x, eps, t, t_next, 0.0, noise)
            combined = (eps + denoise(ahead, network_time(x, pairs[min(1, len(pairs) - 1)][0]))) / 2
        elif len(old) == 1:
            combined = (3 * eps - old[-1]) / 2
        elif len(old) == 2:
            combined = (23 * eps - 16 * old[-1] + 5 * old[-2]) / 12
        else:
            combined = (55 * eps - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
        old = [*old, eps][-3:]
        x, x0 = _ddim_step(schedule, x, combined, t, t_next, 0.0, noise)
        x = inject(x, t_next) if inject else x
        if callback:
            callback(i, x, x0)
    return x
