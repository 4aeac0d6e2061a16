"""The U-Net as samplers call it in synthesis: with guidance, in tiles, with features that are used again."""

from typing import Any

import torch
from torch import Tensor

from fast.synthesis.options import Recipe
from fast.synthesis.prepared import PreparedModel
from fast.windows.tiling import tiled
from ldm.models.diffusion.ddim import bind
from ldm.modules.attention import Weighted
from ldm.modules.diffusionmodules.openaimodel import DeepFeatures


def tile_size(max_window: int, stride: int, factor: int = 1) -> dict[str, int]:
    """Tiles of `max_window` pixels, a multiple of `stride`, that overlap by a quarter; in pixels, or in cells of
    `factor` pixels: the arguments `tile` and `overlap` of `tiled`."""
    side = max(stride, max_window // stride * stride)
    overlap = -(-side // 4 // stride) * stride if side > stride else 0
    return {"tile": side // factor, "overlap": overlap // factor}


class WindowDenoiser:
    """The U-Net under a `context` (see `PreparedModel.context`), a `BoundDenoiser`.

    `columns` (B,L): the learned tokens; `mask` (B,1,h,w) and `known` (B,C,h,w): what a hybrid U-Net sees too; `scale`:
    of classifier-free guidance, 1 for none. Features that are used again (the recipe's `reuse`) are kept in it: one for
    each batch of windows.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        recipe: Recipe,
        context: Any,
        columns: Tensor,
        mask: Tensor,
        known: Tensor,
        scale: float,
    ):
        self.model, self.unet, self.reuse, self.scale = prepared.model, prepared.unet, recipe.reuse, scale
        self.mask, self.known = mask, known
        self.tile = tile_size(recipe.max_window, prepared.stride, prepared.factor)
        self.context = context if scale == 1 else prepared.guided(context)
        self.columns = columns if scale == 1 else torch.cat([torch.zeros_like(columns), columns])
        self._deep: dict[Any, DeepFeatures] = {}

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        *,
        weights: Tensor | None = None,
        form: str = "scores",
        mask: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        m = self.mask if mask is None else mask
        k = self.known if known is None else known
        return tiled(lambda part, place: self._evaluate(part, t, place, weights, form, m, k), x, **self.tile)

    def _evaluate(
        self, x: Tensor, t: Tensor, place: Any, weights: Tensor | None, form: str, mask: Tensor, known: Tensor
    ) -> Tensor:
        """The noise in one tile x (B,C,h,w), which is at `place`, its (rows, columns) of the window."""
        rows, cols = place
        own = known is self.known
        mask, known = mask[..., rows, cols], known[..., rows, cols]
        weights = None if weights is None else weights[..., rows, cols]
        if self.scale != 1:
            x, t, mask, known = (torch.cat([part, part]) for part in (x, t, mask, known))
            weights = None if weights is None else torch.cat([weights, weights])
        context = self.context if weights is None else Weighted(self.context, weights, self.columns, form)
        placed = self.model.with_place(context, mask, known)
        cond = placed if isinstance(placed, dict) else {"c_crossattn": [context]}
        if self.reuse > 1:  # what another surrounding gives is kept apart
            deep = self._deep.setdefault((str(place), own), DeepFeatures(self.reuse, self.unet.shallow))
            cond = {**cond, "deep": deep}
        eps = bind(self.model, cond)(x, t)
        if self.scale == 1:
            return eps
        without, with_words = eps.chunk(2)
        return without + self.scale * (with_words - without)
