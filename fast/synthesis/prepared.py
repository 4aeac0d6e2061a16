"""A trained method on a latent base made ready for a device: prompts encoded, weights in their precision and order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fast.latent.prompted import PromptedDiffusion
from fast.synthesis.options import Recipe
from ldm.checkpoint import MappedFile
from ldm.modules.attention import Projected
from ldm.modules.packed import can_pack, pack


class PreparedModel:
    """Takes a trained model over: its weights change their precision and order; its text encoder is freed, unless the
    prompts depend on the masks. Of the `recipe` only what decides the weights' form is used.

    `factor`: pixels of a latent cell's side; `stride`: of windows' sides, in pixels; `columns` (types,L) bool: which
    tokens of each type's prompt are learned.
    """

    def __init__(self, model: PromptedDiffusion, recipe: Recipe, device: torch.device):
        self.device = device
        self.dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
        model.merge_adapters()
        self.model = model.eval().requires_grad_(False)
        self._pages = MappedFile(model.mapped_from)
        self.prompts = self._encode_prompts()
        self._move()
        self.factor = 64 // self.encode(torch.zeros(1, 3, 64, 64, device=self.device)).shape[-1]
        self.stride = self.factor * getattr(self.unet, "stride", 1)
        with torch.no_grad():
            self.keys = [self._project(p) for p in self.prompts]
            self.empty_key = self._project(self.empty)
        if recipe.compiled:
            self.unet.compile(dynamic=False)
        elif self.device.type == "cpu" and can_pack(self.dtype):
            self._pack(recipe)
        for part in self._parts():  # what is not packed
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def unet(self) -> Any:
        return self.model.model.diffusion_model

    @torch.no_grad()
    def _encode_prompts(self) -> list[Tensor]:
        """Every type's prompt (1,L,width), once for the whole set and each by itself: no type's bytes depend on the
        others. Then the text encoder, a third of a large base, has done its work, unless prompts depend on masks."""
        model = self.model
        model.cond_stage_model.to(self.device)
        model.prompts.to(self.device)
        index = torch.arange(len(model.prompts.types))
        self.columns = model.placeholder(index)
        self.empty = model.empty_prompt(1).to(self.device, self.dtype)
        if model.sees_masks:
            for part in model.trainable_modules().values():
                part.to(self.device)
            return []
        prompts = [model.prompts(model.cond_stage_model, i[None]).to(self.dtype) for i in index]
        for weight in model.cond_stage_model.parameters():
            self._pages.release(weight)
        model.cond_stage_model = torch.nn.Identity()
        return prompts

    def _parts(self) -> list[torch.nn.Module]:
        return [self.unet, self.model.first_stage_model, *(part for part, _ in self.model.auxiliary_modules())]

    def _move(self) -> None:
        for part in self._parts():
            part.to(self.device, self.dtype)
        if isinstance(self.model.scale_factor, Tensor):
            self.model.scale_factor = self.model.scale_factor.to(self.device)

    def _project(self, prompt: Tensor) -> Projected | None:
        if self.model.model.conditioning_key not in ("crossattn", "hybrid") or not hasattr(self.unet, "project"):
            return None
        return self.unet.project(prompt)

    def _pack(self, recipe: Recipe) -> None:
        """Reorder weights for the CPU's kernels, at the shapes of the commonest window."""
        fixed = recipe.size if recipe.region == "full" else None
        side, meta, keep = fixed or recipe.min_window, torch.device("meta"), fixed is None
        cells = -(-side // self.stride) * self.stride // self.factor
        first_stage, channels = self.model.first_stage_model, self.model.channels
        x = torch.empty(1, channels, cells, cells, device=meta)
        t = torch.zeros(1, dtype=torch.long, device=meta)
        image = torch.empty(1, 3, cells * self.factor, cells * self.factor, device=meta, dtype=self.dtype)
        shape = (1, self.columns.shape[1], self.model.prompts.vectors.shape[2])
        prompt = torch.empty(shape, device=meta, dtype=self.dtype)
        keys = self.keys[0] if self.keys else None
        context: Any = prompt if keys is None else keys.to(meta)
        release, int8 = self._pages.release, recipe.precision == "int8"
        wide = channels
        if self.model.model.conditioning_key == "hybrid":  # the place too
            wide += self.model.mask_detail**2 + channels
        seen = torch.empty(1, wide, cells, cells, device=meta)
        pack(self.unet, lambda unet: unet(seen, t, context=context), int8, release, keep)
        for part, example in self.model.auxiliary_modules():
            pack(part, lambda part, run=example: run(part, x.to(self.dtype), prompt), keep=keep)  # type: ignore[misc]
        if hasattr(first_stage, "encoder"):
            pack(first_stage.encoder, lambda encoder: encoder(image), release=release, keep=keep)
            pack(first_stage.decoder, lambda decoder: decoder(x.to(self.dtype)), release=release, keep=keep)

    # the networks, on (B,...) float32 in and out

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) of images (B,3,H,W) in [-1, 1]."""
        return self.model.scale_factor * self.model.first_stage_mean(self._in(images)).float()

    def decode(self, z: Tensor) -> Tensor:
        """Images (B,3,H,W) of scaled latents (B,C,h,w)."""
        return self.model.first_stage_model.decode(self._in(z / self.model.scale_factor)).float()

    def _in(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    # what the U-Net is conditioned on

    def context(self, types: Sequence[int], pixels: Tensor) -> tuple[Tensor, Any]:
        """(prompts (B,L,width) for windows with the masks `pixels`, the same as the U-Net takes them)."""
        if self.model.sees_masks:
            prompts = self.model.window_prompts(torch.tensor(types, device=self.device), pixels).to(self.dtype)
            keys = self._project(prompts)
            return prompts, prompts if keys is None else keys
        prompts = torch.cat([self.prompts[t] for t in types])
        rows = [self.keys[t] for t in types]
        if None in rows:
            return prompts, prompts
        return prompts, Projected.cat(rows)  # type: ignore[arg-type]

    def empty_context(self, count: int) -> Any:
        """The empty prompt, so many times, as the U-Net takes it."""
        if self.empty_key is None:
            return self.empty.expand(count, -1, -1)
        return Projected.cat([self.empty_key] * count)

    def guided(self, context: Any) -> Any:
        """The contexts of a doubled batch: the empty prompt for the first half, `context` for the second."""
        if isinstance(context, Projected):
            assert self.empty_key is not None
            count = len(context.layers[0][0])
            return Projected.cat([*[self.empty_key] * count, context])
        return torch.cat([self.empty.expand(len(context), -1, -1), context])
