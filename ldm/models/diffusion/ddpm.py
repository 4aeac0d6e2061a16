"""The latent-diffusion model: a frozen first stage, a text encoder, a U-Net that predicts noise, as a Lightning module.

Batches are dictionaries: `latent` (B,C,h,w), the unscaled first-stage mean, or under `first_stage_key` the image
(B,3,H,W) in [-1, 1]; under `cond_stage_key` the condition, a list of B strings or a tensor; optionally `seed` (B,), one
number per sample that fixes its time and noise whatever the batch or the rank.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import UserError
from ldm.lr_scheduler import scheduled
from ldm.models.diffusion import samplers
from ldm.models.diffusion.conditioning import PromptCache, encode
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.models.diffusion.weights import SURPLUS, keep_in_bf16, load_average, load_base
from ldm.models.diffusion.wrapper import DiffusionWrapper
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from ldm.modules.ema import LitEma
from ldm.rng import generator
from ldm.util import instantiate_from_config, not_offered


class LatentDiffusion(pl.LightningModule):
    """Latent diffusion: a frozen first stage, a conditioning model and a network that denoises, with published names.

    The names of parameters and weights are those of latent-diffusion's configs and checkpoints. Batches are as the
    module's docstring says.

    Args:
        unet_config: `target` and `params` of the U-Net.
        first_stage_config: the same of the first stage, which is frozen.
        cond_stage_config: the same of the conditioning model. "__is_first_stage__" is the first stage itself,
            "__is_unconditional__" none.
        timesteps: T, the number of noise levels.
        beta_schedule: "linear" (in the square root of beta), "cosine", "sqrt_linear" or "sqrt", see
            `NoiseSchedule.named`.
        linear_start, linear_end: where the betas begin and end ("sqrt": their squares). Not used by "cosine".
        cosine_s: offset of "cosine".
        v_posterior: weight (0..1) of beta itself in the posterior variance that checkpoints carry as a table.
        given_betas: the T betas themselves, in the place of a schedule by name.
        parameterization: what the network predicts: "eps", "x0" or "v" (Salimans and Ho 2022).
        loss_type: "l2" or "l1".
        l_simple_weight: factor of the loss.
        mask_weight: cells with a defect pixel count `1 + mask_weight` times in the loss.
        defect_share: share (0..1) of each sample's loss that belongs to the cells of the mask, see `shared_mean`. Not
            together with `mask_weight`. None: as `mask_weight` says.
        min_snr_gamma: a cap, above 0, on the weight of low-noise times (Hang et al. 2023). None: no cap.
        hide_known: share (0..1) of a training batch that does not see what lies under the mask. For `hybrid`.
        mask_detail: for `hybrid`, the mask is shown at this many sub-cells a side of a latent cell, as
            `mask_detail ** 2` channels, so that a hairline keeps its place within its cells.
        conditioning_key: how the network takes the condition: "crossattn", "concat", "adm" or "hybrid", which is
            cross-attention and the defect's place as further channels, see `with_place`. None: as `concat_mode` says.
        concat_mode: True means "concat" where there is no `conditioning_key`, False "crossattn".
        first_stage_key, cond_stage_key: what the image and the condition are called in a batch.
        cond_stage_trainable: True trains the conditioning model too.
        unet_trainable: False says that the U-Net does not train. Only `frozen_precision` looks at it.
        frozen_precision: "fp32", or "bf16" to keep in half the memory what does not train: the first stage, the
            conditioning model unless `cond_stage_trainable`, and the U-Net where `unet_trainable` is False.
        cond_stage_forward: the conditioning model's method that encodes. None: `encode`, or a call where it has none.
        image_size: the latents' side in published configs. Nothing depends on it.
        channels: channels of the latents.
        scale_factor: what the first stage's latents are multiplied by.
        scale_by_std: True lets a run from scratch set that factor so that the training latents have unit variance.
        use_ema: True keeps a running mean of the network's weights.
        ema_decay: its decay.
        scheduler_config: `target` and `params` of the learning rate's course. None: the rate stays.
        ckpt_path: a whole base to load. None: the weights are fresh.
        ignore_keys: beginnings of the names in it whose weights stay fresh.
        lr: the effective learning rate, never multiplied.
        weight_decay: of AdamW.
        monitor, log_every_t, clip_denoised: without effect, for published configs. Latents are never clipped, as in the
            original.
        load_only_unet, num_timesteps_cond, original_elbo_weight, learn_logvar, logvar_init, use_positional_encodings:
            in published configs, at the value that asks for nothing. Any other value is refused.

    Raises:
        UserError: an option is unknown or out of range, or the checkpoint does not fit or has another noise schedule.
    """

    betas: Tensor

    def __init__(
        self,
        unet_config: Mapping[str, Any],
        first_stage_config: Mapping[str, Any],
        cond_stage_config: Mapping[str, Any] | str,
        timesteps: int = 1000,
        beta_schedule: str = "linear",
        linear_start: float = 1e-4,
        linear_end: float = 2e-2,
        cosine_s: float = 8e-3,
        v_posterior: float = 0.0,
        given_betas: Sequence[float] | None = None,
        parameterization: str = "eps",
        loss_type: str = "l2",
        l_simple_weight: float = 1.0,
        mask_weight: float = 0.0,
        defect_share: float | None = None,
        min_snr_gamma: float | None = None,
        hide_known: float = 0.5,
        mask_detail: int = 1,
        conditioning_key: str | None = None,
        concat_mode: bool = False,
        first_stage_key: str = "image",
        cond_stage_key: str = "caption",
        cond_stage_trainable: bool = False,
        unet_trainable: bool = True,
        frozen_precision: str = "fp32",
        cond_stage_forward: str | None = None,
        image_size: int = 32,
        channels: int = 4,
        scale_factor: float = 1.0,
        scale_by_std: bool = False,
        use_ema: bool = True,
        ema_decay: float = 0.9999,
        scheduler_config: Mapping[str, Any] | None = None,
        ckpt_path: str | None = None,
        ignore_keys: Iterable[str] = (),
        lr: float = 1e-4,
        weight_decay: float = 1e-2,
        monitor: str | None = None,
        log_every_t: int = 100,
        clip_denoised: bool = True,
        load_only_unet: bool = False,
        num_timesteps_cond: int | None = None,
        original_elbo_weight: float = 0.0,
        learn_logvar: bool = False,
        logvar_init: float = 0.0,
        use_positional_encodings: bool = False,
    ):
        super().__init__()
        if parameterization not in ("eps", "x0", "v") or loss_type not in ("l1", "l2"):
            raise UserError(f"parameterization={parameterization}, loss_type={loss_type}: use eps, x0, v and l1, l2")
        if (min_snr_gamma is not None and min_snr_gamma <= 0) or not 0 <= hide_known <= 1:
            raise UserError(f"min_snr_gamma={min_snr_gamma} must be above 0, hide_known={hide_known} lie in 0..1")
        if defect_share is not None and (mask_weight or not 0 <= defect_share <= 1):
            raise UserError(f"defect_share={defect_share} must lie in 0..1, and mask_weight be left out beside it")
        if not isinstance(mask_detail, int) or mask_detail < 1:
            raise UserError(f"mask_detail={mask_detail} is no whole number from 1; correct it")
        not_offered(
            load_only_unet=load_only_unet,
            num_timesteps_cond=None if num_timesteps_cond == 1 else num_timesteps_cond,
            original_elbo_weight=original_elbo_weight,
            learn_logvar=learn_logvar,
            logvar_init=logvar_init,
            use_positional_encodings=use_positional_encodings,
        )
        named = (beta_schedule, timesteps, linear_start, linear_end, cosine_s)
        self.schedule = NoiseSchedule.named(*named) if given_betas is None else NoiseSchedule(np.array(given_betas))
        self.parameterization, self.loss_type = parameterization, loss_type
        self.l_simple_weight, self.mask_weight, self.defect_share = l_simple_weight, mask_weight, defect_share
        self.mask_detail = mask_detail
        self.min_snr_gamma, self.hide_known = min_snr_gamma, hide_known
        self.first_stage_key, self.cond_stage_key, self.mask_key = first_stage_key, cond_stage_key, "mask"
        self.cond_stage_trainable, self.cond_stage_forward = cond_stage_trainable, cond_stage_forward
        self.image_size, self.channels, self.v_posterior = image_size, channels, v_posterior
        self.lr, self.weight_decay, self.scheduler_config = lr, weight_decay, scheduler_config
        self.scale_by_std, self.from_ckpt = scale_by_std, ckpt_path is not None
        self.use_ema, self.ema_decay = use_ema, ema_decay
        self._prompts = PromptCache()
        # Weights that a checkpoint will replace are never allocated.
        with torch.device("meta") if ckpt_path and not ignore_keys else nullcontext():
            key = conditioning_key or ("concat" if concat_mode else "crossattn")
            self._build(unet_config, first_stage_config, cond_stage_config, key, scale_factor)
        self._set_frozen_precision(frozen_precision, unet_trainable)
        self.model_ema: LitEma | None = None
        if ckpt_path:
            self.init_from_ckpt(ckpt_path, ignore_keys)
        elif use_ema:
            self.model_ema = LitEma(self.model, ema_decay)
        self.first_stage_model.requires_grad_(False).eval()
        if not cond_stage_trainable:
            self.cond_stage_model.requires_grad_(False).eval()

    def _build(
        self,
        unet_config: Mapping[str, Any],
        first_stage_config: Mapping[str, Any],
        cond_stage_config: Mapping[str, Any] | str,
        conditioning_key: str,
        scale_factor: float,
    ) -> None:
        unconditional = isinstance(cond_stage_config, str)
        if unconditional and cond_stage_config not in ("__is_unconditional__", "__is_first_stage__"):
            raise UserError(f"cond_stage_config={cond_stage_config}: give a target or __is_unconditional__")
        key = None if cond_stage_config == "__is_unconditional__" else conditioning_key
        self.model = DiffusionWrapper(unet_config, key)
        self.first_stage_model = instantiate_from_config(first_stage_config)
        if unconditional:
            first_stage = cond_stage_config == "__is_first_stage__"
            self.cond_stage_model = self.first_stage_model if first_stage else nn.Identity()
        else:
            self.cond_stage_model = instantiate_from_config(cond_stage_config)  # type: ignore[arg-type]
        self.register_schedule()
        if self.scale_by_std:
            self.register_buffer("scale_factor", torch.tensor(float(scale_factor)))
        else:
            self.scale_factor = scale_factor

    def _set_frozen_precision(self, precision: str, unet_trainable: bool) -> None:
        """Before the weights are loaded, so that they are converted one by one on their way in."""
        if precision not in ("fp32", "bf16"):
            raise UserError(f"frozen_precision={precision} is unknown; use fp32 or bf16")
        if precision == "fp32":
            return
        keep_in_bf16(self.first_stage_model)
        if not self.cond_stage_trainable and self.cond_stage_model is not self.first_stage_model:
            keep_in_bf16(self.cond_stage_model)
        if not unet_trainable:
            self.model.to(torch.bfloat16)  # the U-Net itself sees to its inputs and its output

    def register_schedule(self) -> None:
        """The schedule's tables as buffers, by the names they have in checkpoints."""
        device = self.betas.device if "betas" in self._buffers else None
        for name, table in self.schedule.tables(self.v_posterior).items():
            self.register_buffer(name, torch.tensor(table, dtype=torch.float32, device=device))

    def init_from_ckpt(self, path: str, ignore_keys: Iterable[str] = ()) -> None:
        """Load a whole base strictly.

        With `use_ema` the averaged weights come along where the file has them, else they start from the loaded ones.

        Args:
            path: the checkpoint.
            ignore_keys: keys that begin with one of these keep their fresh values.

        Raises:
            UserError: the file does not fit, or was made with another schedule.
        """
        self._prompts = PromptCache()
        self.model_ema = None
        state = load_base(self, self.schedule, path, ignore_keys)
        self.register_schedule()  # exact again, should the file hold it in half precision
        if self.use_ema:
            self.model_ema = load_average(self.model, self.ema_decay, state, path)

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Frozen parts stay in evaluation mode, whatever the trainer asks."""
        super().train(mode)
        self.first_stage_model.eval()
        if not self.cond_stage_trainable:
            self.cond_stage_model.eval()
        return self

    def set_checkpointing(self, on: bool) -> None:
        """Whether the U-Net's activations are computed again in the backward pass (`use_checkpoint`) or kept for it."""
        for part in self.model.modules():
            if hasattr(part, "use_checkpoint"):
                part.use_checkpoint = on  # type: ignore[assignment]

    def ema_scope(self) -> AbstractContextManager[None]:
        """Within, the network works with its averaged weights, if it keeps them."""
        return nullcontext() if self.model_ema is None else self.model_ema.applied(self.model)

    # first stage and prompts

    def encode_first_stage(self, image: Tensor) -> DiagonalGaussianDistribution | Tensor:
        """Image (B,3,H,W) in [-1, 1] to the first stage's posterior, or its code for a VQ first stage."""
        return self.first_stage_model.encode(image)

    def first_stage_mean(self, image: Tensor) -> Tensor:
        """The unscaled latent of an image's posterior mean, or its VQ code."""
        encoding = self.encode_first_stage(image)
        return encoding.mode() if isinstance(encoding, DiagonalGaussianDistribution) else encoding

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """Scaled latent (B,C,h,w) to image (B,3,H,W), about [-1, 1]."""
        return self.first_stage_model.decode(z / self.scale_factor)

    def get_learned_conditioning(self, condition: Any) -> Tensor:
        """Encode prompts to (B,L,width), or whatever else the conditioning model takes to what it makes of it.

        A frozen text encoder sees each different prompt once.
        """
        condition = [condition] if isinstance(condition, str) else condition
        if not (isinstance(condition, list | tuple) and all(isinstance(c, str) for c in condition)):
            return self._encode_condition(condition)
        if self.cond_stage_trainable:
            unique = sorted(set(condition))
            return self._encode_condition(unique)[[unique.index(p) for p in condition]]
        return self._prompts.get(condition, self._encode_condition, self.device)

    def _encode_condition(self, condition: Any) -> Tensor:
        with torch.set_grad_enabled(self.cond_stage_trainable and torch.is_grad_enabled()):
            return encode(self.cond_stage_model, condition, self.cond_stage_forward)

    def network(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """What the U-Net says of x (B,C,h,w) at t (B,) in 0..T-1: the noise, x0 or v, as `parameterization` is.

        `cond`: a tensor, a list, or latent-diffusion's dict.
        """
        if isinstance(cond, dict):
            return self.model(x, t, **cond)
        cond = cond if isinstance(cond, list) or cond is None else [cond]
        concat = self.model.conditioning_key == "concat"
        return self.model(x, t, **{"c_concat" if concat else "c_crossattn": cond})

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """Predicted noise, whatever the network predicts; arguments as for `network`."""
        out = self.network(x, t, cond)
        if self.parameterization == "eps":
            return out
        if self.parameterization == "v":
            signal, sigma = self.schedule.scales(t + 1, x)
            return signal * out + sigma * x
        return self.schedule.predict_eps(x, t + 1, out)

    def with_place(self, context: Any, mask: Tensor, known: Tensor) -> Any:
        """Return a hybrid base's condition, the prompt and the defect's place; for other bases `context` as it is.

        Args:
            context: the encoded prompt.
            mask: (B,1,h,w) in {0,1}, 1 on the defect, or what `detailed_mask` makes of its pixels.
            known: (B,C,h,w), the scaled latent of the normal picture. Where that is not known under the mask, it is
                zero there.
        """
        if self.model.conditioning_key != "hybrid":
            return context
        if mask.shape[1] != self.mask_detail**2:
            mask = mask.expand(-1, self.mask_detail**2, -1, -1)
        return {"c_crossattn": [context], "c_concat": [torch.cat([mask, known], dim=1)]}

    def detailed_mask(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        """Show masks (B,1,H,W) in {0,1} as a hybrid network sees them beside a latent of `size` (h,w): as (B,d*d,h,w).

        The channels are the d x d sub-cells of each cell, d = `mask_detail`. A sub-cell is defect if any of its pixels
        is.
        """
        d = self.mask_detail
        return F.pixel_unshuffle(F.adaptive_max_pool2d(pixels.float(), (size[0] * d, size[1] * d)), d)

    # training

    def latents(self, batch: Mapping[str, Any]) -> Tensor:
        """Scaled latents (B,C,h,w) of a batch, from its cached `latent` or by encoding its image."""
        if "latent" in batch:
            return self.scale_factor * batch["latent"]
        with torch.no_grad():
            return self.scale_factor * self.first_stage_mean(self._entry(batch, "first_stage_key"))

    def conditioning(self, batch: Mapping[str, Any]) -> Any:
        if self.model.conditioning_key is None:
            return None
        return self.get_learned_conditioning(self._entry(batch, "cond_stage_key"))

    def placed(self, batch: Mapping[str, Any], context: Any, x0: Tensor) -> Any:
        """Return `context` with the place of a training batch's defects, for a hybrid base; for others as it is.

        The place comes from the batch's `mask` and, if it has one, its `normal_latent`.
        """
        if self.model.conditioning_key != "hybrid" or isinstance(context, dict):
            return context
        pixels, size = self._entry(batch, "mask_key").to(x0), (x0.shape[-2], x0.shape[-1])
        mask, shown = F.adaptive_max_pool2d(pixels, size), self.detailed_mask(pixels, size)
        if "normal_latent" not in batch:
            return self.with_place(context, shown, (1 - mask) * x0)
        known = self.scale_factor * batch["normal_latent"]
        hidden = self._hidden(batch, known)
        return self.with_place(context, shown, (1 - hidden * mask) * known)

    def _hidden(self, batch: Mapping[str, Any], like: Tensor) -> Tensor:
        """1 for the samples (B,1,1,1) that do not see under the mask, a share of `hide_known`, by their seeds."""
        return (self._by_seed(batch, len(like), 3) < self.hide_known).to(like)[:, None, None, None]

    def _by_seed(self, batch: Mapping[str, Any], count: int, key: int) -> Tensor:
        """Uniform draws (B,) in 0..1, from the samples' seeds where the batch has them, for the purpose `key`."""
        if "seed" not in batch:
            return torch.rand(count, device=self.device)
        drawn = [float(torch.rand((), generator=generator(int(s), key))) for s in batch["seed"]]
        return torch.tensor(drawn, device=self.device)

    def _entry(self, batch: Mapping[str, Any], option: str) -> Any:
        key = getattr(self, option)
        if key not in batch:
            raise UserError(f"{option}={key} is not in the batch; it has {', '.join(sorted(batch))}")
        return batch[key]

    def draw(self, batch: Mapping[str, Any], x0: Tensor) -> tuple[Tensor, Tensor]:
        """Time t (B,) in 1..T and noise like x0, from each sample's own seed where the batch has seeds."""
        if "seed" not in batch:
            t = torch.randint(1, self.schedule.timesteps + 1, (len(x0),), device=x0.device)
            return t, torch.randn_like(x0)
        sources = [generator(int(s)) for s in batch["seed"]]
        t = torch.cat([torch.randint(1, self.schedule.timesteps + 1, (1,), generator=g) for g in sources])
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in sources])
        return t.to(x0.device), noise.to(x0)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The training objective of a batch and what to log of it."""
        x0 = self.latents(batch)
        t, noise = self.draw(batch, x0)
        cond = self.placed(batch, self.conditioning(batch), x0)
        out = self.network(self.schedule.q_sample(x0, t, noise), t - 1, cond)
        error = (F.mse_loss if self.loss_type == "l2" else F.l1_loss)(
            out.float(), self._target(x0, t, noise), reduction="none"
        )
        if self.min_snr_gamma is not None:
            error = error * self._min_snr(x0, t, self.min_snr_gamma)
        simple = self._weighted_mean(error, batch)
        return self.l_simple_weight * simple, {"loss_simple": simple}

    def _target(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the network is to predict at t in 1..T."""
        if self.parameterization == "v":
            signal, sigma = self.schedule.scales(t, x0)
            return signal * noise - sigma * x0
        return noise if self.parameterization == "eps" else x0

    def _min_snr(self, x0: Tensor, t: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) as a weight (B,1,1,1) on the x0 error, in the network's own parameterization."""
        signal, sigma = self.schedule.scales(t, x0)
        snr = torch.as_tensor(signal / sigma).square()
        capped = snr.clamp(max=gamma)
        return {"eps": capped / snr, "x0": capped, "v": capped / (snr + 1)}[self.parameterization]

    def _weighted_mean(self, error: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Mean of error (B,C,h,w), cells with a defect pixel counting `1 + mask_weight` times; or with `defect_share`
        see `shared_mean`."""
        if "mask" not in batch or not (self.mask_weight or self.defect_share is not None):
            return error.mean()
        defect = F.adaptive_max_pool2d(batch["mask"].to(error), (error.shape[-2], error.shape[-1]))
        if self.defect_share is not None:
            return shared_mean(error, defect, self.defect_share)
        weight = (1 + self.mask_weight * defect).expand_as(error)
        return (weight * error).sum() / weight.sum()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss, parts = self.loss(batch)
        self.log_dict({f"train/{k}": v.detach() for k, v in parts.items()}, batch_size=1)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=1)
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        loss, parts = self.loss(batch)
        self.log_dict({f"val/{k}": v for k, v in {"loss": loss, **parts}.items()}, batch_size=1, sync_dist=True)

    def on_train_start(self) -> None:
        """With `scale_by_std`, a run from scratch sets the factor that gives the training latents unit variance."""
        data = getattr(self.trainer, "datamodule", None)
        if self.scale_by_std and not self.from_ckpt and self.global_step == 0 and hasattr(data, "latent_std"):
            assert isinstance(self.scale_factor, Tensor)
            self.scale_factor.fill_(1.0 / data.latent_std())

    def on_train_batch_end(self, *args: Any) -> None:
        if self.model_ema is not None:
            self.model_ema(self.model)

    def trainable(self) -> list[nn.Parameter]:
        parts = [self.model, self.cond_stage_model] if self.cond_stage_trainable else [self.model]
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        # A fused step cannot be clipped under mixed precision, which the trainer refuses.
        fused = not (self._trainer and self._trainer.gradient_clip_val)
        optimizer = torch.optim.AdamW(self.trainable(), lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        return scheduled(optimizer, self.scheduler_config)

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        """Name and weights of what this training makes: a whole base, averaged weights in place if it has them."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(SURPLUS)}
        if self.model_ema is not None:
            state |= {f"model.{k}": v for k, v in self.model_ema.weights(self.model).items()}
        return "ldm", state

    # looking

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any], steps: int = 20) -> dict[str, Tensor]:
        """Pictures (B,3,H,W) for a sample grid: the batch through the first stage, and fresh samples."""
        x0 = self.latents(batch)
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator(0, i)) for i in range(len(x0))]).to(x0)
        denoise = bind(self, self.placed(batch, self.conditioning(batch), x0))
        with self.ema_scope():
            z = samplers.ddim(denoise, self.schedule, noise, steps=min(steps, self.schedule.timesteps))
        return {"reconstructions": self.decode_first_stage(x0), "samples": self.decode_first_stage(z)}

    def extra_repr(self) -> str:
        count = sum(math.prod(p.shape) for p in self.parameters())
        return f"{count / 1e6:.1f} M parameters"


def shared_mean(error: Tensor, mask: Tensor, share: float) -> Tensor:
    """Mean error in which the mask's cells have a fixed share of each sample's loss, however few they are.

    A pinhole then counts like a defect that fills the picture.

    Args:
        error: (B,C,h,w).
        mask: (B,1,h,w) in {0,1}.
        share: share (0..1) that the cells of the mask have between them. The other cells have the rest.
    """
    cells = error.mean(dim=1, keepdim=True)
    inside, outside = (
        (cells * own).sum(dim=(1, 2, 3)) / own.sum(dim=(1, 2, 3)).clamp(min=1) for own in (mask, 1 - mask)
    )
    return (share * inside + (1 - share) * outside).mean()
