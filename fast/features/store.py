"""Frozen features of images, computed once: five scales of the shipped encoder, kept by the image's content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fast.data.mask_looks import IGNORED
from fast.data.tensors import to_tensor
from fast.features.efficientnet import CHANNELS, WEIGHTS, EfficientNetLite0, pretrained
from ldm.checkpoint import save_safetensors
from ldm.hashing import file_hash

CELL = 4  # pixels of a side of the cells that are told apart
STRIDES = (4, 4, 8, 16, 32)  # of the kept maps; the finest is averaged over 2 x 2, to the cells
WIDTH = sum(CHANNELS)  # numbers that describe a cell
MEMORY = 4 << 30  # keep features up to this many bytes where no folder keeps them
_BATCH = 16


def to_cells(features: Sequence[Tensor]) -> list[Tensor]:
    """The encoder's five maps (B,C,h,w), the finest of them averaged to the cells."""
    return [F.avg_pool2d(features[0], 2), *features[1:]]


@dataclass
class Features:
    """`maps`: five float16 tensors (h*w, C) of an image, at `STRIDES`; `shape`: (rows, columns) of its cells. Both
    sides of the image are made multiples of 32 pixels by repeating its edge."""

    maps: list[Tensor]
    shape: tuple[int, int]

    def as_images(self) -> list[Tensor]:
        """Float (1,C,h,w) of each scale."""
        sides = [tuple(side * CELL // stride for side in self.shape) for stride in STRIDES]
        return [rows.float().T.reshape(1, -1, *side).contiguous() for rows, side in zip(self.maps, sides, strict=True)]

    def read(self, row: np.ndarray, column: np.ndarray) -> Tensor:
        """Float (n, WIDTH): the features of cells at (row, column), (n,) whole numbers each; coarser scales are
        interpolated as `interpolate(align_corners=False)` does."""
        found = []
        for rows, stride in zip(self.maps, STRIDES, strict=True):
            height, width = (side * CELL // stride for side in self.shape)
            total = torch.zeros(len(row), rows.shape[1])
            for y, y_share in _neighbours(row, stride, height):
                for x, x_share in _neighbours(column, stride, width):
                    share = torch.from_numpy((y_share * x_share).astype(np.float32))[:, None]
                    total += rows[torch.from_numpy(y * width + x)].float() * share
            found.append(total)
        return torch.cat(found, dim=1)


class FeatureStore:
    """The features of any number of images, each computed once: kept in `folder` if one is given, under the hash of the
    pixels and of the encoder's weights, else in memory up to `memory` bytes. Several processes may share a folder."""

    def __init__(self, folder: Path | None = None, device: str | torch.device = "cpu", memory: int = MEMORY):
        self.folder, self.device = folder, torch.device(device)
        self.kept: dict[str, Features] = {}
        self.free = memory

    @cached_property
    def encoder(self) -> EfficientNetLite0:
        return pretrained().eval().requires_grad_(False).to(self.device)

    @cached_property
    def mark(self) -> str:
        """The hash of the encoder's weights."""
        return file_hash(WEIGHTS)

    def key(self, image: np.ndarray) -> str:
        """Of an image, uint8 (H,W,3)."""
        return hashlib.sha256(
            self.mark.encode() + repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
        ).hexdigest()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Features of images, uint8 (H,W,3) each."""
        keys = [self.key(image) for image in images]
        found = {key: features for key in keys if (features := self._load(key)) is not None}
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        for batch in _alike(missing):
            for key, features in zip(batch, self._compute([missing[key] for key in batch]), strict=True):
                found[key] = features
                self._save(key, features)
        return [found[key] for key in keys]

    @torch.no_grad()
    def _compute(self, images: Sequence[np.ndarray]) -> list[Features]:
        batch = torch.stack([to_tensor(image) for image in images]).to(self.device)
        height, width = (-(-side // 32) * 32 for side in batch.shape[-2:])
        batch = F.pad(batch, (0, width - batch.shape[-1], 0, height - batch.shape[-2]), mode="replicate")
        # Channels last, so that a cell's numbers lie side by side.
        maps = [f.permute(0, 2, 3, 1).flatten(1, 2).half().cpu() for f in to_cells(self.encoder(batch))]
        return [Features([m[i].clone() for m in maps], (height // CELL, width // CELL)) for i in range(len(images))]

    def _load(self, key: str) -> Features | None:
        if self.folder is None or not (file := self._file(key)).is_file():
            return self.kept.get(key)
        found = load_file(file)
        return Features([found[str(i)] for i in range(5)], tuple(found["shape"].tolist()))

    def _save(self, key: str, features: Features) -> None:
        if self.folder is not None:
            state = {str(i): m for i, m in enumerate(features.maps)} | {"shape": torch.tensor(features.shape)}
            own = self._file(key).with_suffix(f".{os.getpid()}")  # others may fill the same folder
            save_safetensors(state, own, {})
            own.replace(self._file(key))
            return
        self.free -= sum(m.nbytes for m in features.maps)
        if self.free >= 0:
            self.kept[key] = features

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


def shares(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The share of defect pixels in each cell: labels (H,W), 1 = defect, to float32 `shape`; -1 for cells with an
    ignored pixel (255), which nothing is learnt from."""
    padded = np.zeros((shape[0] * CELL, shape[1] * CELL), np.uint8)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    cells = padded.reshape(shape[0], CELL, shape[1], CELL)
    share = (cells == 1).astype(np.float32).mean(axis=(1, 3))
    return np.where((cells == IGNORED).any(axis=(1, 3)), np.float32(-1), share)


def _alike(images: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Names of images of one size, `_BATCH` at most, fewer where they are large."""
    by_size: dict[tuple[int, ...], list[str]] = {}
    for key, image in images.items():
        by_size.setdefault(image.shape, []).append(key)
    for (height, width, _), keys in by_size.items():
        count = max(1, _BATCH * 256 * 256 // (height * width))
        for start in range(0, len(keys), count):
            yield keys[start : start + count]


def _neighbours(cell: np.ndarray, stride: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two coarse places around each cell, with their shares; the cell itself where the places are no coarser."""
    if stride == CELL:
        return [(cell, np.ones(len(cell)))]
    place = np.maximum((cell + 0.5) * CELL / stride - 0.5, 0)
    low = np.minimum(place.astype(np.int64), count - 1)
    share = place - low
    return [(low, 1 - share), (np.minimum(low + 1, count - 1), share)]
