"""A base at work: what it puts into the masks of true defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from fast.model import FAST
from fast.runtime.progress import followed
from fast.runtime.workers import overlapped
from fast.synthesis.options import Recipe
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from ldm.rng import seed_of


@dataclass(frozen=True, eq=False)
class Truth:
    """A drawn defect: normal and image uint8 (H,W,3), mask uint8 (H,W) in {0,1}."""

    material: str
    kind: str
    normal: np.ndarray
    image: np.ndarray
    mask: np.ndarray

    @property
    def key(self) -> str:
        return f"{self.material}/{self.kind}"


def pasted(pair: Truth, picture: np.ndarray) -> np.ndarray:
    """The normal with the inside of the mask from a decoded picture (H,W,3)."""
    return np.where(pair.mask[..., None] != 0, picture, pair.normal)


def fill(
    model: FAST, recipe: Recipe, truth: Sequence[Truth], numbers: Sequence[int], device: str, workers: int, seed: int
) -> list[np.ndarray]:
    """Decoded pictures (H,W,3) uint8, not yet pasted, for `truth[i]` of each of `numbers`, which settle the noise too.

    The model is used up. Sets torch to one thread. Raises `UserError` for a size that the base cannot make.
    """
    types = sorted({pair.key for pair in truth})
    model.set_classes(types)
    synthesizer = Synthesizer(model, recipe, device)
    engine = synthesizer.engine
    if recipe.size is None or recipe.size % engine.stride:
        raise UserError(f"--size {recipe.size} is no multiple of this base's {engine.stride} pixels; change it")
    left = iter(numbers)
    lanes = list(iter(lambda: list(islice(left, synthesizer.windows_per_batch)), []))
    found: dict[int, np.ndarray] = {}

    def sample(lane: list[int]) -> list[int]:
        row = [truth[i] for i in lane]
        kinds, seeds = [types.index(p.key) for p in row], [seed_of(seed, i) for i in lane]
        pictures = engine.generate([p.normal for p in row], [p.mask for p in row], kinds, seeds)
        found.update(zip(lane, pictures, strict=True))
        return lane

    threads = workers if device == "cpu" else 1
    work = overlapped(sample, lanes, threads, threads + 1, lambda: torch.set_num_threads(1))
    for _ in followed(work, "synthesis", "batch", total=len(lanes), leave=False):
        pass
    return [found[i] for i in numbers]
