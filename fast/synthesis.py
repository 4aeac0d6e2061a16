"""The synthesis engine: normals and masks in, image-mask pairs out, each a function of the seed and its number."""

import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.masks import composite, latent_mask, to_image, to_tensor
from fast.model import FAST
from fast.sampling import sample_latents
from fast.sources import Pair
from ldm.errors import UserError
from ldm.rng import PairNoise

# Pairs evaluated together. Rounding depends on a batch's shape (and on the CPU on the number of threads), so the
# shape is fixed here and never by the user's batch size: that is what makes a pair's bytes its own.
LANE = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Recipe:
    """How pairs are made: `size` in pixels, sampler, network evaluations, FARM on or off, "fp32" or "bf16"."""

    size: int
    sampler: str = "aias"
    steps: int = 10
    use_farm: bool = True
    precision: str = "fp32"


@dataclass(frozen=True)
class Made:
    """A finished pair: uint8 (H,W,3) normal and image, mask (H,W) in {0,1}, seconds it took."""

    pair: Pair
    normal: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    seconds: float


class GivenUp(Exception):
    """Work was given up because somebody called `Synthesizer.stop`."""


class Synthesizer:
    """Makes pairs with a trained FAST on one device, "cpu" or "cuda".

    On the CPU torch is set to one thread per pair, in the whole process: rounding depends on their number.
    Raises `UserError` for a size that the base cannot take.
    """

    def __init__(self, model: FAST, recipe: Recipe, device: str = "cpu"):
        self.model = model.to(device).eval()
        self.recipe, self.device = recipe, torch.device(device)
        self.lane = LANE[self.device.type]
        self._stopping = False  # no lock: a signal handler may set it at any moment
        self.model.model.register_forward_pre_hook(self._give_up)  # before each network evaluation
        self._check_size()
        self._single_thread()
        self._prompts = self._encode_prompts()

    def stop(self) -> None:
        """End `make` soon: lanes that are under way are given up at their next network evaluation."""
        self._stopping = True

    def _give_up(self, *_: Any) -> None:
        if self._stopping:
            raise GivenUp

    def _check_size(self) -> None:
        with torch.no_grad():
            cells = self.model.first_stage_mean(torch.zeros(1, 3, 64, 64, device=self.device)).shape[-1]
        stride = 64 // cells * getattr(self.model.model.diffusion_model, "stride", 1)
        if self.recipe.size < stride or self.recipe.size % stride:
            near = max(stride, round(self.recipe.size / stride) * stride)
            raise UserError(f"--size {self.recipe.size} is not a multiple of {stride}, as this base needs; use {near}")

    def _single_thread(self) -> None:
        if self.device.type == "cpu":
            torch.set_num_threads(1)

    @torch.no_grad()
    def _encode_prompts(self) -> list[Tensor]:
        """Every type's prompt, once for the whole set and one at a time: no type's bytes depend on the others."""
        index = torch.arange(len(self.model.prompts.types), device=self.device)
        with self._autocast():
            return [self.model.prompts(self.model.cond_stage_model, i[None])[0] for i in index]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[Made, None, None]:
        """Make pairs, several lanes at a time on the CPU; the order of the results is not that of the pairs.

        Ends early after `stop`. Raises `UserError` for a picture that cannot be read.
        """
        workers = self._workers(in_flight)
        pool = ThreadPoolExecutor(workers, initializer=self._single_thread)
        pending: set[Future[list[Made]]] = set()
        try:
            while not self._stopping:
                # One lane more than workers, so that nobody waits for the next to be read.
                while len(pending) <= workers and (lane := list(islice(pairs, self.lane))):
                    pending.add(pool.submit(self.make_lane, lane))
                if not pending:
                    return
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield from future.result()
        except GivenUp:
            return
        finally:
            self.stop()  # whatever ended this, nobody waits for what is still under way
            pool.shutdown(wait=True, cancel_futures=True)
            self._stopping = False

    def _workers(self, in_flight: int) -> int:
        """Threads for this process: its share of the machine's cores on the CPU, one to feed a GPU."""
        if self.device.type != "cpu":
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(in_flight, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))

    @torch.no_grad()
    def make_lane(self, pairs: Sequence[Pair]) -> list[Made]:
        """Read, encode, sample, decode and composite up to a lane of pairs, padded to the lane's full width."""
        start, size = time.perf_counter(), self.recipe.size
        filled = [*pairs, *[pairs[-1]] * (self.lane - len(pairs))]
        normals = [resize_image(read_image(p.normal), size) for p in filled]
        masks = [resize_mask(read_mask(p.mask), size) for p in filled]
        images = self.generate(normals, masks, [p.type_index for p in filled], [p.seed for p in filled])
        seconds = (time.perf_counter() - start) / len(pairs)
        return [Made(p, n, i, m, seconds) for p, n, i, m in zip(pairs, normals, images, masks, strict=False)]

    @torch.no_grad()
    def generate(
        self, normals: list[np.ndarray], masks: list[np.ndarray], types: list[int], seeds: list[int]
    ) -> list[np.ndarray]:
        """Pictures (H,W,3) uint8 with a defect inside each mask and every byte outside as in the normal image.

        `normals` (H,W,3) uint8 and `masks` (H,W) in {0,1}, all of one size; `types`: numbers of the learned types.
        Raises `UserError` when the network's answer is no number.
        """
        model = self.model
        images = torch.stack([to_tensor(n) for n in normals]).to(self.device)
        pixels = torch.stack([torch.from_numpy(m)[None] for m in masks]).to(self.device)
        noise = PairNoise([torch.Generator().manual_seed(s) for s in seeds])
        with self._autocast():
            background = (model.scale_factor * model.first_stage_mean(images)).float()
            z = sample_latents(
                model,
                background=background,
                mask=latent_mask(pixels, background.shape[-2:]),
                cond=torch.stack([self._prompts[t] for t in types]),
                noise=noise,
                sampler=self.recipe.sampler,
                steps=self.recipe.steps,
                use_farm=self.recipe.use_farm,
            )
            decoded = model.decode_first_stage(z)
        if not torch.isfinite(decoded).all():
            raise UserError(f"the network's pictures are no numbers at --precision {self.recipe.precision}; try fp32")
        return [composite(to_image(d), n, m) for d, n, m in zip(decoded, normals, masks, strict=True)]


def record(made: Made, prompt: str, common: dict[str, Any]) -> dict[str, Any]:
    """The manifest line of a pair: everything needed to make it again."""
    return {
        "index": made.pair.index,
        "image": f"image/{made.pair.index:06d}.png",
        "mask": f"mask/{made.pair.index:06d}.png",
        "normal_source": str(made.pair.normal),
        "mask_source": str(made.pair.mask),
        "prompt": prompt,
        "pair_seed": made.pair.seed,
        **common,
        "defect_pixels": int(made.mask.sum()),
        "seconds": round(made.seconds, 4),
    }
