"""RealNet's pairs (Zhang et al. 2024): pieces of images that SDAS drew off the normals, laid into normals."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from fast.artifact import find_weights
from fast.data.images import resize_image
from fast.data.tensors import to_image
from fast.generators.base import Learned
from fast.generators.blend import ImageMask, blend, changed_pair, check_change, check_range, drawn_mask, given_mask
from fast.generators.sdas import SAMPLERS, SDAS
from fast.masks.foreground import Ground
from fast.masks.perlin import perlin_mask
from fast.runtime.device import pick_device
from fast.runtime.folders import parse_json
from ldm.checkpoint import load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import generator, seed_of
from ldm.util import check_params

Range = Sequence[float] | float
TARGET = "fast.generators.sdas.SDAS"
STRONGEST = 10.0  # ten times the noise that a step adds leaves nothing of a normal
SMALLEST = 0.8  # share of a side that a crop of a pooled sample keeps at least


class RealNetGenerator(Learned):
    """RealNet's pairs (Zhang et al. 2024): pieces of images that SDAS samples off the normals, laid into normals.

    A pair's image is `(1 - M) I + M [q S + (1 - q) I]`, with the normal picture I, the mask M, the opacity q and an
    image S of the same category that SDAS samples off the normals. Unlike the original, a drawn mask is drawn again
    while it is empty.

    Args:
        weights, step: the run or artifact of SDAS and its step, see `Learned`.
        strength: how far a sample leaves the normals, 0 to 10: a number, or a range that each sample draws from.
            Published are 0.1 to 0.2, and with `sampler: ddim` 0.01 to 0.03.
        steps: sampling steps of SDAS for each sample.
        sampler: "ancestral" or "ddim".
        opacity: q, a number or a range within [0, 1].
        foreground: the rule by which a drawn mask is kept on the part (`fast.masks.foreground`), or the path of one
            mask of the part that holds for every image.
        category: the category to sample where `synthesize` is not told one. None is enough for weights that know one
            only.
        min_change: the least mean change inside the mask, in grey levels. A pair below it is drawn again, because a
            faint sample looks normal, and if 20 draws stay below, the one that changes most is kept. 0: none is drawn
            again, as published.
        pool: how many samples there are for each category. Each is drawn when it is first needed and is always the
            same, and pairs take theirs from among them, as in the original. 0 draws one for every pair, which costs
            seconds on a CPU.
        vary: True crops and mirrors a pooled sample at random. Switch it off for parts that always lie the same way.
        device: where to sample: "cpu", "cuda" or "auto". Rounding, and with it the odd byte, differs between devices.
        options: the other parameters of `Learned`.

    Raises:
        UserError: when an option is unknown or out of range, or when `weights` hold no SDAS or none of `category`.
    """

    name, artifact = "realnet", "sdas"
    learns_defects = False

    def __init__(
        self,
        weights: str | Path | None = None,
        step: int | None = None,
        strength: Range = (0.1, 0.2),
        steps: int = 20,
        sampler: str = "ancestral",
        opacity: Range = (0.5, 1.0),
        foreground: str = "auto",
        category: str | None = None,
        min_change: float = 3.0,
        pool: int = 64,
        vary: bool = True,
        device: str = "cpu",
        **options: Any,
    ):
        if sampler not in SAMPLERS or steps < 1 or pool < 0:
            raise UserError(
                f"sampler={sampler}, steps={steps}, pool={pool}: use {' or '.join(SAMPLERS)}, 1 or more, 0 or more"
            )
        self.strength = _range("strength", strength, STRONGEST)
        self.opacity = _range("opacity", opacity, 1.0)
        self.steps, self.sampler, self.category = steps, sampler, category
        self.ground = Ground(foreground)
        self.min_change = check_change(min_change)
        self.pool, self.vary, self.device = pool, vary, pick_device(device, "device=")
        self.model: SDAS | None = None
        super().__init__(weights, step, **options)

    def load(self, weights: Path, step: int | None = None) -> None:
        path = find_weights(weights, self.artifact, step)
        model = read_sdas(path)
        if self.category is not None and self.category not in model.categories:
            raise UserError(f"category={self.category} is not among what {path} learned: {', '.join(model.categories)}")
        self.categories = model.categories
        self.model, self.source, self.hash = model.to(self.device), path, file_hash(path)
        self._library = Library(self._pooled)

    def synthesize(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> ImageMask:
        """See `Generator.synthesize`; `anomaly`, "category/type" or a category alone, names the category to sample."""
        label = self._label(anomaly)
        given = None if mask is None else given_mask(mask, image)
        part = self.ground.of(image) if given is None else given

        def draw() -> ImageMask:
            place = drawn_mask(lambda: perlin_mask(part.shape, rng) & part) if given is None else given
            sample = resize_image(self._sample(label, rng), (image.shape[0], image.shape[1]))
            return blend(image, sample, place, rng.uniform(*self.opacity)), place

        return changed_pair(draw, image, self.min_change)

    def settings(self) -> dict[str, Any]:
        return {
            "weights": None if self.model is None else self.hash,
            "strength": list(self.strength),
            "steps": self.steps,
            "sampler": self.sampler,
            "opacity": list(self.opacity),
            "foreground": self.ground.settings(),
            "min_change": self.min_change,
            "category": self.category,
            "pool": self.pool,
            "vary": self.vary,
            "device": self.device.type,
        }

    def _label(self, anomaly: str | None) -> int:
        """The number of the category to draw. Raises `UserError`."""
        if self.model is None:
            raise UserError("realnet has learned nothing yet; give weights=RUN, or call fit")
        known, name = self.model.categories, self.category if anomaly is None else anomaly.partition("/")[0]
        if name is None and len(known) == 1:
            return 0
        if name is None:
            raise UserError(f"{self.source} learned {', '.join(known)}; say which with category=NAME")
        if name not in known:
            raise UserError(f"category {name!r} is not among what {self.source} learned: {', '.join(known)}")
        return known.index(name)

    def _sample(self, label: int, rng: np.random.Generator) -> np.ndarray:
        """An image (h,w,3) uint8 off the normals, a fresh one or from the pool."""
        if not self.pool:
            return self._drawn(label, int(rng.integers(2**62)))
        sample = self._library.get(label, int(rng.integers(self.pool)))
        return _varied(sample, rng) if self.vary else sample

    def _pooled(self, label: int, number: int) -> np.ndarray:
        return self._drawn(label, seed_of(label, number))

    def _drawn(self, label: int, seed: int) -> np.ndarray:
        """One sample (S,S,3) uint8, a function of its arguments. Alone in its batch: the size of a batch rounds
        otherwise."""
        assert self.model is not None
        strength = float(np.random.default_rng(seed).uniform(*self.strength))
        labels = torch.tensor([label], device=self.device)
        return to_image(self.model.sample(labels, strength, [generator(seed)], self.steps, self.sampler)[0])


class Library:
    """Samples by (label, number). `make` draws each one once, when any thread first asks for it."""

    def __init__(self, make: Callable[[int, int], np.ndarray]):
        self.make = make
        self._guard = Lock()
        self._locks: dict[tuple[int, int], Lock] = {}
        self._made: dict[tuple[int, int], np.ndarray] = {}

    def get(self, label: int, number: int) -> np.ndarray:
        key = label, number
        with self._guard:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._made:
                self._made[key] = self.make(label, number)
            return self._made[key]


def read_sdas(path: Path) -> SDAS:
    """The trained model of an artifact, ready to sample. Raises `UserError` for a damaged or foreign file."""
    meta = read_metadata(path)
    try:
        section, categories = parse_json(meta["config"])["model"], parse_json(meta["categories"])
        params = {**section["params"], "categories": categories, "ckpt_path": None, "use_ema": False}
        whole = section["target"] == TARGET and all(isinstance(c, str) for c in categories)
    except (KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is no artifact of SDAS; give the folder of a run of configs/methods/realnet.yaml")
    check_params(SDAS, params, str(path))
    with torch.device("meta"):
        model = SDAS(**params)
    load_strict(model.unet, {k: v.clone() for k, v in read_state_dict(path).items()}, str(path))
    return model.eval().requires_grad_(False)


def _varied(sample: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop (h,w,3) of a sample (S,S,3), mirrored at random along either axis."""
    size = round(len(sample) * rng.uniform(SMALLEST, 1))
    y, x = rng.integers(len(sample) - size + 1, size=2)
    window = sample[y : y + size, x : x + size]
    turns = rng.integers(2, size=2)
    return np.ascontiguousarray(window[:: 1 - 2 * int(turns[0]), :: 1 - 2 * int(turns[1])])


def _range(name: str, value: Range, high: float) -> tuple[float, float]:
    """An option that is a number or two, within [0, high]. Raises `UserError`."""
    values = [value, value] if isinstance(value, int | float) else list(value)
    return check_range(name, values, 0.0, high)
