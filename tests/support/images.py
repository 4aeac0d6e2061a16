"""A blurred random picture and a mask for it."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

SIDE = 32  # pixels


def picture(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    rough = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(rough, (0, 0), 3)


def mask(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    drawn = np.zeros((height, width), np.uint8)
    drawn[height // 4 : height // 2, width // 4 : width // 2] = 1
    drawn[height - 9, 3 : width - 3] = 1
    return drawn


def plain(path: Path, height: int, width: int) -> np.ndarray:
    """Grey, with a corner that tells one file from another: copies of a defect's image are no normals."""
    image = np.full((height, width, 3), 90, np.uint8)
    digest = np.frombuffer(hashlib.sha256(str(path).encode()).digest()[:16], np.uint8)
    image[:4, :4, [0, 2]] = [255, 0]  # in colour whatever the path, JPEG too
    image[:4, :4, 1] = digest.reshape(4, 4)
    return image
