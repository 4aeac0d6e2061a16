"""What the page shows of a pair: its four pictures, and small ones for the gallery."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.images import read_image, read_mask, resize_image
from fast.data.packed import is_packed
from fast.data.shown import around, data_url, outlined
from fast.synthesis.triptych import normal_shown

DIFFERENCE = 3  # a change of that many times fewer grey levels is shown white
THUMB = 220  # pixels of a side


def difference(normal: np.ndarray, image: np.ndarray) -> np.ndarray:
    """How far each pixel changed, grey (H,W), `DIFFERENCE` times as strong."""
    change = np.abs(image.astype(np.int16) - normal.astype(np.int16)).max(axis=2)
    return np.minimum(change * DIFFERENCE, 255).astype(np.uint8)


def four(folder: Path, row: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Normal image, mask (0 and 255), made image, difference of a pair at full size; the normal as the triptych has it
    where its file is gone or there was none. Raises `UserError`."""
    image, mask = read_image(folder / row["image"]), read_mask(folder / row["mask"])
    source = row.get("normal_source")
    if source and Path(source).is_file():
        normal = resize_image(read_image(source), image.shape[:2])
    else:
        normal = resize_image(normal_shown(folder, row), image.shape[:2])
    return normal, mask * np.uint8(255), image, difference(normal, image)


def thumbs(image: Path, mask: Path) -> tuple[str, str]:
    """The defect and what is around it, without and with its outline, as text. Raises `UserError`."""
    file = image.parent if is_packed(image) else image
    return _thumbs(image, mask, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=4096)
def _thumbs(image: Path, mask: Path, changed: int) -> tuple[str, str]:
    pixels, marked = read_image(image), read_mask(mask)
    shown = around(marked)
    small = resize_image(pixels[shown], THUMB)
    line = resize_image(marked[shown] * np.uint8(255), THUMB) > 127
    return data_url(small), data_url(outlined(small, line))
