"""Windows of normal images filled by a trained method on a latent base, on one device."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fast.aias import Guidance
from fast.data.tensors import latent_mask, to_image, to_tensor
from fast.latent.prompted import PromptedDiffusion, SamplingInputs
from fast.synthesis.counterfeit import counterfeit_strength, renewed
from fast.synthesis.denoiser import WindowDenoiser, tile_size
from fast.synthesis.detail import restored, varied
from fast.synthesis.options import Recipe
from fast.synthesis.prepared import PreparedModel
from fast.synthesis.recent import Recent
from fast.synthesis.recipe import check_recipe
from fast.windows.tiling import tiled
from ldm.errors import UserError
from ldm.rng import PairNoise

BACKGROUNDS = 64 << 20  # bytes of encoded normals that are kept, and as many of decoded ones


class GivenUp(Exception):
    """Work was given up because `Engine.stopping` was set."""


@dataclass(frozen=True)
class _Windows:
    """Windows to fill: scaled latents of the normals (B,C,h,w), masks in pixels (B,1,H,W), in cells (B,1,h,w) and as
    the networks see them, and each window's noise."""

    background: Tensor
    pixels: Tensor
    mask: Tensor
    detailed: Tensor
    noise: PairNoise


class Engine:
    """Fills windows with a trained model, which is its own from then on (`PreparedModel`).

    Raises `UserError` for a precision that this machine does not have and for a sampler that is not the method's.
    """

    def __init__(self, model: PromptedDiffusion, recipe: Recipe, device: str = "cpu"):
        self.recipe, self.device = recipe, torch.device(device)
        check_recipe(recipe, self.device)
        if recipe.sampler not in model.samplers:
            raise UserError(f"--sampler {recipe.sampler} is none of {model.name}'s; use {', '.join(model.samplers)}")
        self.stopping = False  # no lock: a signal handler may set it at any moment
        self.prepared = PreparedModel(model, recipe, self.device)
        self.model = self.prepared.model
        self.backgrounds, self.decoded = Recent[Tensor](BACKGROUNDS), Recent[np.ndarray](BACKGROUNDS)
        self.model.model.register_forward_pre_hook(self._give_up)

    @property
    def unet(self) -> Any:
        return self.prepared.unet

    @property
    def stride(self) -> int:
        """What the sides of windows are multiples of, in pixels."""
        return self.prepared.stride

    def _give_up(self, *_: Any) -> None:
        if self.stopping:
            raise GivenUp

    @torch.no_grad()
    def generate(
        self,
        normals: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        types: Sequence[int],
        seeds: Sequence[int],
        keys: Sequence[Hashable] | None = None,
        drafts: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """Fill windows with defects.

        Args:
            normals: (H,W,3) uint8, all of one size, with sides that are multiples of `stride`.
            masks: (H,W) in {0,1}, of the same size.
            types: numbers of the learned types, one for each window.
            seeds: fix the noise of each window.
            keys: names under which the encoded normals may be kept. None: they are not kept.
            drafts: (H,W,3) uint8, first versions to start from, noised to the recipe's `strength`. None: noise.

        Returns:
            Decoded windows (H,W,3) uint8 with a defect inside each mask. What lies outside is the decoder's too. With
            the recipe's `detail` both get back what the first stage loses (`restored`), and a window with a draft is
            that draft, changed as far as sampling changed it (`varied`).

        Raises:
            UserError: the network's answer is no number.
        """
        windows, recipe = self._windows(normals, masks, seeds, keys), self.recipe
        background, mask = windows.background, windows.mask
        first = None if drafts is None else self._encoded(drafts)
        if first is not None:  # around its mask a draft is as the pictures are that the networks learned from
            background = mask * background + (1 - mask) * first
        known = self._known(mask, background)
        prompts, context = self.prepared.context(types, windows.pixels)
        columns = self.prepared.columns[list(types)]
        denoise = WindowDenoiser(self.prepared, recipe, context, columns, windows.detailed, known, recipe.scale)
        inputs = SamplingInputs(
            mask=mask,
            background=background,
            prompts=prompts,
            known=known,
            noise=windows.noise,
            sampler=recipe.sampler,
            steps=recipe.steps,
            denoise=denoise,
            options={"use_farm": recipe.use_farm, "stop_at": recipe.stop_at, **recipe.own},
            dtype=self.prepared.dtype,
            draft=first,
            strength=recipe.strength,
        )
        made = self._images(self.model.fill(inputs))
        if first is None or drafts is None:
            return self._with_detail(made, normals, background, seeds, keys)
        if not recipe.detail:
            return made
        return [varied(*w) for w in zip(drafts, self._images(first), made, masks, strict=True)]

    @torch.no_grad()
    def counterfeit(
        self,
        normals: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        seeds: Sequence[int],
        keys: Sequence[Hashable] | None = None,
        strength: float | None = None,
    ) -> list[np.ndarray]:
        """Fill windows with normal content, as `generate` fills them with defects.

        AIAS starts from the normal itself as the draft, under the empty prompt, without guidance or FARM. Behind the
        U-Net stands what stands there for pairs (`corrected_denoiser`).

        Args:
            normals, masks, seeds, keys: as for `generate`.
            strength: the normal is noised to t = `strength` * T. None: `counterfeit_strength` of the recipe.
        """
        recipe, drafted = self.recipe, self.recipe.from_draft
        strength = counterfeit_strength(recipe) if strength is None else strength
        windows = self._windows(normals, masks, seeds, keys)
        background, count = windows.background, len(normals)
        context = self.prepared.empty_context(count)
        columns = torch.zeros_like(self.prepared.columns[[0] * count])
        plain = WindowDenoiser(self.prepared, recipe, context, columns, windows.detailed, background, scale=1)
        denoise = self.model.corrected_denoiser(plain, windows.mask, self.prepared.dtype)
        guidance = Guidance(self.model.schedule, windows.mask, background)
        made = self._images(renewed(denoise, guidance, windows.noise, recipe.steps, strength, drafted))
        if drafted and recipe.detail:
            decoded = self._decoded_normals(background, keys)
            return [varied(*w) for w in zip(normals, decoded, made, masks, strict=True)]
        return self._with_detail(made, normals, background, seeds, keys)

    def _windows(
        self,
        normals: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        seeds: Sequence[int],
        keys: Sequence[Hashable] | None,
    ) -> _Windows:
        background = self._background(normals, keys)
        pixels = torch.stack([torch.from_numpy(m)[None] for m in masks]).to(self.device)
        cells = (background.shape[-2], background.shape[-1])
        noise = PairNoise([torch.Generator().manual_seed(s) for s in seeds])
        detailed = self.model.detailed_mask(pixels, cells)
        return _Windows(background, pixels, latent_mask(pixels, cells), detailed, noise)

    def _known(self, mask: Tensor, background: Tensor) -> Tensor:
        """What the networks may see of the normal picture's latent."""
        return background if self.model.known == "full" else (1 - mask) * background

    def _images(self, z: Tensor) -> list[np.ndarray]:
        """Latents (B,C,h,w) decoded, (H,W,3) uint8 each. Raises `UserError` for what is no number."""
        stride, factor = self.prepared.stride, self.prepared.factor
        tile = tile_size(self.recipe.max_window, stride, factor)
        decoded = tiled(lambda part, _: self.prepared.decode(part), z, **tile, up=factor).cpu()
        if not torch.isfinite(decoded).all():
            raise UserError(f"the network's pictures are no numbers at --precision {self.recipe.precision}; try fp32")
        return [to_image(d) for d in decoded]

    def _encoded(self, images: Sequence[np.ndarray]) -> Tensor:
        """Scaled latents (B,C,h,w) of windows (H,W,3) uint8."""
        batch = torch.stack([to_tensor(image) for image in images]).to(self.device)
        tile = tile_size(self.recipe.max_window, self.prepared.stride)
        return tiled(lambda part, _: self.prepared.encode(part), batch, **tile, down=self.prepared.factor)

    def _with_detail(
        self,
        made: list[np.ndarray],
        normals: Sequence[np.ndarray],
        background: Tensor,
        seeds: Sequence[int],
        keys: Sequence[Hashable] | None,
    ) -> list[np.ndarray]:
        """The made windows with what the first stage lost of the normals, if the recipe says so."""
        if not self.recipe.detail:
            return made
        decoded = self._decoded_normals(background, keys)
        return [restored(n, d, m, s) for n, d, m, s in zip(normals, decoded, made, seeds, strict=True)]

    def _decoded_normals(self, background: Tensor, keys: Sequence[Hashable] | None) -> list[np.ndarray]:
        """The latents of normals (B,C,h,w) decoded, (H,W,3) uint8 each, from the last ones kept where all are there."""
        keys = keys or [None] * len(background)
        known = self.decoded.all_of(keys)
        if known is None:
            known = self._images(background)
            self.decoded.keep(keys, known)
        return known

    def _background(self, normals: Sequence[np.ndarray], keys: Sequence[Hashable] | None) -> Tensor:
        """Scaled latents (B,C,h,w) of the normals, from the last ones kept where all are among them."""
        keys = keys or [None] * len(normals)
        known = self.backgrounds.all_of(keys)
        if known is not None:
            return torch.stack(known)
        background = self._encoded(normals)
        self.backgrounds.keep(keys, [row.clone() for row in background])  # a row would keep its whole batch in memory
        return background
