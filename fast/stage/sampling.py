"""STAGE's reverse chain as a function over two callables: two states that take turns, and a mask that closes in."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fast.aias import boundaries
from ldm.errors import UserError
from ldm.models.diffusion.samplers import Noise, network_time, posterior_step
from ldm.models.diffusion.schedule import NoiseSchedule

Branch = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, t (B,) in 0..T-1, mask (B,1,h,w)) -> eps


@dataclass(frozen=True)
class STAGEOptions:
    """The parts of STAGE that take part, of which each one switched off is its ablation.

    All four off is the paper's baseline, a plain diffusion model.

    Args:
        aif: anomaly inference. The known background enters the clean estimate, and so the posterior's mean (Eq. 3-6).
            Off: the estimate is the network's, and the background is laid over the sample after each step, as RePaint
            does. Algorithm 1 does that in any case, so where the mask is 0 or 1 the two are the same: `aif` acts where
            the aligned mask is soft, and without `ema` nowhere.
        gd: graded diffusion. The anomaly-only branch serves `only_intervals`. Off: the anomaly-aware branch serves all
            times, and no other is trained.
        ema: explicit mask alignment. The mask closes in from all ones at T to the defect at `t_s` (Eq. 8). Off: it is
            the defect's from the start, in training too.
        mga: mask guidance adapters. They answer for the U-Net. Off: it answers itself, and only the prompts learn.
        t_s: the paper time, below T, at which the mask has closed in.
        only_intervals: where the anomaly-only branch serves: pairs (from, to) in paper time, both ends included.

    Raises:
        UserError: when a switch is no bool, or a time or an interval is not valid.
    """

    aif: bool = True
    gd: bool = True
    ema: bool = True
    mga: bool = True
    t_s: int = 200
    only_intervals: tuple[tuple[int, int], ...] = ((1000, 800), (400, 300))

    def __post_init__(self) -> None:
        for name in ("aif", "gd", "ema", "mga"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"stage.{name}={getattr(self, name)} is no switch; write true or false")
        if not _is_time(self.t_s):
            raise UserError(f"stage.t_s={self.t_s} is not a time from 0; the paper's is 200")
        given = self.only_intervals
        if not isinstance(given, list | tuple) or not all(_is_interval(i) for i in given):
            raise UserError(f"stage.only_intervals={given} is no list of [from, to]; write [[1000, 800], [400, 300]]")
        object.__setattr__(self, "only_intervals", tuple((max(i), min(i)) for i in given))

    def check(self, timesteps: int) -> None:
        """Raise `UserError` if the mask could not close in within a schedule of `timesteps`."""
        if self.ema and self.t_s >= timesteps:
            raise UserError(f"stage.t_s={self.t_s} is not below timesteps={timesteps}; lower stage.t_s")

    def is_only(self, t: int) -> bool:
        """Whether the anomaly-only branch serves the step that starts at t."""
        return self.gd and any(low <= t <= high for high, low in self.only_intervals)

    def aligned(self, mask: Tensor, t: int | Tensor, timesteps: int) -> Tensor:
        """The mask (B,1,h,w) as it is at time t, an int or (B,) in 1..T: M^p_t (B,1,h,w) in [0, 1]."""
        return ema_mask(mask, t, self.t_s, timesteps) if self.ema else mask


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_interval(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_time(v) for v in value)


def ema_mask(mask: Tensor, t: int | Tensor, t_s: int = 200, T: int = 1000) -> Tensor:
    """M^p_t = M0 + zeta(t) (1 - M0), where zeta rises linearly from 0 at t_s to 1 at T (Eq. 8).

    `mask` is (B,1,h,w) in {0,1}, and t is in paper time, an int or (B,). The result is soft: it is not thresholded.
    """
    time = torch.as_tensor(t, device=mask.device).to(mask.dtype).reshape(-1, 1, 1, 1)
    zeta = ((time - t_s) / (T - t_s)).clamp(0, 1)
    return mask + zeta * (1 - mask)


def stage_sample(
    aware: Branch,
    only: Branch,
    schedule: NoiseSchedule,
    noise: Noise,
    mask: Tensor,
    background: Tensor,
    options: STAGEOptions,
    steps: int,
) -> Tensor:
    """Sample latents with a defect inside the mask and the clean background around it.

    This is Alg. 1 with the updates of Eq. 7. The two branches work in states of their own, x and x^p, which start from
    the same noise. A jump over several times is the closed form of the single steps that it spans. Its branch and its
    mask M^p are those of the time that it starts from, as in the release, which counts times from 0. The jump to t = 0
    takes the defect's own mask, so that what is outside is the background however few the jumps are.

    Three faults of the release are repaired: its re-noised mask repeats one channel's noise in all channels, its last
    step leaves a noise of 0.029 on the background, and its intervals are not those of the paper.

    Args:
        aware: the anomaly-aware branch, which predicts the noise in x.
        only: the anomaly-only branch, which predicts the noise in x^p.
        schedule: the noise schedule, of length T.
        noise: `noise(x)` returns standard normal noise like x.
        mask: the defect's mask (B,1,h,w), in {0,1}.
        background: the clean latents (B,C,h,w) of what is around it.
        options: the parts of STAGE that take part.
        steps: network evaluations. T is the published chain of single steps, fewer are jumps along AIAS's boundaries.

    Returns:
        Latents x0 (B,C,h,w).

    Raises:
        UserError: when `steps` lies outside 1..T, or when the mask cannot close in (`STAGEOptions.check`).
    """
    total = schedule.timesteps
    options.check(total)
    x = defect = noise(background)
    for ts, te in itertools.pairwise(boundaries(steps, total)):
        is_only = options.is_only(ts)
        m = mask if is_only or te == 0 else options.aligned(mask, ts, total)
        state, branch = (defect, only) if is_only else (x, aware)
        x0 = schedule.predict_x0(state, ts, branch(state, network_time(state, ts), m))
        if options.aif and not is_only:  # in the other state nothing is around the defect: see below
            x0 = m * x0 + (1 - m) * background  # Eq. 3
        made = posterior_step(state, x0, ts, te, schedule.posterior(ts, te), noise)  # Eq. 4-6
        x = m * made + (1 - m) * schedule.q_sample(background, te, noise(background))
        if options.gd:
            around = schedule.q_sample(mask.expand_as(background), te, noise(background))
            defect = mask * made + (1 - mask) * around
    return x
