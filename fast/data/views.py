"""What training sees of a sample: resized, turned over and cropped, the mask along with the image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.data.layouts import Sample
from fast.data.sampler import Ticket
from fast.data.tensors import to_tensor
from fast.data.words import prompt_text
from fast.windows.regions import Region, cut
from ldm.errors import UserError
from ldm.rng import seed_of

_MEMORY = 2 << 30  # keep decoded images in memory up to this many bytes


@dataclass(frozen=True)
class Augment:
    """`flips`: mirror and turn by right angles; `zoom`: smallest share of a side that a random window keeps."""

    flips: bool = False
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.zoom <= 1:
            raise UserError(f"data augment.zoom={self.zoom} lies outside 0.1..1")

    def __call__(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """image (H,W,3), mask (H,W) -> another view of both. A window that would lose the defect moves onto it."""
        if self.zoom < 1:
            image, mask = self._window(image, mask, rng)
        if self.flips:
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            image, mask = (image[:, ::-1], mask[:, ::-1]) if mirror else (image, mask)
        return image, mask

    def _window(self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        share = rng.uniform(self.zoom, 1.0)
        size = [max(8, round(side * share)) for side in mask.shape]
        at = [int(rng.integers(side - s + 1)) for side, s in zip(mask.shape, size, strict=True)]
        if (mask == 1).any():
            y, x = rng.choice(np.argwhere(mask == 1))
            for axis, point in enumerate((y, x)):
                low = max(0, point - size[axis] + 1)
                high = min(point, mask.shape[axis] - size[axis])
                at[axis] = int(np.clip(at[axis], low, high))
        rows, cols = slice(at[0], at[0] + size[0]), slice(at[1], at[1] + size[1])
        return image[rows, cols], mask[rows, cols]


class Pictures(Dataset[dict[str, Any]]):
    """Samples as tensors: image (3,size,size) in [-1, 1], mask (1,size,size) in {0,1}, caption, seed, and the
    numbers of its type (-1: a normal) and category.

    `crop`: side of a random window of the resized image, for training a convolutional first stage on less work.
    `native`: nothing is resized; what is seen of a picture is a window of `size` pixels a side with defect in it, if
    there is any.
    """

    def __init__(
        self,
        samples: list[Sample],
        types: list[str],
        size: int,
        augment: Augment,
        crop: int | None = None,
        native: bool = False,
    ):
        self.samples, self.types, self.size, self.augment, self.crop = samples, types, size, augment, crop
        self.native = native
        self.categories = sorted({s.category for s in samples})
        if native and augment.zoom < 1:
            raise UserError("data.params.native=true keeps the pictures' scale, augment.zoom changes it; leave one out")
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] | None = None
        if len(samples) * size * size * 4 <= _MEMORY and augment.zoom == 1 and not native:
            self._kept = {}

    def __len__(self) -> int:
        return len(self.samples)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[index]
        image = read_image(sample.image)
        mask = np.zeros(image.shape[:2], np.uint8) if sample.mask is None else read_mask(sample.mask)
        return image, mask

    def _resized(self, index: int, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        image, mask = self._read(index)
        if self.native:
            return _window(image, mask, self.size, rng)
        if rng is not None and self.augment.zoom < 1:
            image, mask = Augment(zoom=self.augment.zoom)(image, mask, rng)
        pair = resize_image(image, self.size), resize_mask(mask, self.size)
        if self._kept is not None:
            self._kept[index] = pair
        return pair

    def view(self, index: int, seed: int | None, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One view (image uint8, mask {0,1}) of a sample; seed None is the plain, unaugmented one."""
        rng = None if seed is None else np.random.default_rng(seed)
        image, mask = self._resized(index, rng)
        if rng is None:
            return image, mask
        image, mask = Augment(flips=self.augment.flips)(image, mask, rng)
        if self.crop and not whole:
            y, x = (int(rng.integers(self.size - self.crop + 1)) for _ in range(2))
            image, mask = (a[y : y + self.crop, x : x + self.crop] for a in (image, mask))
        return image, mask

    def labels(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        key = f"{sample.category}/{sample.anomaly}"
        return {
            "caption": prompt_text(sample.category, sample.anomaly),
            "type": self.types.index(key) if key in self.types else -1,
            "category": self.categories.index(sample.category) if sample.category in self.categories else -1,
        }

    def __getitem__(self, ticket: Ticket) -> dict[str, Any]:
        image, mask = self.view(ticket.sample, seed_of(ticket.seed, 1), ticket.whole)
        return {
            "image": to_tensor(image),
            "mask": torch.from_numpy(mask.astype(np.float32))[None],
            "seed": ticket.seed,
            **self.labels(ticket.sample),
        }


def _window(
    image: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """A window (size,size) of image (H,W,3) and mask (H,W), with a defect pixel in it if there is any: a random one,
    or without `rng` centred on one in the middle of them. A picture smaller than that is mirrored at its edge."""
    points = np.argwhere(mask)
    if not len(points):
        points = np.array([[side // 2 for side in mask.shape]] if rng is None else [rng.integers(mask.shape)])
    point = points[len(points) // 2] if rng is None else points[rng.integers(len(points))]
    before = size // 2 if rng is None else rng.integers(size, size=2)
    top, left = (int(v) for v in np.clip(point - before, 0, np.maximum(np.array(mask.shape) - size, 0)))
    region = Region(top, left, size, size, mask)
    return cut(image, region), cut(mask, region)


class Latents(Dataset[dict[str, Any]]):
    """Cached first-stage means of several views of each sample, with their masks."""

    def __init__(self, pictures: Pictures, views: int, latents: Tensor, masks: Tensor):
        self.pictures, self.views, self.latents, self.masks = pictures, views, latents, masks

    def __getitem__(self, ticket: Ticket) -> dict[str, Any]:
        row = ticket.sample * self.views + seed_of(ticket.seed, 2) % self.views
        return {
            "latent": self.latents[row].float(),
            "mask": self.masks[row].float(),
            "seed": ticket.seed,
            **self.pictures.labels(ticket.sample),
        }

    def __len__(self) -> int:
        return len(self.pictures)
