"""The noise schedule: the one place where betas become tables.

Time is the paper's: `t` runs 0..T, `t = 0` is clean and `alpha_bar(0) = 1`. Tables have length T and index `t - 1`,
which is also the number the U-Net is called with.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ldm.errors import UserError


@dataclass(frozen=True)
class NoiseSchedule:
    """`betas`: float64 array of length T; `betas[t - 1]` is beta_t."""

    betas: np.ndarray

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, dtype=np.float64)
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas <= 1)).all():
            raise UserError("betas must be one row of numbers in (0, 1]; check linear_start, linear_end and timesteps")
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "_tables", {})
        object.__setattr__(self, "_alpha_bar", np.concatenate([[1.0], np.cumprod(1.0 - betas)]))

    _alpha_bar: np.ndarray = field(init=False, repr=False)
    _tables: dict[torch.device, Tensor] = field(init=False, repr=False, compare=False)

    @classmethod
    def linear(cls, timesteps: int = 1000, start: float = 8.5e-4, end: float = 1.2e-2) -> "NoiseSchedule":
        """Latent-diffusion's schedule: linear in sqrt(beta)."""
        return cls(np.linspace(start**0.5, end**0.5, timesteps, dtype=np.float64) ** 2)

    @classmethod
    def named(
        cls, name: str, timesteps: int, start: float = 1e-4, end: float = 2e-2, cosine_s: float = 8e-3
    ) -> "NoiseSchedule":
        """One of latent-diffusion's `beta_schedule` names: linear, cosine, sqrt_linear, sqrt."""
        if name == "linear":
            return cls.linear(timesteps, start, end)
        if name == "cosine":
            steps = np.arange(timesteps + 1, dtype=np.float64) / timesteps + cosine_s
            bar = np.cos(steps / (1 + cosine_s) * math.pi / 2) ** 2
            return cls(np.clip(1 - bar[1:] / bar[:-1], 1e-12, 0.999))
        if name == "sqrt_linear":
            return cls(np.linspace(start, end, timesteps, dtype=np.float64))
        if name == "sqrt":
            return cls(np.linspace(start, end, timesteps, dtype=np.float64) ** 0.5)
        raise UserError(f"beta_schedule={name} is unknown; use linear, cosine, sqrt_linear or sqrt")

    @property
    def timesteps(self) -> int:
        return len(self.betas)

    def alpha_bar(self, t: int | Tensor) -> float | Tensor:
        """abar(t) for t in 0..T: a float for an int, a float64 tensor of the same shape for a tensor."""
        if isinstance(t, Tensor):
            if t.device not in self._tables:  # copied anew, it would make a GPU wait at every step
                self._tables[t.device] = torch.as_tensor(self._alpha_bar, device=t.device)
            return self._tables[t.device][t]
        return float(self._alpha_bar[self._checked(t)])

    def _checked(self, t: int) -> int:
        if not 0 <= t <= self.timesteps:
            raise ValueError(f"t={t} lies outside 0..{self.timesteps}")
        return int(t)

    def posterior(self, t_start: int, t_end: int) -> tuple[float, float, float]:
        """Coefficients of q(x_te | x_ts, x0): `x_te ~ N(coef_xt * x_ts + coef_x0 * x0, variance)`.

        The closed form of single posterior steps composed from `t_start` down to `t_end` (FAST, Lemma 2, with the
        products over the right indices).
        """
        start, end = float(self.alpha_bar(t_start)), float(self.alpha_bar(t_end))
        if t_end >= t_start:
            raise ValueError(f"a posterior jump goes down: t_end={t_end} is not below t_start={t_start}")
        r = start / end
        coef_xt = math.sqrt(r) * (1 - end) / (1 - start)
        coef_x0 = math.sqrt(end) * (1 - r) / (1 - start)
        return coef_xt, coef_x0, (1 - end) * (1 - r) / (1 - start)

    def posterior_printed(self, t_start: int, t_end: int) -> tuple[float, float, float]:
        """Lemma 2 as the paper prints it: products over the steps *above* i. Wrong; kept to reproduce the release."""
        coef_xt, _, _ = self.posterior(t_start, t_end)  # the one that is right
        bar, betas = self._alpha_bar, self.betas
        t = np.arange(t_end + 1, t_start + 1)
        a = np.sqrt(bar[t - 1]) * betas[t - 1] / (1 - bar[t])
        b = np.sqrt(1 - betas[t - 1]) * (1 - bar[t - 1]) / (1 - bar[t])
        variance = (1 - bar[t - 1]) / (1 - bar[t]) * betas[t - 1]
        above = np.append(np.cumprod(b[::-1])[::-1][1:], 1.0)
        return coef_xt, float((a * above).sum()), float((variance * above**2).sum())

    def scales(self, t: int | Tensor, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """sqrt(abar(t)), sqrt(1 - abar(t)); for a tensor `t` of shape (B,) shaped to multiply `like` (B, ...)."""
        bar = self.alpha_bar(t)
        if isinstance(bar, Tensor):
            shape = (-1,) + (1,) * (like.dim() - 1)
            return bar.sqrt().to(like).reshape(shape), (1 - bar).sqrt().to(like).reshape(shape)
        return math.sqrt(bar), math.sqrt(1 - bar)

    def q_sample(self, x0: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar) x0 + sqrt(1 - abar) noise, with t in 0..T, an int or (B,)."""
        signal, sigma = self.scales(t, x0)
        return signal * x0 + sigma * noise

    def predict_x0(self, x: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """The clean estimate (x_t - sqrt(1 - abar) eps) / sqrt(abar)."""
        signal, sigma = self.scales(t, x)
        return (x - sigma * eps) / signal

    def predict_eps(self, x: Tensor, t: int | Tensor, x0: Tensor) -> Tensor:
        """The noise that makes x_t of x0, with t in 1..T."""
        signal, sigma = self.scales(t, x)
        return (x - signal * x0) / sigma

    def tables(self, v_posterior: float = 0.0) -> dict[str, np.ndarray]:
        """The twelve arrays that latent-diffusion checkpoints carry as buffers, float64, by their names there."""
        bar, prev, betas = self._alpha_bar[1:], self._alpha_bar[:-1], self.betas
        variance = (1 - v_posterior) * betas * (1 - prev) / (1 - bar) + v_posterior * betas
        return {
            "betas": betas,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": prev,
            "sqrt_alphas_cumprod": np.sqrt(bar),
            "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - bar),
            "log_one_minus_alphas_cumprod": np.log(1 - bar),
            "sqrt_recip_alphas_cumprod": np.sqrt(1 / bar),
            "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / bar - 1),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
            "posterior_mean_coef1": betas * np.sqrt(prev) / (1 - bar),
            "posterior_mean_coef2": (1 - prev) * np.sqrt(1 - betas) / (1 - bar),
        }
