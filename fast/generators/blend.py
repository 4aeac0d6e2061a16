"""What the methods that paste into a normal picture share: the blend, the given mask, the rules of redrawing."""

from collections.abc import Callable, Sequence

import numpy as np

from ldm.errors import UserError

ImageMask = tuple[np.ndarray, np.ndarray]  # image (H,W,3) uint8, mask (H,W) uint8 in {0,1}
PAIRS, MASKS = 20, 1000  # draws at most: of a pair that changes too little, of a mask that is empty


def blend(image: np.ndarray, other: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """Lay `other` over `image` where `mask` is nonzero: (1 - opacity) image + opacity other, rounded once.

    `image` and `other` are (H,W,3) uint8, `mask` is (H,W), and `opacity` in [0, 1] is the share of `other`. (RealNet's
    q is that share too, DRAEM's and GLASS's beta is the share of `image`.) Outside the mask every byte is `image`'s.
    """
    inside = np.asarray(mask) != 0
    mixed = image.copy()
    mixed[inside] = np.rint((1 - opacity) * image[inside] + opacity * other[inside]).astype(np.uint8)
    return mixed


def given_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A mask that the caller gave, as (H,W) uint8 in {0,1}.

    Raises:
        UserError: when it is empty or not of the image's size.
    """
    mask = np.asarray(mask)
    if mask.shape != image.shape[:2]:
        raise UserError(f"mask of shape {mask.shape} for an image of {image.shape[:2]}; give both the same size")
    if not mask.any():
        raise UserError("mask is empty: it marks no pixel to change; give another one")
    return (mask != 0).astype(np.uint8)


def drawn_mask(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """The first mask of `draw` that is not empty.

    Raises:
        UserError: when `MASKS` draws in a row are empty.
    """
    for _ in range(MASKS):
        mask = draw()
        if mask.any():
            return mask
    raise UserError(f"{MASKS} drawn masks in a row mark no pixel: image or foreground is too small; give a mask")


def change(image: np.ndarray, pair: ImageMask) -> float:
    """Mean absolute difference inside the mask between a pair's image and the one it was made of, in grey levels."""
    inside = pair[1] != 0
    return float(np.abs(pair[0][inside].astype(np.float64) - image[inside]).mean())


def changed_pair(draw: Callable[[], ImageMask], image: np.ndarray, least: float) -> ImageMask:
    """The first pair of `draw` whose `change` is `least` or more.

    If `PAIRS` draws stay below that, it is the one that changes most.
    """
    best = draw()
    most = change(image, best)
    for _ in range(PAIRS - 1):
        if most >= least:
            break
        pair = draw()
        size = change(image, pair)
        if size > most:
            best, most = pair, size
    return best


def check_range(name: str, values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Check an option that is a range: two numbers, the smaller first, within [low, high].

    Raises:
        UserError: when `values` are no such range.
    """
    first, last = (float(v) for v in values) if len(values) == 2 else (1.0, 0.0)
    if not low <= first <= last <= high:
        raise UserError(f"{name}={list(values)} is no range; give two numbers in order within [{low:g}, {high:g}]")
    return first, last


def check_change(least: float) -> float:
    """Check the option `min_change`, in grey levels.

    Raises:
        UserError: when it lies outside 0..255.
    """
    if not 0 <= least <= 255:
        raise UserError(f"min_change={least} is out of range; give grey levels from 0 (as published) to 255")
    return float(least)
