"""Mask files that are looked at first and filled many times: each is decoded once."""

import zlib
from pathlib import Path

import numpy as np

from fast.data.images import read_mask


class KeptMasks:
    """`read_mask` that remembers: a file is decoded when it is first asked for and kept as packed bits, a few KB for a
    mask of a megapixel. Safe to call from several threads."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[tuple[int, int], bytes]] = {}

    def __call__(self, path: str | Path) -> np.ndarray:
        """Defect mask (H,W) uint8 in {0,1}, the caller's own. Raises `UserError` as `read_mask` does."""
        path = Path(path)
        kept = self._kept.get(path)
        if kept is None:
            mask = read_mask(path)
            self._kept[path] = (mask.shape[0], mask.shape[1]), zlib.compress(np.packbits(mask).tobytes(), 1)
            return mask
        (height, width), packed = kept
        bits = np.frombuffer(zlib.decompress(packed), np.uint8)
        return np.unpackbits(bits, count=height * width).reshape(height, width)
