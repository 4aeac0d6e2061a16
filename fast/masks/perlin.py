"""Masks of thresholded Perlin noise, as DRAEM, GLASS and RealNet draw them."""

import cv2
import numpy as np

THRESHOLD = 0.5
EXPONENTS = 6  # lattice cells per axis: 2 ** {0, ..., 5}


def perlin_noise(shape: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One octave of Perlin noise (H,W), float64, about [-1, 1], on a lattice of `cells` per axis; any size.

    The corners' dot products blended with the quintic fade, times sqrt(2).
    """
    angle = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradient = np.stack([np.sin(angle), np.cos(angle)])
    y = np.arange(shape[0]) * cells[0] / shape[0]
    x = np.arange(shape[1]) * cells[1] / shape[1]
    row, column = y.astype(int), x.astype(int)
    u, v = (y - row)[:, None], (x - column)[None, :]

    def corner(down: int, right: int) -> np.ndarray:
        vertical, horizontal = gradient[:, row + down][:, :, column + right]
        return vertical * (u - down) + horizontal * (v - right)

    def fade(t: np.ndarray) -> np.ndarray:
        return t**3 * (6 * t**2 - 15 * t + 10)

    top = corner(0, 0) + fade(v) * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade(v) * (corner(1, 1) - corner(1, 0))
    return np.sqrt(2) * (top + fade(u) * (bottom - top))


def perlin_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A mask (H,W) uint8 in {0,1}; some draws are empty (4.6 % at 256 pixels), which the caller has to expect.

    Noise on a lattice of 1, 2, ..., 32 cells per axis, turned by up to a right angle either way, above 0.5.
    """
    cells = (2 ** int(rng.integers(EXPONENTS)), 2 ** int(rng.integers(EXPONENTS)))
    height, width = shape
    noise = perlin_noise(shape, cells, rng)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(-90, 90), 1)
    turned = cv2.warpAffine(noise, turn, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)
    return (turned > THRESHOLD).astype(np.uint8)
