"""FAST: latent diffusion, frozen, with FARM and learned prompts to train and AIAS to sample."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.aias import AIASOptions, Guidance
from fast.data.tensors import latent_mask
from fast.farm import FARM
from fast.latent.adaptor import FAST_WIDTHS, MGA, corrected, corrected_noise
from fast.latent.prompted import Beside, PromptedDiffusion, SamplingInputs
from fast.latent.prompts import by_word
from fast.latent.sampling import SAMPLERS, sample_latents
from ldm.checkpoint import load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.models.diffusion.ddpm import shared_mean
from ldm.models.diffusion.samplers import Denoise
from ldm.util import check_params


class FAST(PromptedDiffusion):
    """FAST: a frozen latent-diffusion base, learned prompts, and FARM, which draws the defect's latent under the mask.

    Args:
        farm: options of `FARM`; `context_dim: null` hides the prompt from it.
        lambda1: weight of the noise error, the first term of Eq. 18.
        lambda2: weight of FARM's error, the second term of Eq. 18.
        use_farm: False trains and samples without FARM, the network on the real defects alone.
        real_share: share (0..1) of the samples in which the real defect stays. In the others FARM's reconstruction
            replaces it, as published in all of them; that is a mean without detail, and adapters that see nothing else
            learn smooth defects.
        objective: "eps", the error of the noise, as published; or "network", the error of what the network predicts.
            A base that predicts v learns next to nothing at large t from the former.
        defect_share: share (0..1) of each sample's loss that belongs to the cells of the mask, however few they are.
            None: the plain mean over all cells, in which a small defect hardly counts.
        farm_from: a trained artifact on the same base. FARM, and the prompt vectors of the same defect words, start
            from it.
        aias: defaults of sampling, see `fast.aias.AIASOptions`.
        mask_adaptor: True, or options of `fast.latent.adaptor.MGA`, for the network behind the U-Net that the authors'
            release has and the paper does not mention. It reads what the U-Net predicts and the latent mask, and its
            answer takes the prediction's place at every call, in sampling after guidance. `residual: true` starts it
            as the identity; the release's has to learn to repeat the prediction first.
        base: the parameters of `PromptedDiffusion`.

    Raises:
        UserError: an option is unknown or out of range, or `farm_from` stands on another base.
    """

    name = "fast"
    samplers = SAMPLERS

    def __init__(
        self,
        farm: Mapping[str, Any] | None = None,
        lambda1: float = 1.0,
        lambda2: float = 5.0,
        use_farm: bool = True,
        real_share: float = 0.0,
        objective: str = "eps",
        defect_share: float | None = None,
        farm_from: str | None = None,
        aias: Mapping[str, Any] | None = None,
        mask_adaptor: bool | Mapping[str, Any] = False,
        **base: Any,
    ):
        farm, aias = farm or {}, aias or {}
        adaptor = _adaptor_options(mask_adaptor)
        check_params(FARM, farm, "model.params.farm", complete=False)
        check_params(AIASOptions, aias, "model.params.aias")
        super().__init__(**base)
        if objective not in ("eps", "network"):
            raise UserError(f"model.params.objective={objective} is unknown; use eps or network")
        for option, share in (("real_share", real_share), ("defect_share", defect_share)):
            if share is not None and not 0 <= share <= 1:
                raise UserError(f"model.params.{option}={share} is no share; give 0 to 1, or leave it out")
        self.lambda1, self.lambda2, self.use_farm = lambda1, lambda2, use_farm
        self.real_share, self.objective, self.defect_share = real_share, objective, defect_share
        self.aias_options = AIASOptions(**aias)
        if farm.get("sees_known") and self.model.conditioning_key != "hybrid":
            raise UserError("farm.sees_known=true needs a base that sees the picture (conditioning_key: hybrid)")
        sees_prompt = farm.get("context_dim", self.prompts.vectors.shape[2])
        self.farm = FARM(**{**farm, "channels": self.channels, "context_dim": sees_prompt}).requires_grad_(use_farm)
        self.mask_adaptor = None if adaptor is None else MGA(**{**adaptor, "channels": self.channels})
        if farm_from:
            self.known_vectors = self._start_from(Path(farm_from))
            self.prompts.start_from(self._text_encoder(self.prompts.tokens), self.init_word, self.known_vectors)

    def _start_from(self, path: Path) -> dict[str, Tensor]:
        """Take over the FARM of an artifact. Returns its vectors (prompt_tokens,width) by defect word."""
        metadata, state = read_metadata(path), read_state_dict(path)
        if metadata.get("base_sha256") != self.base_hash:
            raise UserError(f"farm_from={path} was trained on another base than {self.base_path}; leave it out")
        if self.use_farm:
            farm = {k.removeprefix("farm."): v.clone() for k, v in state.items() if k.startswith("farm.")}
            load_strict(self.farm, farm, f"FARM of farm_from={path}")
        vectors = state["prompts.vectors"]
        if vectors.shape[1:] != self.prompts.vectors.shape[1:]:
            raise UserError(f"farm_from={path} has {vectors.shape[1]} vectors per type; set prompt_tokens to that")
        return by_word(json.loads(metadata["types"]), vectors.float())

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 18: the network must still see the noise when FARM's defect stands in for the real one."""
        x0 = self.latents(batch)
        m = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        t, eps = self.draw(batch, x0)
        x_t = self.schedule.q_sample(x0, t, eps)
        cond = self.conditioning(batch)
        placed = self.placed(batch, cond, x0)
        if not self.use_farm:
            loss_eps = self._noise_loss(x_t, x0, t, eps, placed, m)
            return self.lambda1 * loss_eps, {"loss_eps": loss_eps}
        anomaly = self.farm(x_t, m, t - 1, cond, _known(placed, self.channels)).float()
        stands_in = m * self._replaced(batch, x0)
        seen = (1 - stands_in) * x_t + stands_in * self.schedule.q_sample(anomaly, t, eps)  # Eq. 11-12, the same eps
        clean = (1 - stands_in) * x0 + stands_in * anomaly
        loss_eps = self._noise_loss(seen, clean, t, eps, placed, m)
        loss_farm = self._mean_error(anomaly, m * x0, m)
        return self.lambda1 * loss_eps + self.lambda2 * loss_farm, {"loss_eps": loss_eps, "loss_farm": loss_farm}

    def _noise_loss(self, seen: Tensor, clean: Tensor, t: Tensor, eps: Tensor, placed: Any, m: Tensor) -> Tensor:
        """How well the network tells `clean` from the noise `eps` in `seen`, at t in 1..T."""
        if self.objective == "eps":
            found = self.apply_model(seen, t - 1, placed).float()
            if self.mask_adaptor is not None:
                found = corrected_noise(self.mask_adaptor, self.schedule, self.parameterization, seen, t, found, m)
            return self._mean_error(found, eps, m)
        found = corrected(self.mask_adaptor, self.network(seen, t - 1, placed), m)
        return self._mean_error(found, self._target(clean, t, eps), m)

    def _mean_error(self, found: Tensor, target: Tensor, m: Tensor) -> Tensor:
        """Squared error of found (B,C,h,w): its mean over all cells, or with `defect_share` of each sample's two means,
        inside the mask m (B,1,h,w) and outside it, so that a pinhole counts like a defect that fills the picture."""
        if self.defect_share is None:
            return F.mse_loss(found, target)
        return shared_mean((found - target).square(), m, self.defect_share)

    def _replaced(self, batch: Mapping[str, Any], like: Tensor) -> Tensor:
        """1 for the samples (B,1,1,1) in which FARM's defect stands in, all but a share of `real_share`, by their
        seeds."""
        drawn = self._by_seed(batch, len(like), 7)
        return (drawn >= self.real_share).to(like)[:, None, None, None]

    def trainable_modules(self) -> dict[str, nn.Module]:
        own: dict[str, nn.Module] = {"farm": self.farm} if self.use_farm else {}
        if self.mask_adaptor is not None:
            own["mask_adaptor"] = self.mask_adaptor
        return {**own, **super().trainable_modules()}

    # synthesis

    @classmethod
    def evaluations(cls, params: Mapping[str, Any]) -> int:
        return int((params.get("aias") or {}).get("steps", cls.default_steps))

    def auxiliary_modules(self) -> list[Beside]:
        def example(farm: nn.Module, x: Tensor, prompt: Tensor) -> Tensor:
            return farm(x, x[:, :1], x.new_zeros(1).long(), prompt, x)

        def example_adaptor(adaptor: nn.Module, x: Tensor, prompt: Tensor) -> Tensor:
            return adaptor(x, x[:, :1])

        farm: list[Beside] = [(self.farm, example)] if self.use_farm else []
        return farm if self.mask_adaptor is None else [*farm, (self.mask_adaptor, example_adaptor)]

    def fill(self, place: SamplingInputs) -> Tensor:
        """AIAS, or another sampler with the same background and FARM. `place.options`: `use_farm`, `stop_at`."""
        options = replace(self.aias_options, steps=place.steps, stop_at=place.options.get("stop_at", 0))

        def farm(x: Tensor, t: Tensor) -> Tensor:
            return self.farm(x.to(place.dtype), place.mask, t, place.prompts, place.known).float()

        use_farm = self.use_farm and place.options.get("use_farm", True)
        guidance = Guidance(self.schedule, place.mask, place.background, farm if use_farm else None)
        return sample_latents(
            self.corrected_denoiser(place.denoise, place.mask, place.dtype),
            guidance,
            place.background,
            noise=place.noise,
            options=options,
            sampler=place.sampler,
            draft=place.draft,
            strength=place.strength,
        )

    def corrected_denoiser(self, denoise: Denoise, mask: Tensor, dtype: torch.dtype = torch.float32) -> Denoise:
        """See `PromptedDiffusion`: the mask adaptor, where there is one."""
        adaptor = self.mask_adaptor
        if adaptor is None:
            return denoise

        def adapted(x: Tensor, t: Tensor) -> Tensor:
            eps = denoise(x, t)
            return corrected_noise(adaptor, self.schedule, self.parameterization, x, t + 1, eps, mask, dtype)

        return adapted

    def log_images(self, batch: Mapping[str, Any], steps: int | None = None) -> dict[str, Tensor]:
        return super().log_images(batch, steps or self.aias_options.steps)


def _known(placed: Any, channels: int) -> Tensor | None:
    """What a hybrid base is shown of the picture (B,C,h,w), out of `LatentDiffusion.placed`; None for other bases."""
    return placed["c_concat"][0][:, -channels:] if isinstance(placed, dict) else None


def _adaptor_options(given: bool | Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The options of the mask adaptor; None for none."""
    if not isinstance(given, bool | Mapping):
        raise UserError(f"model.params.mask_adaptor={given}: give true, false or options, {{residual: true}}")
    if given is False:
        return None
    options = {} if given is True else given
    check_params(MGA, options, "model.params.mask_adaptor", complete=False)
    return {"widths": FAST_WIDTHS, **options}
