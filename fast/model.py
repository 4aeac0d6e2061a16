"""FAST: latent diffusion, frozen, with FARM and learned prompts to train and AIAS to sample."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.aias import AIASOptions, Guidance
from fast.decoder import FitOptions, own
from fast.farm import FARM
from fast.lora import Adapters
from fast.masks import latent_mask
from fast.prompts import LearnedPrompts, by_word
from fast.sampling import sample_latents
from ldm.checkpoint import file_hash, load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.modules.encoders.modules import TextEncoder
from ldm.rng import PairNoise, generator
from ldm.util import check_params

DECODER = "first_stage_model.decoder."


class FAST(LatentDiffusion):
    """Takes a base's parameters and, beside them:

    `types`: the defect types "category/anomaly" to learn; `init_word`: the word their vectors start from;
    `prompt_tokens`: vectors per type; `farm`: FARM's options (`context_dim: null` hides the prompt from it);
    `farm_from`: a trained artifact on the same base, whose FARM and, by defect word, vectors this one starts from;
    `lambda1`, `lambda2`: weights of Eq. 18's two terms;
    `thaw_unet`: train the U-Net too; `lora`: or low-rank adapters on it, the options of `fast.lora.Adapters`;
    `fit_decoder`: fit the first stage's decoder to the pictures first, the options of `fast.decoder.FitOptions`;
    `open_types`: the artifact serves any defect word, trained or not; `aias`: sampling defaults
    (`fast.aias.AIASOptions`).
    Batches need `mask` (B,1,H,W) in {0,1} and `type` (B,), the number of the type, beside the latent or the image.
    """

    learns_types = True  # the training door fills `types` in from the data
    mapped_from: Path | None = None  # the file that the frozen weights lie in, as far as they are mapped from one

    def __init__(
        self,
        types: Sequence[str],
        init_word: str | None = None,
        prompt_tokens: int = 8,
        farm: Mapping[str, Any] | None = None,
        lambda1: float = 1.0,
        lambda2: float = 5.0,
        thaw_unet: bool = False,
        lora: Mapping[str, Any] | int | None = None,
        fit_decoder: Mapping[str, Any] | None = None,
        farm_from: str | None = None,
        open_types: bool = False,
        aias: Mapping[str, Any] | None = None,
        ckpt_path: str | None = None,
        lr: float = 1.5e-4,
        **base: Any,
    ):
        farm, aias = farm or {}, aias or {}
        check_params(FARM, farm, "model.params.farm", complete=False)
        check_params(AIASOptions, aias, "model.params.aias")
        lora = _lora_options(lora, thaw_unet)
        if fit_decoder is not None:
            check_params(FitOptions, fit_decoder, "model.params.fit_decoder")
        fixed = {"use_ema": False, "cond_stage_trainable": False, "unet_trainable": thaw_unet}
        super().__init__(ckpt_path=ckpt_path, lr=lr, **{**base, **fixed})
        encoder = self._text_encoder(prompt_tokens)
        self.base_path = ckpt_path
        self.lambda1, self.lambda2, self.thaw_unet = lambda1, lambda2, thaw_unet
        self.aias_options = AIASOptions(**aias)
        self.model.requires_grad_(thaw_unet)
        if not thaw_unet:
            self.model.eval()
        if farm.get("sees_known") and self.model.conditioning_key != "hybrid":
            raise UserError("farm.sees_known=true needs a base that sees the picture (conditioning_key: hybrid)")
        sees_prompt = farm.get("context_dim", encoder.width)
        self.farm = FARM(**{**farm, "channels": self.channels, "context_dim": sees_prompt})
        self.prompts = LearnedPrompts(types, encoder.width, prompt_tokens)
        self.lora = Adapters(self.model.diffusion_model, **lora) if lora else None
        self.fit_decoder = None if fit_decoder is None else FitOptions(**fit_decoder)
        self.decoder_fitted = False
        self.open_types = open_types
        self._base_hash: str | None = None
        known = self._start_from(Path(farm_from)) if farm_from else {}
        self.prompts.start_from(encoder, init_word, known)

    def _start_from(self, path: Path) -> dict[str, Tensor]:
        """Take over the FARM of an artifact. Returns its vectors (prompt_tokens,width) by defect word."""
        metadata, state = read_metadata(path), read_state_dict(path)
        if metadata.get("base_sha256") != self.base_hash:
            raise UserError(f"farm_from={path} was trained on another base than {self.base_path}; leave it out")
        farm = {k.removeprefix("farm."): v.clone() for k, v in state.items() if k.startswith("farm.")}
        load_strict(self.farm, farm, f"FARM of farm_from={path}")
        vectors = state["prompts.vectors"]
        if vectors.shape[1:] != self.prompts.vectors.shape[1:]:
            raise UserError(f"farm_from={path} has {vectors.shape[1]} vectors per type; set prompt_tokens to that")
        return by_word(json.loads(metadata["types"]), vectors.float())

    def _text_encoder(self, prompt_tokens: int) -> TextEncoder:
        encoder = self.cond_stage_model
        if not isinstance(encoder, TextEncoder):
            raise UserError("FAST needs a text encoder as cond_stage_config (BERTEmbedder or FrozenCLIPEmbedder)")
        room = encoder.max_length - 2
        if not 0 < prompt_tokens < room:
            raise UserError(f"prompt_tokens={prompt_tokens} does not fit beside words; choose from 1 to {room - 1}")
        return encoder

    def on_fit_start(self) -> None:
        """The order of weights that convolutions want, set once; it changes no name and no shape."""
        if not self.thaw_unet:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """The base's scale factor stands, whatever the spread of these few latents: synthesis uses that one."""

    def train(self, mode: bool = True) -> "FAST":
        """Frozen parts stay in evaluation mode, whatever the trainer asks."""
        super().train(mode)
        self.first_stage_model.eval()
        self.cond_stage_model.eval()
        if not self.thaw_unet:
            self.model.eval()
        return self

    @property
    def base_hash(self) -> str:
        """SHA-256 of the base checkpoint's file; empty for a base that came from nowhere."""
        if self._base_hash is None:
            self._base_hash = file_hash(self.base_path) if self.base_path else ""
        return self._base_hash

    def conditioning(self, batch: Mapping[str, Any]) -> Tensor:
        with self._as_kept(self.cond_stage_model):
            return self.prompts(self.cond_stage_model, batch["type"])

    def network(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        with self._as_kept(self.model):
            return super().network(x, t, cond)

    def _as_kept(self, part: nn.Module) -> AbstractContextManager[None]:
        """Without autocast for a network kept in bfloat16: on a GPU it would compute and keep the norms in float32."""
        weight = next(part.parameters(), None)
        kept = weight is not None and weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, enabled=False) if kept else nullcontext()

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 18: the network must still see the noise when FARM's defect stands in for the real one."""
        x0 = self.latents(batch)
        m = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        t, eps = self.draw(batch, x0)
        x_t = self.schedule.q_sample(x0, t, eps)
        cond = self.conditioning(batch)
        placed = self.placed(batch, cond, x0)
        anomaly = self.farm(x_t, m, t - 1, cond, _known(placed)).float()
        seen = (1 - m) * x_t + m * self.schedule.q_sample(anomaly, t, eps)  # Eq. 11-12, the same eps
        predicted = self.apply_model(seen, t - 1, placed).float()
        loss_eps = F.mse_loss(predicted, eps)
        loss_farm = F.mse_loss(anomaly, m * x0)
        return self.lambda1 * loss_eps + self.lambda2 * loss_farm, {"loss_eps": loss_eps, "loss_farm": loss_farm}

    def trainable(self) -> list[nn.Parameter]:
        extra = list(self.model.parameters()) if self.thaw_unet else []
        extra += self.lora.parameters() if self.lora is not None else []
        return [*self.farm.parameters(), *self.prompts.parameters(), *extra]

    def own_state(self) -> dict[str, Tensor]:
        """Everything that this training changes, by name."""
        parts = ["farm.", "prompts.", "lora."]
        parts += ["model."] if self.thaw_unet else []
        parts += [DECODER] if self.fit_decoder is not None else []
        return {k: v for k, v in self.state_dict().items() if k.startswith(tuple(parts))}

    def serve(self, types: Sequence[str]) -> None:
        """Know these types, "category/defect", in the place of the learned ones; see `LearnedPrompts.serving`."""
        self.prompts = self.prompts.serving(self._text_encoder(self.prompts.tokens), types)

    def merge_adapters(self) -> None:
        """Put the adapters, if there are any, into the U-Net's weights: nothing is left of them but what they do."""
        if self.lora is not None:
            self.lora.merge(self.model.diffusion_model)
            self.lora = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.own_state()  # the frozen base stays in its own file

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.decoder_fitted = any(k.startswith(DECODER) for k in checkpoint["state_dict"])
        if self.decoder_fitted:
            own(self.first_stage_model.decoder)
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        return "fast", self.own_state()

    def artifact_metadata(self) -> dict[str, str]:
        open_types = {"open_types": "true"} if self.open_types else {}
        return {
            "types": json.dumps(self.prompts.types),
            "base": str(self.base_path or ""),
            "base_sha256": self.base_hash,
            **open_types,
        }

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any], steps: int | None = None) -> dict[str, Tensor]:
        """Pictures for a sample grid: the real defects, and AIAS's in the same masks."""
        x0 = self.latents(batch)
        m = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        cond = self.conditioning(batch)
        placed = self.placed(batch, cond, x0)
        guidance = Guidance(self.schedule, m, x0, lambda x, t: self.farm(x, m, t, cond, _known(placed)).float())
        noise = PairNoise([generator(0, i) for i in range(len(x0))])
        options = self.aias_options if steps is None else replace(self.aias_options, steps=steps)
        denoise = bind(self, placed)
        z = sample_latents(denoise, guidance, x0, noise=noise, options=options)
        real = self.decode_first_stage(x0)
        pixels = F.interpolate(batch["mask"].to(real), real.shape[-2:], mode="nearest")
        made = pixels * self.decode_first_stage(z) + (1 - pixels) * real
        return {"real": real, "mask": (pixels * 2 - 1).expand_as(real), "synthetic": made}


def _known(placed: Any) -> Tensor | None:
    """What a hybrid base is shown of the picture (B,C,h,w), out of `LatentDiffusion.placed`; None for other bases."""
    return placed["c_concat"][0][:, 1:] if isinstance(placed, dict) else None


def _lora_options(given: Mapping[str, Any] | int | None, thaw_unet: bool) -> Mapping[str, Any]:
    """The options of `Adapters`; empty for none (0, nothing, or a rank of 0)."""
    if isinstance(given, bool) or not (given is None or isinstance(given, int | Mapping)):
        raise UserError(f"model.params.lora={given} is no rank and no options; write lora: {{rank: 8}}, or 0 for none")
    if isinstance(given, int):
        given = {"rank": given}
    if not given or given.get("rank") == 0:
        return {}
    check_params(Adapters, given, "model.params.lora", complete=False)
    if thaw_unet:
        raise UserError("thaw_unet=true trains the U-Net itself; leave lora out, or thaw_unet")
    return given
