"""Drawn normals and masks to measure with, in a folder."""

from pathlib import Path

import numpy as np

from fast.data.images import write_image, write_mask
from fast.procedural import draw_surface
from fast.synthesis.pair import Pair

DEFECT = 60  # pixels across
MASKS = 4


def blob(rng: np.random.Generator, shape: tuple[int, int], across: int) -> np.ndarray:
    """Mask (H,W) in {0,1} of one round defect at a random place, at most `across` pixels wide and high."""
    top, left = (int(rng.integers(0, side - across + 1)) for side in shape)
    y, x = (np.arange(across) + 0.5 - across / 2)[:, None], (np.arange(across) + 0.5 - across / 2)[None]
    edge = 0.9 + 0.1 * np.cos(3 * np.arctan2(y, x) + rng.uniform(0, 6))
    mask = np.zeros(shape, np.uint8)
    mask[top : top + across, left : left + across] = np.hypot(x, y) <= across / 2 * edge
    return mask


def write_pairs(folder: Path, shape: tuple[int, int], count: int, material: str = "leather") -> list[Pair]:
    """Pairs of `shape` (H,W) to make. Each has a normal of its own, for an encoded one is kept and not encoded twice.

    The drawing is mirrored where a picture is larger than it.
    """
    rng = np.random.default_rng(0)
    height, width = shape
    drawn = draw_surface(material, rng, min(512, max(64, *shape)))
    missing = [(0, max(0, side - drawn_side)) for side, drawn_side in zip(shape, drawn.shape[:2], strict=True)]
    write_image(folder / "drawn.png", np.pad(drawn, [*missing, (0, 0)], mode="symmetric")[:height, :width])
    across = min(DEFECT, min(shape) // 2)
    for number in range(MASKS):
        write_mask(folder / f"mask-{number}.png", blob(rng, shape, across))
    for number in range(count):
        (folder / f"normal-{number}.png").hardlink_to(folder / "drawn.png")
    return [Pair(i, folder / f"normal-{i}.png", folder / f"mask-{i % MASKS}.png", 0, i) for i in range(count)]
