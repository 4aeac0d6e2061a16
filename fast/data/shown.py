"""Pictures with outlines, cut out around a defect, and as text that a page or a notebook shows."""

from __future__ import annotations

import base64
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

OUTLINE = (255, 45, 110)
LEAST = 96  # pixels of the picture that a cut-out shows at least


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W,3) with a line around what is set in the mask (H,W), just outside of it."""
    width = max(1, round(max(image.shape[:2]) / 300))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    line = cv2.dilate((mask != 0).astype(np.uint8), kernel) - (mask != 0)
    return np.where(line[..., None] > 0, np.array(OUTLINE, np.uint8), image)


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


def data_url(image: np.ndarray, quality: int = 85) -> str:
    """A picture (H,W,3) or (H,W) uint8 as text that an <img> shows."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
