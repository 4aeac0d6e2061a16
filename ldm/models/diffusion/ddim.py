"""`DDIMSampler` with its familiar calls, over the sampler functions."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ldm.models.diffusion import samplers
from ldm.models.diffusion.schedule import NoiseSchedule


class DiffusionModel(Protocol):
    """All that a sampler asks of a model."""

    schedule: NoiseSchedule

    @property
    def device(self) -> Any: ...

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor: ...


def _both(cond: Any, empty: Any) -> Any:
    """Conditioning of the doubled batch (empty first), through lists and dicts."""
    if isinstance(cond, dict):
        return {k: _both(cond[k], empty[k]) for k in cond}
    if isinstance(cond, list):
        return [_both(c, e) for c, e in zip(cond, empty, strict=True)]
    return torch.cat([empty, cond])


def bind(model: DiffusionModel, cond: Any, scale: float = 1.0, empty: Any = None) -> samplers.Denoise:
    """Return `denoise(x, t)` of a model under `cond`.

    With a `scale` other than 1 and an `empty` condition it applies classifier-free guidance against that one.
    """
    if scale == 1.0 or empty is None:
        return lambda x, t: model.apply_model(x, t, cond)
    both = _both(cond, empty)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        without, with_cond = model.apply_model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return without + scale * (with_cond - without)

    return guided


class DDIMSampler:
    def __init__(self, model: DiffusionModel):
        self.model = model

    def make_schedule(
        self, ddim_num_steps: int, ddim_discretize: str = "uniform", ddim_eta: float = 0.0, verbose: bool = False
    ) -> None:
        """Fix the table indices (`ddim_timesteps`, ascending) and eta of the following calls."""
        self.ddim_timesteps = samplers.ddim_timesteps(ddim_num_steps, self.model.schedule.timesteps, ddim_discretize)
        self._steps, self._discretize, self._eta = ddim_num_steps, ddim_discretize, ddim_eta

    def _run(self, denoise: samplers.Denoise, x: Tensor, **options: Any) -> Tensor:
        return samplers.ddim(
            denoise, self.model.schedule, x, steps=self._steps, eta=self._eta, discretize=self._discretize, **options
        )

    @torch.no_grad()
    def sample(
        self,
        S: int,
        batch_size: int,
        shape: tuple[int, int, int],
        conditioning: Any = None,
        *,
        eta: float = 0.0,
        mask: Tensor | None = None,
        x0: Tensor | None = None,
        x_T: Tensor | None = None,
        temperature: float = 1.0,
        log_every_t: int = 100,
        callback: Callable[[int], None] | None = None,
        img_callback: Callable[[Tensor, int], None] | None = None,
        unconditional_guidance_scale: float = 1.0,
        unconditional_conditioning: Any = None,
        ddim_discretize: str = "uniform",
        verbose: bool = False,
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Sample (batch_size, *shape) in S evaluations.

        Args:
            S: sampling steps.
            batch_size: number of samples.
            shape: (C,h,w) of one.
            conditioning: what `apply_model` takes as its condition.
            eta: 0 is deterministic, 1 has DDPM's variance.
            mask: (B,1,H,W), 1 = keep. The kept part is `x0` noised to the level of every step. None: nothing is kept.
            x0: (B,C,H,W), the latent to keep where the mask is 1.
            x_T: the state to start from. None: fresh noise.
            temperature: factor of the noise that is added in the steps.
            log_every_t: see `Returns`.
            callback: `callback(i)` is called after step i.
            img_callback: `img_callback(x0, i)` is called after step i with the estimate of x0.
            unconditional_guidance_scale: strength of classifier-free guidance, 1 for none.
            unconditional_conditioning: the empty condition that guidance works against.
            ddim_discretize: "uniform" or "quad", how the steps are spread.
            verbose: without effect.

        Returns:
            The samples and {"x_inter": [...], "pred_x0": [...]}: the start, the first step, then every `log_every_t`
            steps to the last.

        Raises:
            UserError: S lies outside 1..T, or the discretization is unknown.
            ValueError: there is a mask without `x0`.
        """
        self.make_schedule(S, ddim_discretize, eta)
        model, schedule = self.model, self.model.schedule
        x = torch.randn(batch_size, *shape, device=model.device) if x_T is None else x_T
        denoise = bind(model, conditioning, unconditional_guidance_scale, unconditional_conditioning)
        inject = None
        if mask is not None:
            if x0 is None:
                raise ValueError("a mask needs x0, the latent that is kept where the mask is 1")
            inject = _keeper(schedule, mask, x0)
            x = inject(x, int(self.ddim_timesteps[-1]) + 1)
        kept: dict[str, list[Tensor]] = {"x_inter": [x], "pred_x0": [x]}
        total = len(self.ddim_timesteps)

        def after(i: int, state: Tensor, estimate: Tensor) -> None:
            if callback:
                callback(i)
            if img_callback:
                img_callback(estimate, i)
            if (total - 1 - i) % log_every_t == 0 or i == 0:
                kept["x_inter"].append(state)
                kept["pred_x0"].append(estimate)

        noise = lambda like: temperature * torch.randn_like(like)  # noqa: E731
        x = self._run(denoise, x, noise=noise, inject=inject, callback=after)
        return x, kept


def _keeper(schedule: NoiseSchedule, mask: Tensor, x0: Tensor) -> samplers.Inject:
    """Where the mask is 1 put the known latent at the state's noise level; the finished sample is left alone."""

    def keep(x: Tensor, t: int) -> Tensor:
        if t <= 1:
            return x
        return mask * schedule.q_sample(x0, t, torch.randn_like(x0)) + (1 - mask) * x

    return keep
