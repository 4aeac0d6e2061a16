"""AnomalyDiffusion: what a type looks like and where its mask lies as words of a frozen base; blended sampling."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fast.anomalydiffusion.location import location_encoder
from fast.anomalydiffusion.prompts import LocatedPrompts, templates_of
from fast.anomalydiffusion.weights import FORMS, code_weights, dilated, dilation_radius, paper_weights
from fast.data.tensors import latent_mask
from fast.latent.prompted import PromptedDiffusion, SamplingInputs
from ldm.errors import UserError
from ldm.models.diffusion import samplers
from ldm.rng import generator


class AnomalyDiffusion(PromptedDiffusion):
    """AnomalyDiffusion: words learned on a frozen base for what a defect type looks like and for where its mask lies.

    Args:
        prompt_tokens: appearance vectors of each type.
        location: the encoder of the mask, "ir50" (as published) or "small".
        location_tokens: vectors that this encoder makes.
        templates: texts around the vectors, see `templates_of`.
        steps: network evaluations in synthesis, where nobody names another number.
        eta: of DDIM. 0 is deterministic, 1 has DDPM's variance.
        reweight: form of the adaptive attention re-weighting: "code" as the authors' code has it, "paper" as their
            paper prints it. None: no re-weighting.
        base: the other parameters of `PromptedDiffusion`.

    Raises:
        UserError: when an option is unknown, or when the vectors do not fit beside the words of a prompt.
    """

    name = "anomalydiffusion"
    samplers = ("ddim",)
    switches = ("reweight", "eta")
    sees_masks = True
    teachable = False  # its type embeddings are all that it learns
    default_steps = 200
    prompts: LocatedPrompts

    def __init__(
        self,
        prompt_tokens: int = 4,
        location: str = "ir50",
        location_tokens: int = 4,
        templates: int | Sequence[str] | None = None,
        steps: int = default_steps,
        eta: float = 1.0,
        reweight: str | None = None,
        **base: Any,
    ):
        super().__init__(prompt_tokens=prompt_tokens, **base)
        _check_form(reweight)
        encoder = self._text_encoder(prompt_tokens + location_tokens)
        width = encoder.width
        self.prompts = LocatedPrompts(
            self.prompts.types, width, prompt_tokens, location_tokens, templates_of(templates)
        )
        self.prompts.start_from(encoder, self.init_word)
        self.location = location_encoder(location, width, location_tokens)
        self.steps, self.eta, self.reweight = steps, eta, reweight

    def trainable_modules(self) -> dict[str, Any]:
        return {**super().trainable_modules(), "location": self.location}

    @classmethod
    def evaluations(cls, params: Mapping[str, Any]) -> int:
        return int(params.get("steps", cls.default_steps))

    # prompts

    def conditioning(self, batch: Mapping[str, Any]) -> Tensor:
        seeds, count = batch.get("seed"), len(self.prompts.templates)
        template = None
        if count > 1 and seeds is not None:
            template = [int(torch.randint(count, (), generator=generator(int(s), 6))) for s in seeds]
        located = self.location(batch["mask"])
        with self._as_kept(self.cond_stage_model):
            prompts = self.prompts(self.cond_stage_model, batch["type"], located, template)
            return self._some_dropped(batch, prompts)

    def window_prompts(self, types: Tensor, pixels: Tensor) -> Tensor:
        """Prompts (B,L,width) for windows with the masks `pixels` (B,1,H,W), by the first template.

        Each is encoded by itself, so that no window's bytes depend on the others.
        """
        rows = zip(types.split(1), pixels.split(1), strict=True)
        return torch.cat([self.prompts(self.cond_stage_model, t, self.location(mask)) for t, mask in rows])

    # training

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error, inside the mask, of what the base predicts: the noise for the published one.

        The mean is over all cells, so that a small defect weighs little.
        """
        x0 = self.latents(batch)
        m = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        t, eps = self.draw(batch, x0)
        placed = self.placed(batch, self.conditioning(batch), x0)
        predicted = self.network(self.schedule.q_sample(x0, t, eps), t - 1, placed).float()
        loss = (m * predicted - m * self._target(x0, t, eps)).square().mean()
        return loss, {"loss_masked": loss}

    # synthesis

    @torch.no_grad()
    def fill(self, place: SamplingInputs) -> Tensor:
        """Sample by DDIM from pure noise, with the surroundings held to the normal picture.

        Before each evaluation the surroundings are replaced by the normal picture's, noised to that time. The result of
        the last evaluation stays as it is: outside the mask it is what the network makes of a hardly noised normal
        picture. `place.options` may hold `reweight` and `eta`, where they are not to be those of the training.

        Raises:
            UserError: when `reweight` is unknown.
        """
        schedule, reweight = self.schedule, _check_form(place.options.get("reweight", self.reweight))
        clean: list[Tensor] = []  # the last predicted x0

        def region(t: int) -> Tensor:
            """The mask at paper time t; the code's re-weighting lets it grow."""
            if reweight != "code":
                return place.mask
            return dilated(place.mask, dilation_radius(t - 1, max(place.mask.shape[-2:])))

        def inject(x: Tensor, t: int) -> Tensor:
            if t < 2:
                return x
            m = region(t)
            return m * x + (1 - m) * schedule.q_sample(place.background, t, place.noise(x))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            weights = None
            if reweight == "code":
                weights = code_weights(x, place.background, region(int(t[0]) + 1))
            elif reweight == "paper" and clean:
                weights = paper_weights(clean[0], place.background, place.mask)
            eps = place.denoise(x, t, weights=weights, form=FORMS[reweight or "code"])
            clean[:] = [schedule.predict_x0(x, t + 1, eps)]
            return eps

        first = int(samplers.ddim_timesteps(place.steps, schedule.timesteps)[-1]) + 1
        x = inject(place.noise(place.background), first)
        eta = place.options.get("eta", self.eta)
        return samplers.ddim(denoise, schedule, x, steps=place.steps, eta=eta, noise=place.noise, inject=inject)


def _check_form(reweight: str | None) -> str | None:
    if reweight is not None and reweight not in FORMS:
        raise UserError(f"reweight={reweight} is unknown; use {', '.join(FORMS)} or leave it out")
    return reweight
