"""Frozen features of images, computed once: five scales of the shipped encoder, kept by the image's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from fast.masks import to_tensor
from fast.segmentation.efficientnet import CHANNELS, WEIGHTS, EfficientNetLite0, pretrained
from ldm.checkpoint import file_hash, save_safetensors

CELL = 4  # pixels of a side of the cells that are told apart
STRIDES = (4, 4, 8, 16, 32)  # of the kept maps; the finest is averaged over 2 x 2, to the cells
WIDTH = sum(CHANNELS)  # numbers that describe a cell
_BATCH = 16


def to_cells(features: Sequence[Tensor]) -> list[Tensor]:
    """The encoder's five maps (B,C,h,w), the finest of them averaged to the cells."""
    return [F.avg_pool2d(features[0], 2), *features[1:]]


@dataclass
class Features:
    """`maps`: five float16 tensors (h*w, C) of an image, at `STRIDES`; `shape`: (rows, columns) of its cells. Both sides
    of the image are made multiples of 32 pixels by repeating its edge."""

    maps: list[Tensor]
    shape: tuple[int, int]


class FeatureStore:
    """The features of any number of images, each computed once: in memory, and in `folder` if one is given, under the
    hash of the pixels and of the encoder's weights. Several processes may share a folder."""

    def __init__(self, folder: Path | None = None, device: str | torch.device = "cpu"):
        self.folder, self.device = folder, torch.device(device)
        self.kept: dict[str, Features] = {}

    @cached_property
    def encoder(self) -> EfficientNetLite0:
        return pretrained().eval().requires_grad_(False).to(self.device)

    @cached_property
    def _mark(self) -> bytes:
        return file_hash(WEIGHTS).encode()

    def key(self, image: np.ndarray) -> str:
        """Of an image, uint8 (H,W,3)."""
        return hashlib.sha256(
            self._mark + repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
        ).hexdigest()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Features of images, uint8 (H,W,3) each."""
        keys = [self.key(image) for image in images]
        missing = {key: image for key, image in zip(keys, images, strict=True) if not self._load(key)}
        for batch in _alike(missing):
            found = self._compute([missing[key] for key in batch])
            for key, features in zip(batch, found, strict=True):
                self.kept[key] = features
                self._save(key, features)
        return [self.kept[key] for key in keys]

    @torch.no_grad()
    def _compute(self, images: Sequence[np.ndarray]) -> list[Features]:
        batch = torch.stack([to_tensor(image) for image in images]).to(self.device)
        height, width = (-(-side // 32) * 32 for side in batch.shape[-2:])
        batch = F.pad(batch, (0, width - batch.shape[-1], 0, height - batch.shape[-2]), mode="replicate")
        # Channels last, so that a cell's numbers lie side by side.
        maps = [f.permute(0, 2, 3, 1).flatten(1, 2).half().cpu() for f in to_cells(self.encoder(batch))]
        return [Features([m[i].clone() for m in maps], (height // CELL, width // CELL)) for i in range(len(images))]

    def _load(self, key: str) -> bool:
        if key not in self.kept and self.folder is not None and (file := self._file(key)).is_file():
            found = load_file(file)
            self.kept[key] = Features([found[str(i)] for i in range(5)], tuple(found["shape"].tolist()))
        return key in self.kept

    def _save(self, key: str, features: Features) -> None:
        if self.folder is not None:
            state = {str(i): m for i, m in enumerate(features.maps)} | {"shape": torch.tensor(features.shape)}
            save_safetensors(state, self._file(key), {})

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


def _alike(images: dict[str, np.ndarray]) -> Iterator[list[str]]:
    """Names of images of one size, `_BATCH` at most, fewer where they are large."""
    by_size: dict[tuple[int, ...], list[str]] = {}
    for key, image in images.items():
        by_size.setdefault(image.shape, []).append(key)
    for (height, width, _), keys in by_size.items():
        count = max(1, _BATCH * 256 * 256 // (height * width))
        for start in range(0, len(keys), count):
            yield keys[start : start + count]


class Cells:
    """The features of many images, to read single cells of: rows of all images, one after another, for each scale."""

    def __init__(self, features: Sequence[Features]):
        self.shapes = np.array([f.shape for f in features], np.int64)
        self.rows = [torch.cat([f.maps[i] for f in features]) for i in range(5)]
        sizes = [[len(f.maps[i]) for f in features] for i in range(5)]
        self.starts = [np.concatenate([[0], np.cumsum(size)[:-1]]) for size in sizes]

    def read(self, image: np.ndarray, row: np.ndarray, column: np.ndarray) -> Tensor:
        """Float (n, WIDTH): the features at cells (row, column) of images, (n,) whole numbers each; coarser scales are
        interpolated."""
        found = []
        for rows, starts, stride in zip(self.rows, self.starts, STRIDES, strict=True):
            if stride == CELL:
                found.append(rows[torch.from_numpy(starts[image] + row * self.shapes[image, 1] + column)].float())
            else:
                found.append(
                    self._between(rows, starts[image], self.shapes[image] * CELL // stride, stride, row, column)
                )
        return torch.cat(found, dim=1)

    @staticmethod
    def _between(
        rows: Tensor, start: np.ndarray, shape: np.ndarray, stride: int, row: np.ndarray, column: np.ndarray
    ) -> Tensor:
        """Bilinear, with the pixel centres where `interpolate(align_corners=False)` has them."""
        total: Tensor | None = None
        sides = [_neighbours(axis, stride, shape[:, k]) for k, axis in enumerate((row, column))]
        for y, y_share in sides[0]:
            for x, x_share in sides[1]:
                values = rows[torch.from_numpy(start + y * shape[:, 1] + x)].float()
                values *= torch.from_numpy((y_share * x_share).astype(np.float32))[:, None]
                total = values if total is None else total.add_(values)
        assert total is not None
        return total


def _neighbours(cell: np.ndarray, stride: int, count: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two coarse places around each cell, with their shares."""
    place = np.maximum((cell + 0.5) * CELL / stride - 0.5, 0)
    low = np.minimum(place.astype(np.int64), count - 1)
    share = place - low
    return [(low, 1 - share), (np.minimum(low + 1, count - 1), share)]
