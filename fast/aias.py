"""AIAS, anomaly-informed accelerated sampling (FAST, Sec. 3.1 and Alg. 3): DDPM's reverse chain in a few jumps."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.errors import UserError
from ldm.models.diffusion.samplers import Denoise, Noise, network_time, posterior_step
from ldm.models.diffusion.schedule import NoiseSchedule

Reconstruct = Callable[[Tensor, Tensor], Tensor]


def boundaries(steps: int, timesteps: int = 1000) -> list[int]:
    """The `steps + 1` times that AIAS visits, `steps` network evaluations apart: evenly from T to 2, then 1, 0."""
    if steps < 1:
        raise UserError(f"aias.steps={steps} is below 1; raise aias.steps")
    if steps > timesteps:
        raise UserError(f"aias.steps={steps} exceeds timesteps={timesteps}; lower aias.steps")
    if steps == 1:
        return [timesteps, 0]
    coarse = np.linspace(timesteps, 2, steps - 1).round().astype(int) if steps > 2 else [timesteps]
    return [*(int(t) for t in coarse), 1, 0]


@dataclass(frozen=True)
class AIASOptions:
    """`steps`: network evaluations.

    `farm_mode`: "replace", FARM's reconstruction re-noised becomes the foreground after each jump (Eq. 8, Alg. 3);
    "steer", it only enters the network's input and the x0 estimate (the authors' release).
    `background_window`: (low, high), inject the background only at low < t < high (release: 250, 750); None, at every
    coarse boundary (paper). `coefficients`: "exact", or "printed" for the paper's Lemma 2 as it stands.
    """

    steps: int = 10
    farm_mode: str = "replace"
    background_window: tuple[int, int] | None = None
    coefficients: str = "exact"

    def __post_init__(self) -> None:
        if self.farm_mode not in ("replace", "steer"):
            raise UserError(f"aias.farm_mode={self.farm_mode} is unknown; use replace or steer")
        if self.coefficients not in ("exact", "printed"):
            raise UserError(f"aias.coefficients={self.coefficients} is unknown; use exact or printed")


@dataclass(frozen=True)
class Guidance:
    """What is known of the picture: where the defect goes, what lies around it, and what FARM makes of the noise.

    `mask` (B,1,h,w) in {0,1}; `background` (B,C,h,w), the clean latent of the normal image, or None to inject nothing;
    `farm(x, t)` with t (B,) in 0..T-1 returns the clean defect, or None to leave the foreground to the network.
    """

    schedule: NoiseSchedule
    mask: Tensor
    background: Tensor | None = None
    farm: Reconstruct | None = None
    noise: Noise = torch.randn_like
    window: tuple[int, int] | None = None

    def with_foreground(self, x: Tensor, t: int) -> Tensor:
        """x with its masked part replaced by FARM's reconstruction noised to t (Eq. 11-12)."""
        if self.farm is None:
            return x
        anomaly = self.schedule.q_sample(self.farm(x, network_time(x, t)), t, self.noise(x))
        return self.mask * anomaly + (1 - self.mask) * x

    def with_background(self, x: Tensor, t: int) -> Tensor:
        """x with the normal image noised to t outside the mask (Eq. 7-8)."""
        if self.background is None or not (self.window is None or self.window[0] < t < self.window[1]):
            return x
        known = self.schedule.q_sample(self.background, t, self.noise(x))
        return self.mask * x + (1 - self.mask) * known

    def inject(self, x: Tensor, t: int) -> Tensor:
        """Both, after a step to t of any sampler. The last fine steps (t < 2) are left to the network."""
        return self.with_foreground(self.with_background(x, t), t) if t > 1 else x


def aias(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    *,
    guidance: Guidance | None = None,
    noise: Noise = torch.randn_like,
    options: AIASOptions = AIASOptions(),
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Sample x0 (B,C,h,w) from x = x_T. Without `guidance` this is DDPM in `options.steps` jumps."""
    times = boundaries(options.steps, schedule.timesteps)
    jump = schedule.posterior if options.coefficients == "exact" else schedule.posterior_printed
    for i, (ts, te) in enumerate(itertools.pairwise(times)):
        coarse = ts > 2 and te > 0 and guidance is not None
        seen = guidance.with_foreground(x, ts) if coarse and guidance and options.farm_mode == "steer" else x
        x0 = schedule.predict_x0(seen, ts, denoise(seen, network_time(x, ts)))
        x = posterior_step(x, x0, ts, te, jump(ts, te), noise)  # segment mean and variance, Lemma 2
        if coarse and guidance:
            x = guidance.with_background(x, te)
            x = guidance.with_foreground(x, te) if options.farm_mode == "replace" else x
        if callback:
            callback(i, x)
    return x
