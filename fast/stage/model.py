"""STAGE as a module: a frozen base with learned prompts and, behind its U-Net, an adapter for each of two branches."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from fast.data.tensors import latent_mask
from fast.latent.adaptor import MGA, corrected, corrected_noise
from fast.latent.prompted import Beside, PromptedDiffusion, SamplingInputs
from fast.stage.sampling import STAGEOptions, stage_sample
from ldm.errors import UserError
from ldm.rng import generator
from ldm.util import check_params


class STAGE(PromptedDiffusion):
    """STAGE: a frozen base with learned prompts and, behind its U-Net, an adapter for each of two branches.

    The adapters correct whatever the U-Net predicts. On a base that predicts v (or x0) they correct v (or x0), and the
    losses are errors of that. In the noise, which the papers' bases predict, what a defect looks like at large t would
    hardly show.

    Args:
        mga: options of the adapters, see `fast.latent.adaptor.MGA`.
        stage: which of STAGE's parts take part, see `fast.stage.sampling.STAGEOptions`.
        lambda_aware, lambda_only: weights of the two branches' losses, 4 and 1 in the release, both 1 in the paper.
        lr: the effective learning rate.
        base: the other parameters of `PromptedDiffusion`.

    Raises:
        UserError: when an option is unknown or out of range, or when a weight is negative or both are 0.
    """

    name = "stage"
    samplers = ("ddpm", "aias")
    switches = tuple(f.name for f in fields(STAGEOptions))

    def __init__(
        self,
        mga: Mapping[str, Any] | None = None,
        stage: Mapping[str, Any] | None = None,
        lambda_aware: float = 4.0,
        lambda_only: float = 1.0,
        lr: float = 1e-3,
        **base: Any,
    ):
        mga, stage = mga or {}, stage or {}
        check_params(MGA, mga, "model.params.mga")
        check_params(STAGEOptions, stage, "model.params.stage")
        if lambda_aware < 0 or lambda_only < 0 or lambda_aware + lambda_only == 0:
            raise UserError(f"lambda_aware={lambda_aware}, lambda_only={lambda_only}: weights from 0, one above it")
        super().__init__(lr=lr, **base)
        self.stage_options = STAGEOptions(**stage)
        self.stage_options.check(self.schedule.timesteps)
        self.lambda_aware, self.lambda_only = lambda_aware, lambda_only
        part, mga = self.stage_options, {**mga, "channels": self.channels}
        self.mga_aware = MGA(**mga) if part.mga else None
        self.mga_only = MGA(**mga) if part.mga and part.gd else None

    def _adapters(self) -> dict[str, nn.Module]:
        both = {"mga_aware": self.mga_aware, "mga_only": self.mga_only}
        return {name: adapter for name, adapter in both.items() if adapter is not None}

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {**self._adapters(), **super().trainable_modules()}

    # training

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 12, where each branch is fed its own state; as printed, each is fed the other's.

        Both branches get the same time, each with a noise of its own. The anomaly-only branch sees nothing but the
        defect: its state holds nothing else, and a hybrid base is told nothing of the surroundings.
        """
        x0 = self.latents(batch)
        mask = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        t, eps = self.draw(batch, x0)
        cond = self.conditioning(batch)
        aligned = self.stage_options.aligned(mask, t, self.schedule.timesteps)
        error = self._error(self.mga_aware, x0, t, eps, self.placed(batch, cond, x0), aligned)
        loss_aware = (aligned * error).abs().mean()
        parts, loss = {"loss_aware": loss_aware}, self.lambda_aware * loss_aware
        if self.stage_options.gd:
            eps, nothing = self._second_noise(batch, x0), torch.zeros_like(x0)
            shown = self.detailed_mask(batch["mask"].to(x0), (x0.shape[-2], x0.shape[-1]))
            error = self._error(self.mga_only, mask * x0, t, eps, self.with_place(cond, shown, nothing), mask)
            parts["loss_only"] = error.abs().mean()
            loss = loss + self.lambda_only * parts["loss_only"]
        return loss, parts

    def _error(self, adapter: nn.Module | None, x0: Tensor, t: Tensor, eps: Tensor, cond: Any, mask: Tensor) -> Tensor:
        """What a branch's answer at t (B,) in 1..T lacks, like x0."""
        said = self.network(self.schedule.q_sample(x0, t, eps), t - 1, cond).float()
        return self._target(x0, t, eps) - corrected(adapter, said, mask)

    def _second_noise(self, batch: Mapping[str, Any], x0: Tensor) -> Tensor:
        """Noise like x0, independent of `draw`'s, from the samples' seeds where the batch has them."""
        if "seed" not in batch:
            return torch.randn_like(x0)
        return torch.stack([torch.randn(x0.shape[1:], generator=generator(int(s), 5)) for s in batch["seed"]]).to(x0)

    # synthesis

    def auxiliary_modules(self) -> list[Beside]:
        def example(adapter: nn.Module, x: Tensor, prompt: Tensor) -> Tensor:
            return adapter(x, x[:, :1])

        return [(adapter, example) for adapter in self._adapters().values()]

    def _options(self, given: Mapping[str, Any]) -> STAGEOptions:
        """The training's, with what `given` changes. Raises `UserError` for a part that the training left out."""
        options = replace(self.stage_options, **{k: v for k, v in given.items() if k in self.switches})
        for part in ("mga", "gd"):
            if getattr(options, part) and not getattr(self.stage_options, part):
                raise UserError(f"stage.{part}=true, but this model was trained without it; leave it off")
        return options

    def fill(self, place: SamplingInputs) -> Tensor:
        """Run STAGE's chain: in T single steps with the sampler "ddpm", in `place.steps` jumps with "aias".

        `place.options` may hold any of `STAGEOptions`, for this run.

        Raises:
            UserError: when they ask for a part that the training left out.
        """
        options = self._options(place.options)
        nothing = torch.zeros_like(place.background)

        def answer(adapter: nn.Module | None, x: Tensor, t: Tensor, m: Tensor, eps: Tensor) -> Tensor:
            if adapter is None or not options.mga:
                return eps
            return corrected_noise(adapter, self.schedule, self.parameterization, x, t + 1, eps, m, place.dtype)

        def aware(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
            return answer(self.mga_aware, x, t, m, place.denoise(x, t))

        def only(x: Tensor, t: Tensor, m: Tensor) -> Tensor:
            return answer(self.mga_only, x, t, m, place.denoise(x, t, known=nothing))

        steps = self.schedule.timesteps if place.sampler == "ddpm" else place.steps
        return stage_sample(aware, only, self.schedule, place.noise, place.mask, place.background, options, steps)
