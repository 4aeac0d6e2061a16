"""AIAS, anomaly-informed accelerated sampling (FAST, Sec. 3.1 and Alg. 3): DDPM's reverse chain in a few jumps."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.errors import UserError
from ldm.models.diffusion.samplers import Denoise, Inject, Noise, network_time, posterior_step
from ldm.models.diffusion.schedule import NoiseSchedule

Reconstruct = Callable[[Tensor, Tensor], Tensor]


def boundaries(steps: int, timesteps: int = 1000, start: int | None = None) -> list[int]:
    """The `steps + 1` times that AIAS visits, with one network evaluation between each two.

    They are evenly spread from `start` to 2, then follow 1 and 0. Two steps visit `start`, 1 and 0, one step `start`
    and 0.

    Args:
        steps: network evaluations, from 1.
        timesteps: T of the noise schedule.
        start: the first time, in 1..T. None: T.

    Raises:
        UserError: `steps` is below 1, or more than the times up to T or to `start`.
    """
    first = timesteps if start is None else start
    if steps < 1:
        raise UserError(f"aias.steps={steps} is below 1; raise aias.steps")
    if steps > timesteps:
        raise UserError(f"aias.steps={steps} exceeds timesteps={timesteps}; lower aias.steps")
    if steps > first:
        raise UserError(
            f"{steps} steps do not fit below t={first}, where a draft starts; lower --steps or raise --strength"
        )
    if steps == 1:
        return [first, 0]
    coarse = np.linspace(first, 2, steps - 1).round().astype(int) if steps > 2 else [first]
    return [*(int(t) for t in coarse), 1, 0]


@dataclass(frozen=True)
class AIASOptions:
    """Options of AIAS sampling.

    Args:
        steps: network evaluations, from 1. `stop_at` may save the last of them.
        farm_mode: "replace", FARM's reconstruction, noised again, becomes the foreground after each jump (Eq. 8, Alg.
            3). Or "steer", it only enters the network's input and the x0 estimate, as in the authors' release.
        background_window: (low, high), the background is injected only at times low < t < high (release: 250, 750).
            None: at every coarse boundary (paper).
        farm_window: (low, high), FARM stands in only at times low < t < high. None: always (paper).
        coefficients: "exact", or "printed" for the paper's Lemma 2 as it is printed, see
            `NoiseSchedule.posterior_printed`.
        stop_at: the network is not asked again once t <= stop_at: the clean background and what is known of the defect
            stand. 0 asks to the end, 2 saves the two fine evaluations. Far above that, FARM is asked what it was not
            trained for. Without a `Guidance` it has no effect.

    Raises:
        UserError: an option is unknown or out of range.
    """

    steps: int = 10
    farm_mode: str = "replace"
    background_window: tuple[int, int] | None = None
    farm_window: tuple[int, int] | None = None
    coefficients: str = "exact"
    stop_at: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise UserError(f"aias.steps={self.steps} is not a whole number from 1; correct aias.steps")
        for name in ("background_window", "farm_window"):
            window = getattr(self, name)
            if window is not None and not _is_window(window):
                raise UserError(f"aias.{name}={window} is not [low, high]; write [250, 750] or leave it out")
        if self.farm_mode not in ("replace", "steer"):
            raise UserError(f"aias.farm_mode={self.farm_mode} is unknown; use replace or steer")
        if not isinstance(self.stop_at, int) or self.stop_at < 0:
            raise UserError(f"aias.stop_at={self.stop_at} is not a time from 0; correct aias.stop_at")
        if self.coefficients not in ("exact", "printed"):
            raise UserError(f"aias.coefficients={self.coefficients} is unknown; use exact or printed")


def _is_window(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return pair and value[0] < value[1]


def _within(t: int, window: tuple[int, int] | None) -> bool:
    return window is None or window[0] < t < window[1]


@dataclass(frozen=True)
class Guidance:
    """What is known of the picture: where the defect goes, what lies around it, and what FARM makes of the noise.

    Args:
        schedule: the noise schedule.
        mask: (B,1,h,w) in {0,1}, 1 where the defect goes.
        background: (B,C,h,w), the clean latent of the normal image. None injects nothing.
        farm: `farm(x, t)` with t (B,) in 0..T-1, which returns the clean defect. None leaves the foreground to the
            network.
    """

    schedule: NoiseSchedule
    mask: Tensor
    background: Tensor | None = None
    farm: Reconstruct | None = None

    def with_foreground(self, x: Tensor, t: int, noise: Noise, window: tuple[int, int] | None = None) -> Tensor:
        """Return x (B,C,h,w) with FARM's reconstruction, noised to t in 1..T, inside the mask (Eq. 11-12).

        Without FARM, or at a t outside `window`, x comes back as it is.
        """
        if self.farm is None or not _within(t, window):
            return x
        anomaly = self.schedule.q_sample(self.farm(x, network_time(x, t)), t, noise(x))
        return self.mask * anomaly + (1 - self.mask) * x

    def with_background(self, x: Tensor, t: int, noise: Noise, window: tuple[int, int] | None = None) -> Tensor:
        """Return x (B,C,h,w) with the normal image, noised to t, outside the mask (Eq. 7-8).

        Without a background, or at a t outside `window`, x comes back as it is.
        """
        if self.background is None or not _within(t, window):
            return x
        known = self.schedule.q_sample(self.background, t, noise(x))
        return self.mask * x + (1 - self.mask) * known

    def finished(self, x: Tensor, t: int, replace: bool) -> Tensor:
        """Complete a clean estimate x (B,C,h,w) made at time t: the clean background goes around the mask.

        With `replace`, FARM's defect goes inside it.
        """
        if self.farm is not None and replace:
            x = self.mask * self.farm(x, network_time(x, t)) + (1 - self.mask) * x
        return x if self.background is None else self.mask * x + (1 - self.mask) * self.background

    def hook(self, noise: Noise, options: AIASOptions = AIASOptions()) -> Inject:
        """Return `inject(x, t)` for other samplers to call after each step to t.

        It sets background and foreground in, each in its window. At t < 2 it changes nothing, for the last fine steps
        are the network's.
        """

        def inject(x: Tensor, t: int) -> Tensor:
            if t < 2:
                return x
            x = self.with_background(x, t, noise, options.background_window)
            return self.with_foreground(x, t, noise, options.farm_window)

        return inject


def aias(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x: Tensor,
    *,
    guidance: Guidance | None = None,
    noise: Noise = torch.randn_like,
    options: AIASOptions = AIASOptions(),
    start: int | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Sample a clean latent x0 by AIAS (Alg. 3); without `guidance` this is DDPM in `options.steps` jumps.

    Args:
        denoise: `denoise(x, t)` predicts the noise in x at t (B,) in 0..T-1.
        schedule: the noise schedule.
        x: (B,C,h,w), the state at `start`, pure noise at T.
        guidance: mask, background and FARM. None: there is nothing to fill.
        noise: `noise(x)` returns standard normal noise like x.
        options: steps, windows and modes.
        start: the time of x, in 1..T, where the jumps begin: that of a draft noised so far. None: T.
        callback: `callback(i, x)` is called after evaluation i, but not after one that `stop_at` makes the last.

    Returns:
        x0 (B,C,h,w).

    Raises:
        UserError: `options.steps` is more than the times of the schedule, or than those up to `start`.
    """
    times = boundaries(options.steps, schedule.timesteps, start)
    jump = schedule.posterior if options.coefficients == "exact" else schedule.posterior_printed
    steer = options.farm_mode == "steer"
    for i, (ts, te) in enumerate(itertools.pairwise(times)):
        guide = guidance if ts > 2 and te > 0 else None  # the last fine steps are plain
        seen = guide.with_foreground(x, ts, noise, options.farm_window) if guide and steer else x
        x0 = schedule.predict_x0(seen, ts, denoise(seen, network_time(x, ts)))
        if guidance and 0 < te <= options.stop_at:
            return guidance.finished(x0, te, replace=not steer and _within(te, options.farm_window))
        x = posterior_step(x, x0, ts, te, jump(ts, te), noise)  # segment mean and variance, Lemma 2
        if guide:
            x = guide.with_background(x, te, noise, options.background_window)
            x = x if steer else guide.with_foreground(x, te, noise, options.farm_window)
        if callback:
            callback(i, x)
    return x
