"""A trained method on a latent base made ready to fill masks on one device: all that many calls share, done once."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fast.aias import Guidance
from fast.data.tensors import latent_mask, to_image, to_tensor
from fast.latent.prompted import BoundDenoiser, PromptedDiffusion, SamplingInputs
from fast.latent.sampling import check_scale
from fast.synthesis.counterfeit import counterfeit_strength, renewed
from fast.synthesis.detail import restored, varied
from fast.synthesis.options import Recipe
from fast.windows.tiling import tiled
from ldm.checkpoint import MappedFile
from ldm.errors import UserError
from ldm.models.diffusion.ddim import bind
from ldm.modules.attention import Projected, Weighted
from ldm.modules.diffusionmodules.openaimodel import DeepFeatures
from ldm.modules.packed import can_pack, has_int8, pack
from ldm.rng import PairNoise

PRECISIONS = ("fp32", "bf16", "int8")
BACKGROUNDS = 64 << 20  # bytes of encoded normals that are kept, and as many of decoded ones


class GivenUp(Exception):
    """Work was given up because somebody called `Engine.stop`."""


class Engine:
    """Takes a trained model over: its weights change their precision and order; its text encoder is let go, unless the
    prompts depend on the masks.

    Raises `UserError` for a precision that this machine does not have and for a sampler that is not the method's.
    """

    def __init__(self, model: PromptedDiffusion, recipe: Recipe, device: str = "cpu"):
        self.recipe, self.device = recipe, torch.device(device)
        check_recipe(recipe, self.device)
        if recipe.sampler not in model.samplers:
            raise UserError(f"--sampler {recipe.sampler} is none of {model.name}'s; use {', '.join(model.samplers)}")
        self.stopping = False  # no lock: a signal handler may set it at any moment
        self.dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
        model.merge_adapters()
        self.model = model.eval().requires_grad_(False)
        self._pages = MappedFile(model.mapped_from)
        self._prompts = self._encode_prompts()
        self._place()
        self.factor = 64 // self._encode(torch.zeros(1, 3, 64, 64, device=self.device)).shape[-1]
        self.stride = self.factor * getattr(self.unet, "stride", 1)
        with torch.no_grad():
            self._keys = [self._project(p) for p in self._prompts]
            self._empty_key = self._project(self._empty)
        self._backgrounds: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._decoded: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = Lock()
        model.model.register_forward_pre_hook(self._give_up)
        if recipe.compiled:
            model.model.diffusion_model.compile(dynamic=False)
        elif self.device.type == "cpu" and can_pack(self.dtype):
            self._pack()
        for part in self._parts():  # what is not packed
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def unet(self) -> Any:
        return self.model.model.diffusion_model

    def _give_up(self, *_: Any) -> None:
        if self.stopping:
            raise GivenUp

    @torch.no_grad()
    def _encode_prompts(self) -> list[Tensor]:
        """Every type's prompt (1,L,width), once for the whole set and each by itself: no type's bytes depend on the
        others. Then the text encoder, a third of a large base, has done its work, unless prompts depend on masks."""
        model = self.model
        model.cond_stage_model.to(self.device)
        model.prompts.to(self.device)
        index = torch.arange(len(model.prompts.types), device=self.device)
        self._columns = model.placeholder(index)
        self._empty = model.empty_prompt(1).to(self.dtype)
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

    def _place(self) -> None:
        for part in self._parts():
            part.to(self.device, self.dtype)
        if isinstance(self.model.scale_factor, Tensor):
            self.model.scale_factor = self.model.scale_factor.to(self.device)

    def _project(self, prompt: Tensor) -> Projected | None:
        if self.model.model.conditioning_key not in ("crossattn", "hybrid") or not hasattr(self.unet, "project"):
            return None
        return self.unet.project(prompt)

    def _pack(self) -> None:
        """Reorder weights for the CPU's kernels, at the shapes of the commonest window."""
        fixed = self.recipe.size if self.recipe.region == "full" else None
        side, meta, keep = fixed or self.recipe.min_window, torch.device("meta"), fixed is None
        cells = -(-side // self.stride) * self.stride // self.factor
        first_stage, channels = self.model.first_stage_model, self.model.channels
        x = torch.empty(1, channels, cells, cells, device=meta)
        t = torch.zeros(1, dtype=torch.long, device=meta)
        image = torch.empty(1, 3, cells * self.factor, cells * self.factor, device=meta, dtype=self.dtype)
        shape = (1, self._columns.shape[1], self.model.prompts.vectors.shape[2])
        prompt = torch.empty(shape, device=meta, dtype=self.dtype)
        keys = self._keys[0] if self._keys else None
        context: Any = prompt if keys is None else keys.to(meta)
        release, int8 = self._pages.release, self.recipe.precision == "int8"
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

    # parts, on (B,...) float32 in and out

    def _encode(self, images: Tensor) -> Tensor:
        return self.model.scale_factor * self.model.first_stage_mean(self._in(images)).float()

    def _decode(self, z: Tensor) -> Tensor:
        return self.model.first_stage_model.decode(self._in(z / self.model.scale_factor)).float()

    def _in(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _tile(self, cells: bool) -> dict[str, int]:
        """Tiles of `max_window` pixels that overlap by a quarter, in cells or pixels."""
        stride, factor = self.stride, self.factor if cells else 1
        side = max(stride, self.recipe.max_window // stride * stride)
        overlap = -(-side // 4 // stride) * stride if side > stride else 0
        return {"tile": side // factor, "overlap": overlap // factor}

    def _known(self, mask: Tensor, background: Tensor) -> Tensor:
        """What the networks may see of the normal picture's latent."""
        return background if self.model.known == "full" else (1 - mask) * background

    def _context(self, types: Tensor, pixels: Tensor) -> tuple[Tensor, Any]:
        """(prompts (B,L,width) for windows with the masks `pixels`, the same as the U-Net takes them)."""
        if self.model.sees_masks:
            prompts = self.model.window_prompts(types, pixels).to(self.dtype)
            keys = self._project(prompts)
            return prompts, prompts if keys is None else keys
        prompts = torch.cat([self._prompts[t] for t in types.tolist()])
        rows = [self._keys[t] for t in types.tolist()]
        if None in rows:
            return prompts, prompts
        return prompts, Projected.cat(rows)  # type: ignore[arg-type]

    def _guided(self, context: Any) -> Any:
        """The contexts of a doubled batch: the empty prompt for the first half, `context` for the second."""
        if isinstance(context, Projected):
            assert self._empty_key is not None
            count = len(context.layers[0][0])
            return Projected.cat([*[self._empty_key] * count, context])
        return torch.cat([self._empty.expand(len(context), -1, -1), context])

    def _denoiser(
        self, context: Any, columns: Tensor, mask: Tensor, known: Tensor, scale: float | None = None
    ) -> BoundDenoiser:
        """The U-Net under a context; a hybrid one sees the `mask` (B,1,h,w) and what is `known` (B,C,h,w) too.
        `columns` (B,L): the learned tokens; `scale`: of guidance, None for the recipe's."""
        deep: dict[Any, DeepFeatures] = {}
        tile = self._tile(cells=True)
        own_mask, own_known = mask, known
        scale = self.recipe.scale if scale is None else scale
        seen_context = context if scale == 1 else self._guided(context)
        seen_columns = columns if scale == 1 else torch.cat([torch.zeros_like(columns), columns])

        def evaluate(
            x: Tensor, t: Tensor, place: Any, weights: Tensor | None, form: str, mask: Tensor, known: Tensor
        ) -> Tensor:
            rows, cols = place
            whole = known is own_known
            mask, known = mask[..., rows, cols], known[..., rows, cols]
            weights = None if weights is None else weights[..., rows, cols]
            if scale != 1:
                x, t, mask, known = (torch.cat([part, part]) for part in (x, t, mask, known))
                weights = None if weights is None else torch.cat([weights, weights])
            seen: Any = seen_context
            if weights is not None:
                seen = Weighted(seen, weights, seen_columns, form)
            placed = self.model.with_place(seen, mask, known)
            cond = placed if isinstance(placed, dict) else {"c_crossattn": [seen]}
            if self.recipe.reuse > 1:
                key = (str(place), whole)
                cond = {**cond, "deep": deep.setdefault(key, DeepFeatures(self.recipe.reuse, self.unet.shallow))}
            eps = bind(self.model, cond)(x, t)
            if scale == 1:
                return eps
            without, with_words = eps.chunk(2)
            return without + scale * (with_words - without)

        def denoise(
            x: Tensor,
            t: Tensor,
            *,
            weights: Tensor | None = None,
            form: str = "scores",
            mask: Tensor | None = None,
            known: Tensor | None = None,
        ) -> Tensor:
            m = own_mask if mask is None else mask
            k = own_known if known is None else known
            return tiled(lambda part, place: evaluate(part, t, place, weights, form, m, k), x, **tile)

        return denoise

    # pictures

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
        """Decoded windows (H,W,3) uint8 with a defect inside each mask; what lies outside is the decoder's too. With
        the recipe's `detail` both get back what the first stage loses.

        `normals` (H,W,3) uint8 and `masks` (H,W) in {0,1}, all of one size, sides multiples of `stride`; `types`:
        numbers of the learned types; `keys`: names under which the encoded normals may be kept, None for not;
        `drafts` (H,W,3) uint8: first versions to start from, noised to the recipe's `strength`, or None for noise.
        Raises `UserError` when the network's answer is no number.
        """
        model = self.model
        background = self._background(normals, keys or [None] * len(normals))
        pixels = torch.stack([torch.from_numpy(m)[None] for m in masks]).to(self.device)
        mask = latent_mask(pixels, background.shape[-2:])
        known = self._known(mask, background)
        prompts, context = self._context(torch.tensor(types, device=self.device), pixels)
        shown = model.detailed_mask(pixels, (background.shape[-2], background.shape[-1]))
        denoise = self._denoiser(context, self._columns[list(types)], shown, known)
        noise = PairNoise([torch.Generator().manual_seed(s) for s in seeds])
        recipe = self.recipe
        first = None if drafts is None else self._encoded(drafts)
        options = {"use_farm": recipe.use_farm, "stop_at": recipe.stop_at, **recipe.own}
        place = SamplingInputs(
            mask, background, prompts, known, noise, recipe.sampler, recipe.steps, denoise, options, self.dtype,
            None if first is None else mask * first + (1 - mask) * background, recipe.strength,
        )  # fmt: skip
        made = self._images(model.fill(place))
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
        """As `generate`, but with normal content inside each mask: AIAS from the normal itself as the draft, noised to
        t = `strength` * T (None: `counterfeit_strength`), under the empty prompt, without guidance or FARM; behind
        the U-Net is what is there for pairs (`corrected_denoiser`)."""
        model, drafted = self.model, self.recipe.from_draft
        strength = counterfeit_strength(self.recipe) if strength is None else strength
        background = self._background(normals, keys or [None] * len(normals))
        pixels = torch.stack([torch.from_numpy(m)[None] for m in masks]).to(self.device)
        mask = latent_mask(pixels, background.shape[-2:])
        context = self._empty if self._empty_key is None else Projected.cat([self._empty_key] * len(normals))
        if isinstance(context, Tensor):
            context = context.expand(len(normals), -1, -1)
        columns = torch.zeros_like(self._columns[[0] * len(normals)])
        shown = model.detailed_mask(pixels, (background.shape[-2], background.shape[-1]))
        denoise = model.corrected_denoiser(
            self._denoiser(context, columns, shown, background, scale=1), mask, self.dtype
        )
        noise = PairNoise([torch.Generator().manual_seed(s) for s in seeds])
        z = renewed(denoise, Guidance(model.schedule, mask, background), noise, self.recipe.steps, strength, drafted)
        if drafted and self.recipe.detail:
            decoded = self._decoded_normals(background, keys or [None] * len(normals))
            return [varied(*w) for w in zip(normals, decoded, self._images(z), masks, strict=True)]
        return self._with_detail(self._images(z), normals, background, seeds, keys)

    def _images(self, z: Tensor) -> list[np.ndarray]:
        """Latents (B,C,h,w) decoded, (H,W,3) uint8 each. Raises `UserError` for what is no number."""
        decoded = tiled(lambda part, _: self._decode(part), z, **self._tile(cells=True), up=self.factor).cpu()
        if not torch.isfinite(decoded).all():
            raise UserError(f"the network's pictures are no numbers at --precision {self.recipe.precision}; try fp32")
        return [to_image(d) for d in decoded]

    def _encoded(self, images: Sequence[np.ndarray]) -> Tensor:
        """Scaled latents (B,C,h,w) of windows (H,W,3) uint8."""
        batch = torch.stack([to_tensor(image) for image in images]).to(self.device)
        return tiled(lambda part, _: self._encode(part), batch, **self._tile(cells=False), down=self.factor)

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
        decoded = self._decoded_normals(background, keys or [None] * len(normals))
        return [restored(n, d, m, s) for n, d, m, s in zip(normals, decoded, made, seeds, strict=True)]

    def _decoded_normals(self, background: Tensor, keys: Sequence[Hashable]) -> list[np.ndarray]:
        """The latents of normals (B,C,h,w) decoded, (H,W,3) uint8 each, from the last ones kept where all are there."""
        known = [self._decoded.get(key) for key in keys]
        if all(k is not None for k in known):
            return known  # type: ignore[return-value]
        decoded = self._images(background)
        with self._lock:
            self._decoded.update({k: d for k, d in zip(keys, decoded, strict=True) if k is not None})
            while sum(image.nbytes for image in self._decoded.values()) > BACKGROUNDS:
                self._decoded.popitem(last=False)
        return decoded

    def _background(self, normals: Sequence[np.ndarray], keys: Sequence[Hashable]) -> Tensor:
        """Scaled latents (B,C,h,w) of the normals, from the last ones kept where all are among them."""
        known = [self._backgrounds.get(key) for key in keys]
        if all(k is not None for k in known):
            return torch.stack(known)  # type: ignore[arg-type]
        background = self._encoded(normals)
        with self._lock:
            # A copy: a row would keep its whole lane in memory.
            self._backgrounds.update({k: row.clone() for k, row in zip(keys, background, strict=True) if k is not None})
            while sum(row.nbytes for row in self._backgrounds.values()) > BACKGROUNDS:
                self._backgrounds.popitem(last=False)
        return background


def check_recipe(recipe: Recipe, device: torch.device) -> None:
    """Raise `UserError` for a recipe that this machine cannot follow."""
    if recipe.region not in ("auto", "full"):
        raise UserError(f"--region {recipe.region} is unknown; use auto or full")
    check_scale(recipe.scale, "--scale")
    if recipe.precision not in PRECISIONS:
        raise UserError(f"--precision {recipe.precision} is unknown; use {', '.join(PRECISIONS)}")
    if recipe.precision == "int8" and (device.type != "cpu" or not has_int8()):
        raise UserError("--precision int8 needs a CPU with 8-bit dot products (AVX-512 VNNI); use bf16")
    if recipe.compiled and (recipe.precision == "int8" or recipe.region == "auto"):
        raise UserError("--compile is for one size of window and weights as they are: not with --region auto or int8")
