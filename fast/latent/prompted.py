"""A frozen latent-diffusion base with learned prompts: what FAST, STAGE and AnomalyDiffusion have in common."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.data.tensors import latent_mask
from fast.latent.decoder import FitOptions, own
from fast.latent.lora import Adapters
from fast.latent.prompts import LearnedPrompts, check_words
from fast.latent.sampling import check_scale
from fast.runtime.validated import validated
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.models.diffusion.ddim import bind
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.models.diffusion.samplers import Denoise, Noise
from ldm.modules.encoders.modules import TextEncoder
from ldm.rng import PairNoise, generator
from ldm.util import check_params

DECODER = "first_stage_model.decoder"
# A network that runs beside the U-Net, and a call of it on example tensors x (1,C,h,w) and prompt (1,L,width).
Beside = tuple[nn.Module, Callable[[nn.Module, Tensor, Tensor], object]]


class BoundDenoiser(Protocol):
    """The U-Net with prompts bound: x (B,C,h,w) at t (B,) in 0..T-1 to the noise in it, float32.

    `weights` (B,1,h,w): how strongly each cell attends to the learned vectors, by what `form` multiplies (see
    `ldm.modules.attention.Weighted`); None: as it is. `mask`, `known`: what
    a base that is told of its surroundings sees in the place of the window's own.
    """

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        *,
        weights: Tensor | None = None,
        form: str = "scores",
        mask: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class SamplingInputs:
    """The windows that `PromptedDiffusion.fill` has to fill, and what is known of them.

    Args:
        mask: (B,1,h,w) in {0,1}, 1 where the defect goes.
        background: (B,C,h,w), scaled latents of the normal pictures.
        prompts: (B,L,width), encoded.
        known: (B,C,h,w), what networks may see of the background.
        noise: `noise(x)` returns standard normal noise like x, in float32.
        sampler: one of the method's `samplers`.
        steps: network evaluations of the sampler.
        denoise: the U-Net with the prompts bound.
        options: the method's own options of a run, by name.
        dtype: precision of the networks beside the U-Net, such as FARM.
        draft: (B,C,h,w), scaled latents to start from. None: pure noise.
        strength: the draft is noised to t = `strength` * T.
    """

    mask: Tensor
    background: Tensor
    prompts: Tensor
    known: Tensor
    noise: Noise
    sampler: str
    steps: int
    denoise: BoundDenoiser
    options: Mapping[str, Any]
    dtype: torch.dtype = torch.float32
    draft: Tensor | None = None
    strength: float = 1.0


class PromptedDiffusion(LatentDiffusion):
    """A frozen latent-diffusion base with learned prompts: the base class of FAST, STAGE and AnomalyDiffusion.

    Batches need `mask` (B,1,H,W) in {0,1} and `type` (B,), the number of the type, beside the latent or the image.

    Args:
        types: the defect types to learn, each "category/anomaly".
        init_word: the word whose embedding the vectors of all types start from. None: those of a type start from its
            words.
        prompt_tokens: learned vectors per type.
        thaw_unet: True trains the U-Net too.
        lora: low-rank adapters to train on the U-Net: their rank, or options of `fast.latent.lora.Adapters`. None or 0:
            no adapters. Not together with `thaw_unet`.
        fit_decoder: options of `fast.latent.decoder.FitOptions`, to fit the first stage's decoder to the pictures
            first. None: it stays as the base has it.
        open_types: True marks the artifact as one that serves any defect word, trained or not.
        known: what a base that is told of its surroundings (`conditioning_key: hybrid`) sees of the normal picture at
            synthesis. "full": all of it. "around": nothing of what lies under the mask.
        drop_prompt: share (0 to below 1) of the training samples that get the empty prompt, so that classifier-free
            guidance against it works.
        scale: strength of that guidance where synthesis names none, from 0. 1 is no guidance, see
            `fast.synthesis.options.Recipe`.
        ckpt_path: file of the base's checkpoint. None: the base has fresh weights.
        lr: learning rate.
        base: further parameters of `LatentDiffusion`. `use_ema` and `cond_stage_trainable` are always False and
            `unet_trainable` is `thaw_unet`, whatever is given.

    Raises:
        UserError: an option is unknown or out of range, or the base has no text encoder.
    """

    needs_base = True  # the training command asks for one
    learns_types = True  # and fills `types` in from the data
    name: ClassVar[str]  # of the artifact
    samplers: ClassVar[tuple[str, ...]]  # the first is the default
    switches: ClassVar[tuple[str, ...]] = ()  # of its own that synthesis may change, in `SamplingInputs.options`
    default_steps: ClassVar[int] = 10
    teachable: ClassVar[bool] = True  # other types than those to learn may be trained on, see `teach`
    sees_masks: ClassVar[bool] = False  # prompts depend on the mask: see `window_prompts`
    mapped_from: Path | None = None  # the file that the frozen weights lie in, as far as they are mapped from one

    def __init__(
        self,
        types: Sequence[str],
        init_word: str | None = None,
        prompt_tokens: int = 8,
        thaw_unet: bool = False,
        lora: Mapping[str, Any] | int | None = None,
        fit_decoder: Mapping[str, Any] | None = None,
        open_types: bool = False,
        known: str = "full",
        drop_prompt: float = 0.125,
        scale: float = 1.0,
        ckpt_path: str | None = None,
        lr: float = 1.5e-4,
        **base: Any,
    ):
        fit = None if fit_decoder is None else validated(FitOptions, fit_decoder, "model.params.fit_decoder")
        lora = _lora_options(lora, thaw_unet)
        if known not in ("full", "around"):
            raise UserError(f"model.params.known={known} is unknown; use full or around")
        if not 0 <= drop_prompt < 1:
            raise UserError(f"model.params.drop_prompt={drop_prompt} must be a share from 0 to below 1")
        check_scale(scale, "model.params.scale")
        fixed = {"use_ema": False, "cond_stage_trainable": False, "unet_trainable": thaw_unet}
        super().__init__(ckpt_path=ckpt_path, lr=lr, **{**base, **fixed})
        encoder = self._text_encoder(prompt_tokens)
        self.base_path = ckpt_path
        self.init_word, self.thaw_unet, self.known = init_word, thaw_unet, known
        self.drop_prompt, self.scale = drop_prompt, scale
        self.model.requires_grad_(thaw_unet)
        if not thaw_unet:
            self.model.eval()
        self.prompts = LearnedPrompts(types, encoder.width, prompt_tokens)
        self.made_prompts: LearnedPrompts | None = None
        self.known_vectors: dict[str, Tensor] = {}  # by defect word, of the artifact that this training starts from
        self.lora = Adapters(self.model.diffusion_model, **lora) if lora else None
        self.fit_decoder = fit
        self.decoder_fitted = False
        self.open_types = open_types
        self._base_hash: str | None = None
        self.prompts.start_from(encoder, init_word)

    def _text_encoder(self, prompt_tokens: int) -> TextEncoder:
        encoder = self.cond_stage_model
        if not isinstance(encoder, TextEncoder):
            raise UserError(
                f"{type(self).__name__} needs a text encoder as cond_stage_config (BERTEmbedder or FrozenCLIPEmbedder)"
            )
        room = encoder.max_length - 2
        if not 0 < prompt_tokens < room:
            raise UserError(f"prompt_tokens={prompt_tokens} does not fit beside words; choose from 1 to {room - 1}")
        return encoder

    # training

    def on_fit_start(self) -> None:
        """The order of weights that convolutions want, set once; it changes no name and no shape."""
        if not self.thaw_unet:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def on_train_start(self) -> None:
        """The base's scale factor stands, whatever the spread of these few latents: synthesis uses that one."""

    def train(self, mode: bool = True) -> "PromptedDiffusion":
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

    def teach(self, types: Sequence[str]) -> None:
        """Train on samples of these types too, which have nothing to learn of their own.

        In batches their numbers follow those of the learned types. Their vectors stay those that synthesis starts from
        for a word that it does not know, and are not in the artifact.

        Args:
            types: each "category/word".

        Raises:
            UserError: the method learns its own types alone, or the encoder cannot read a word.
        """
        if not self.teachable:
            raise UserError(f"{self.name} learns its types alone; set data.params.normal_share and drawn_share to 0")
        encoder = self._text_encoder(self.prompts.tokens)
        for key in types:
            check_words(encoder, f"/{key.split('/', 1)[1]}")
        self.made_prompts = self.prompts.beside(encoder, types, self.known_vectors)

    def conditioning(self, batch: Mapping[str, Any]) -> Tensor:
        """Prompts (B,L,width) of the batch's types; in training some are dropped, see `drop_prompt`."""
        with self._as_kept(self.cond_stage_model):
            return self._some_dropped(batch, self._encoded(batch["type"]))

    def _encoded(self, types: Tensor) -> Tensor:
        """Prompts (B,L,width) by the numbers of types (B,), those of `teach` among them."""
        encoder, count = self.cond_stage_model, len(self.prompts.types)
        made = types >= count
        if self.made_prompts is None or not made.any():
            return self.prompts(encoder, types)
        # Every parameter has a part in every loss, which training in several processes asks for.
        rows = self.made_prompts(encoder, types[made] - count) + 0 * self.prompts.vectors.sum()
        whole = rows.new_zeros(len(types), *rows.shape[1:])
        whole[made] = rows
        if not made.all():
            whole[~made] = self.prompts(encoder, types[~made])
        return whole

    def _some_dropped(self, batch: Mapping[str, Any], prompts: Tensor) -> Tensor:
        """In training prompts (B,L,width) of which a share of `drop_prompt` is the empty one, by the samples' seeds."""
        if not (self.training and self.drop_prompt):
            return prompts
        dropped = self._by_seed(batch, len(prompts), 11) < self.drop_prompt
        return torch.where(dropped[:, None, None], self.empty_prompt(1).to(prompts), prompts)

    def empty_prompt(self, count: int) -> Tensor:
        """The encoding (count,L,width) of no words at all."""
        return self.get_learned_conditioning([""] * count)

    def network(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        with self._as_kept(self.model):
            return super().network(x, t, cond)

    def _as_kept(self, part: nn.Module) -> AbstractContextManager[None]:
        """Without autocast for a network kept in bfloat16: on a GPU it would compute and keep the norms in float32."""
        weight = next(part.parameters(), None)
        kept = weight is not None and weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, enabled=False) if kept else nullcontext()

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The training objective of a batch and what to log of it."""

    # what is learned

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Everything that this training changes, by its attribute's name."""
        parts: dict[str, nn.Module] = {"prompts": self.prompts}
        if self.thaw_unet:
            parts["model"] = self.model
        if self.lora is not None:
            parts["lora"] = self.lora
        if self.fit_decoder is not None:
            parts[DECODER] = self.first_stage_model.decoder
        return parts

    def adapter_state(self) -> dict[str, Tensor]:
        """The tensors of `trainable_modules` by their names in the whole model."""
        return {
            f"{name}.{k}": v for name, part in self.trainable_modules().items() for k, v in part.state_dict().items()
        }

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that training changes. The decoder has a fit of its own."""
        parts = [part for name, part in self.trainable_modules().items() if name != DECODER]
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = self.adapter_state()  # the frozen base stays in its own file
        if self.made_prompts is not None:
            checkpoint["state_dict"]["made_prompts.vectors"] = self.made_prompts.vectors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.decoder_fitted = any(k.startswith(f"{DECODER}.") for k in checkpoint["state_dict"])
        if self.decoder_fitted:
            own(self.first_stage_model.decoder)
        checkpoint["state_dict"] = {**self.state_dict(), **checkpoint["state_dict"]}

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        return self.name, self.adapter_state()

    def artifact_metadata(self) -> dict[str, str]:
        open_types = {"open_types": "true"} if self.open_types else {}
        return {
            "types": json.dumps(self.prompts.types),
            "base": str(self.base_path or ""),
            "base_sha256": self.base_hash,
            "drop_prompt": str(self.drop_prompt),
            **open_types,
        }

    # synthesis

    @classmethod
    def evaluations(cls, params: Mapping[str, Any]) -> int:
        """Network evaluations where the user names no number and the sampler takes any, by `model.params`."""
        return cls.default_steps

    def set_classes(self, types: Sequence[str]) -> None:
        """Know these types, "category/defect", in the place of the learned ones; see `LearnedPrompts.serving`."""
        self.prompts = self.prompts.serving(self._text_encoder(self.prompts.tokens), types)

    def reads(self, key: str) -> bool:
        """Whether the text encoder can spell the words of a type "category/defect"."""
        try:
            check_words(self._text_encoder(self.prompts.tokens), key)
        except UserError:
            return False
        return True

    def merge_adapters(self) -> None:
        """Put the adapters, if there are any, into the U-Net's weights: nothing is left of them but what they do."""
        if self.lora is not None:
            self.lora.merge(self.model.diffusion_model)
            self.lora = None

    def auxiliary_modules(self) -> list[Beside]:
        """Networks that run beside the U-Net."""
        return []

    def window_prompts(self, types: Tensor, pixels: Tensor) -> Tensor:
        """Prompts (B,L,width) for windows with the masks `pixels` (B,1,H,W), where `sees_masks`."""
        raise NotImplementedError

    def placeholder(self, types: Tensor) -> Tensor:
        """Which tokens of the types' prompts are learned: (B,L) bool."""
        return self.prompts.positions(self._text_encoder(self.prompts.tokens), types)

    def corrected_denoiser(self, denoise: Denoise, mask: Tensor, dtype: torch.dtype = torch.float32) -> Denoise:
        """Return `denoise` with the method's correction by the mask behind it; here, where there is none, as it is.

        Methods override this where the correction serves whatever the mask is filled with, counterfeits too.

        Args:
            denoise: the U-Net with its prompts bound.
            mask: (B,1,h,w).
            dtype: precision of the network that corrects.
        """
        return denoise

    @abstractmethod
    def fill(self, place: SamplingInputs) -> Tensor:
        """Scaled latents (B,C,h,w) with a defect in the mask of each window."""

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any], steps: int = 10) -> dict[str, Tensor]:
        """Pictures for a sample grid: the real defects, and synthetic ones in the same masks, without re-weighting."""
        x0 = self.latents(batch)
        mask = latent_mask(batch["mask"], x0.shape[-2:]).to(x0)
        shown = self.detailed_mask(batch["mask"].to(x0), (x0.shape[-2], x0.shape[-1]))
        cond = self.prompts(self.cond_stage_model, batch["type"])
        known = (1 - mask) * x0  # all of it would show a real defect to a network that is to draw one
        empty = None if self.scale == 1 else self.empty_prompt(len(x0)).to(cond)

        def denoise(
            x: Tensor,
            t: Tensor,
            *,
            weights: Tensor | None = None,
            form: str = "scores",
            mask: Tensor | None = shown,
            known: Tensor | None = known,
        ) -> Tensor:
            assert mask is not None
            assert known is not None
            without = None if empty is None else self.with_place(empty, mask, known)
            return bind(self, self.with_place(cond, mask, known), self.scale, without)(x, t)

        noise = PairNoise([generator(0, i) for i in range(len(x0))])
        sampler = "aias" if "aias" in self.samplers else self.samplers[0]
        z = self.fill(SamplingInputs(mask, x0, cond, known, noise, sampler, steps, denoise, {}))
        real = self.decode_first_stage(x0)
        pixels = F.interpolate(batch["mask"].to(real), real.shape[-2:], mode="nearest")
        made = pixels * self.decode_first_stage(z) + (1 - pixels) * real
        return {"real": real, "mask": (pixels * 2 - 1).expand_as(real), "synthetic": made}


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
