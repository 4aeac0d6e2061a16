"""Pictures with outlines, cut out around a defect, and as text that a page or a notebook shows."""

from __future__ import annotations

import base64
from io import BytesIO

import cv2
import numpy as np
from markupsafe import Markup
from PIL import Image

from fast.data.images import resize_image, resize_mask

OUTLINE = (255, 45, 110)
SIDE, SMALL = 256, 140  # pixels of a picture alone in a notebook, and of one among others
LEAST = 96  # pixels of the picture that a cut-out shows at least
FIGURE = Markup('<figure style="margin:0;width:{width}px">{pictures}<figcaption style="font-size:12px">{words}'
                "</figcaption></figure>")  # fmt: skip
IMAGE = Markup('<img src="{url}" style="height:{height}px" alt="{alt}">')


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W,3) with a line around what is set in the mask (H,W), just outside of it."""
    width = max(1, round(max(image.shape[:2]) / 300))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    line = cv2.dilate((mask != 0).astype(np.uint8), kernel) - (mask != 0)
    return np.where(line[..., None] > 0, np.array(OUTLINE, np.uint8), image)


def around(mask: np.ndarray, least: int = LEAST) -> tuple[slice, slice]:
    """A square about the largest defect of a mask (H,W), twice its size, at least `least` pixels, in the picture."""
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


def figure(image: np.ndarray, labels: np.ndarray, words: str, side: int = SIDE, cut: bool = False) -> Markup:
    """HTML of a pair: the image (H,W,3) and it with the outline of what is 1 in the labels (H,W); of a `cut` one the
    outline alone, of the part around the largest defect. The words are escaped."""
    mask = (labels == 1).astype(np.uint8)
    if cut:
        shown = around(mask)
        image, mask = image[shown], mask[shown]
    height, width = image.shape[:2]
    size = (side, max(1, round(side * width / height)))
    small = resize_image(image, size)
    pictures = [outlined(small, resize_mask(mask, size))]
    pictures = pictures if cut else [small, *pictures]
    found = [IMAGE.format(url=data_url(p), height=side, alt=words) for p in pictures]
    return FIGURE.format(width=len(found) * (size[1] + 6), pictures=Markup(" ").join(found), words=words)
