"""The triptych of a pair: normal image, mask and synthetic image beside one another, to look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.images import read_image, resize_image, resize_mask
from ldm.errors import UserError

GAP = 4  # pixels between the parts of a triptych
PANEL = 1024  # pixels; a larger picture's defects are looked at in the picture itself


def panel(picture: np.ndarray) -> np.ndarray:
    """A copy of a picture (H,W,3), or of a mask (H,W) in {0,1}, made no larger than `PANEL` pixels a side."""
    height, width = picture.shape[:2]
    shrink = max(1.0, max(height, width) / PANEL)
    size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    return resize_image(picture, size) if picture.ndim == 3 else resize_mask(_pooled(picture, int(shrink)), size)


def _pooled(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask (H,W) with one pixel for each square of `side`, set where any of the square's is: `resize_mask` counts in
    64-bit numbers, which of a whole large mask is gigabytes."""
    for axis in (0, 1) if side > 1 else ():
        mask = np.maximum.reduceat(mask, np.arange(0, mask.shape[axis], side), axis=axis)
    return mask


def triptych(normal: np.ndarray, mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """normal | mask | image in one picture (h, 3 w + 8, 3), as panels."""
    normal, mask, image = panel(normal), panel(mask), panel(image)
    white = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    gap = np.full((mask.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([normal, gap, white, gap, image], axis=1)


def normal_shown(folder: Path, record: Mapping[str, Any]) -> np.ndarray:
    """The normal image (h,w,3) that a pair's triptych shows, for a method that draws its own. Raises `UserError`."""
    if "shard" in record:
        raise UserError(
            f"{folder / record['image']}: its normal image is not there, and shards hold none; make the pairs without "
            "--shards to see it"
        )
    triptych = read_image(folder / "triptych" / Path(record["image"]).name)
    return triptych[:, : (triptych.shape[1] - 2 * GAP) // 3]
