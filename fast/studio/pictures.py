"""What the page shows of a pair: its four pictures, small ones for the gallery, and pictures as text."""

from __future__ import annotations

import base64
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fast.data.images import read_image, read_mask, resize_image
from fast.synthesis.output import GAP

OUTLINE = (255, 45, 110)
DIFFERENCE = 3  # a change of that many times fewer grey levels is shown white
THUMB = 220  # pixels of a side
LEAST = 96  # pixels of the picture that a small one shows at least


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W,3) with a line around what is set in the mask (H,W), just outside of it."""
    width = max(1, round(max(image.shape[:2]) / 300))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    line = cv2.dilate((mask != 0).astype(np.uint8), kernel) - (mask != 0)
    return np.where(line[..., None] > 0, np.array(OUTLINE, np.uint8), image)


def difference(normal: np.ndarray, image: np.ndarray) -> np.ndarray:
    """How far each pixel changed, grey (H,W), `DIFFERENCE` times as strong."""
    change = np.abs(image.astype(np.int16) - normal.astype(np.int16)).max(axis=2)
    return np.minimum(change * DIFFERENCE, 255).astype(np.uint8)


def around(mask: np.ndarray, least: int = LEAST) -> tuple[slice, slice]:
    """A square about the largest defect of a mask (H,W), twice its size, at least `least` pixels, inside the picture."""
    height, width = mask.shape
    count, _, stats, _ = cv2.connectedComponentsWithStats((mask != 0).astype(np.uint8), connectivity=8)
    if count < 2:
        return slice(0, height), slice(0, width)
    x, y, w, h, _ = stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))]
    side = min(max(2 * max(int(w), int(h)), least), height, width)
    top = min(max(0, int(y + h / 2 - side / 2)), height - side)
    left = min(max(0, int(x + w / 2 - side / 2)), width - side)
    return slice(top, top + side), slice(left, left + side)


def four(folder: Path, row: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Normal image, mask (0 and 255), made image, difference of a pair at full size; the normal as the triptych has it
    where its file is gone or there was none. Raises `UserError`."""
    name = Path(row["image"]).name
    image, mask = read_image(folder / row["image"]), read_mask(folder / row["mask"])
    source = row.get("normal_source")
    if source and Path(source).is_file():
        normal = resize_image(read_image(source), image.shape[:2])
    else:
        triptych = read_image(folder / "triptych" / name)
        normal = resize_image(triptych[:, : (triptych.shape[1] - 2 * GAP) // 3], image.shape[:2])
    return normal, mask * np.uint8(255), image, difference(normal, image)


def data_url(image: np.ndarray, quality: int = 85) -> str:
    """A picture as text that an <img> shows."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbs(image: Path, mask: Path) -> tuple[str, str]:
    """The defect and what is around it, without and with its outline, as text. Raises `UserError`."""
    return _thumbs(image, mask, image.stat().st_mtime_ns if image.is_file() else 0)


@lru_cache(maxsize=4096)
def _thumbs(image: Path, mask: Path, changed: int) -> tuple[str, str]:
    pixels, marked = read_image(image), read_mask(mask)
    shown = around(marked)
    small = resize_image(pixels[shown], THUMB)
    line = resize_image(marked[shown] * np.uint8(255), THUMB) > 127
    return data_url(small), data_url(outlined(small, line))
