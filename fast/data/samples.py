"""What training sees of samples: images and masks decoded once, resized and transformed alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fast.data.images import read_image, read_labels, read_mask
from fast.data.index import Sample
from fast.data.sampler import SampleIndex
from fast.data.tensors import to_tensor
from fast.data.transforms import Augment, Crop, Resize, Transform, Window, Zoom, apply, flip
from fast.data.words import prompt_text
from ldm.errors import UserError
from ldm.rng import seed_of

_MEMORY = 2 << 30  # keep decoded images in memory up to this many bytes


class HasImage(Protocol):
    """A sample of any kind: files, or uint8 arrays (H,W,3) and (H,W), nonzero = defect; no mask: no defect."""

    @property
    def image(self) -> Path | np.ndarray: ...
    @property
    def mask(self) -> Path | np.ndarray | None: ...


@dataclass(frozen=True)
class MadeSample:
    """A sample that is made when it is asked for: `make()` returns its image (H,W,3) and mask (H,W), uint8, the same
    ones each time. Named as a `Sample` is; it is seen in a single view."""

    make: Callable[[], tuple[np.ndarray, np.ndarray]]
    category: str
    anomaly: str

    @property
    def image(self) -> np.ndarray:
        return self.make()[0]

    @property
    def mask(self) -> np.ndarray:
        return self.make()[1]


S = TypeVar("S", bound=HasImage)


def read_sample(sample: HasImage, name: str = "", ignored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H,W,3), mask uint8 (H,W) in {0,1}, with `ignored` 255 where a mask file says so. Raises `UserError`
    when they do not fit or cannot be read."""
    if isinstance(sample, MadeSample):
        return sample.make()
    image = sample.image if isinstance(sample.image, np.ndarray) else read_image(sample.image)
    if sample.mask is None:
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        read = read_labels if ignored else read_mask
        mask = (sample.mask != 0).astype(np.uint8) if isinstance(sample.mask, np.ndarray) else read(sample.mask)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
        raise UserError(
            f"{name or sample.image}: image {image.dtype} {image.shape} and mask {mask.shape} do not fit; "
            "give uint8 (H, W, 3) and (H, W)"
        )
    return image, mask


class SampleImages(Generic[S]):
    """Images and masks of samples, kept in memory as far as they fit into `memory` bytes.

    `size`: side of the square that they are resized to (`Resize`); None leaves them as they are. `ignored`: masks keep
    the pixels that their files say to ignore, as 255.
    """

    def __init__(self, samples: Sequence[S], size: int | None, memory: int = _MEMORY, ignored: bool = False):
        self.samples, self.ignored = samples, ignored
        self._resize = None if size is None else Resize(size)
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._free = memory

    def __len__(self) -> int:
        return len(self.samples)

    def plain(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H,W,3) and mask (H,W) of a sample, without chance."""
        if index not in self._kept:
            sample = self.samples[index]
            image, mask = read_sample(sample, getattr(sample, "name", ""), self.ignored)
            if self._resize is not None:
                image, mask = self._resize(image, mask)
            self._free -= image.nbytes + mask.nbytes
            if self._free < 0:
                return image, mask
            self._kept[index] = image, mask
        return self._kept[index]

    def drawn(
        self, index: int, transforms: Sequence[Transform], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random view of a sample."""
        return apply(transforms, *self.plain(index), rng)


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
        made: Sequence[MadeSample] = (),
        made_types: Sequence[str] = (),
    ):
        self.samples, self.types, self.size, self.augment, self.crop = samples, types, size, augment, crop
        self.native, self.made, self.made_types = native, list(made), list(made_types)
        self.categories = sorted({s.category for s in samples})
        if native and augment.zoom < 1:
            raise UserError("data.params.native=true keeps the pictures' scale, augment.zoom changes it; leave one out")
        whole = native or augment.zoom < 1  # what is cut off or zoomed into is not kept in memory at full size
        every: list[Sample | MadeSample] = [*samples, *self.made]
        self.images = SampleImages(every, None if whole else size, 0 if whole else _MEMORY)
        self._window = Window(size)
        self._transforms: list[Transform] = [self._window] if native else []
        if augment.zoom < 1:
            self._transforms += [Zoom(augment.zoom), Resize(size)]
        self._transforms += [flip] * augment.flips

    def __len__(self) -> int:
        return len(self.samples) + len(self.made)

    def views_of(self, index: int, views: int) -> int:
        """How many views of a sample are kept where each real one has so many: made ones have one."""
        return views if index < len(self.samples) else 1

    def view(self, index: int, seed: int | None, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """One view (image uint8, mask {0,1}) of a sample; seed None is the plain, unaugmented one."""
        if seed is None:
            image, mask = self.images.plain(index)
            return self._window.still(image, mask) if self.native else Resize(self.size)(image, mask)
        crop = [Crop(self.crop)] if self.crop and not whole else []
        return self.images.drawn(index, [*self._transforms, *crop], np.random.default_rng(seed))

    def labels(self, index: int) -> dict[str, Any]:
        sample = self.images.samples[index]
        key = f"{sample.category}/{sample.anomaly}"
        number = self.types.index(key) if key in self.types else -1
        if number < 0 and key in self.made_types:
            number = len(self.types) + self.made_types.index(key)
        return {
            "caption": prompt_text(sample.category, sample.anomaly),
            "type": number,
            "category": self.categories.index(sample.category) if sample.category in self.categories else -1,
        }

    def __getitem__(self, ticket: SampleIndex) -> dict[str, Any]:
        image, mask = self.view(ticket.sample, seed_of(ticket.seed, 1), ticket.whole)
        return {
            "image": to_tensor(image),
            "mask": torch.from_numpy(mask.astype(np.float32))[None],
            "seed": ticket.seed,
            **self.labels(ticket.sample),
        }


class Latents(Dataset[dict[str, Any]]):
    """Cached first-stage means of several views of each sample, with their masks."""

    def __init__(self, pictures: Pictures, views: int, latents: Tensor, masks: Tensor):
        self.pictures, self.latents, self.masks = pictures, latents, masks
        self.views = [pictures.views_of(i, views) for i in range(len(pictures))]
        self._first = np.cumsum([0, *self.views])

    def __getitem__(self, ticket: SampleIndex) -> dict[str, Any]:
        row = int(self._first[ticket.sample]) + seed_of(ticket.seed, 2) % self.views[ticket.sample]
        return {
            "latent": self.latents[row].float(),
            "mask": self.masks[row].float(),
            "seed": ticket.seed,
            **self.pictures.labels(ticket.sample),
        }

    def __len__(self) -> int:
        return len(self.pictures)
