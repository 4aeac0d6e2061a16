"""A piece of one picture fitted into another: levels, noise and the seam between them."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.photo import noise_of

RING = 5  # width in px of the ground around a piece by which both pictures are compared
GAP = 1  # px next to the piece that may still belong to it
DARK = 8.0  # grey levels added before ratios are taken, so that black has one
FURTHEST = 3.0  # a piece is made this many times as bright or dark at most
BLENDS = ("poisson", "feather")


def ring_of(mask: np.ndarray) -> np.ndarray:
    """The ground around a mask (h,w), nonzero = piece: bool (h,w)."""
    near, far = (
        cv2.dilate((mask != 0).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)))
        for r in (GAP, GAP + RING)
    )
    return (far > 0) & (near == 0)


def fitted(
    piece: np.ndarray,
    ground: np.ndarray,
    mask: np.ndarray,
    valid: np.ndarray,
    rng: np.random.Generator,
    how: str,
    soft: np.ndarray | None = None,
) -> np.ndarray:
    """Set a piece of one picture into another, with the light and the noise of its new ground.

    The piece's levels are multiplied by a smooth field which turns its own ground, on a ring around the mask, into the
    picture's, by a factor of 3 at most. Noise is added where the piece has less of it than the ground.

    Args:
        piece: the piece with its own ground (h,w,3) uint8.
        ground: the part of the picture where it goes (h,w,3) uint8.
        mask: (h,w), nonzero = piece.
        valid: (h,w), nonzero where `piece` is known.
        rng: draws the noise.
        how: "poisson": the field follows the ring all along, like the membrane of Perez et al. (2003), but of
            logarithms. "feather": one factor (for each colour) everywhere, and a soft edge.
        soft: the whole shape (h,w) of the piece, of which `mask` may be a part, if the piece is to give way to the
            ground over the outermost pixels of that shape. None: only "feather" has a soft edge, that of `mask`.

    Returns:
        The ground (h,w,3) uint8 with the piece in it. Outside `mask` every byte is the ground's.
    """
    inside, ring = mask != 0, ring_of(mask) & (valid != 0)
    own, other = (np.log(p.astype(np.float32) + DARK) for p in (piece, ground))
    if not ring.any():
        ring = (valid != 0) & ~inside
    change = cv2.GaussianBlur(other, (0, 0), 1.0) - cv2.GaussianBlur(own, (0, 0), 1.0)
    if ring.any():
        mean = np.median(change[ring], axis=0)
        field = _membrane(change, ring, mean) if how == "poisson" else np.broadcast_to(mean, change.shape)
    else:
        field = np.zeros_like(change)
    limit = float(np.log(FURTHEST))
    made = np.exp(own + np.clip(field, -limit, limit)) - DARK
    made = made + _missing_noise(piece, ground, ring, float(np.exp(np.mean(field[inside]))), rng)[..., None]
    share = inside.astype(np.float32)
    if soft is not None or how == "feather":
        share = _edge(mask if soft is None else soft)
    mixed = ground + share[..., None] * (made - ground)
    result = ground.copy()
    result[inside] = np.clip(np.rint(mixed[inside]), 0, 255).astype(np.uint8)
    return result


def _membrane(values: np.ndarray, known: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Values (h,w,3) that are `known` (h,w), continued smoothly everywhere: coarse averages first, finer ones where
    there is something to average."""
    weight = known.astype(np.float32)
    field = np.broadcast_to(start.astype(np.float32), values.shape)
    for sigma in (32.0, 16.0, 8.0, 4.0, 2.0):
        total = cv2.GaussianBlur(weight, (0, 0), sigma)
        mean = cv2.GaussianBlur(values * weight[..., None], (0, 0), sigma) / np.maximum(total, 1e-4)[..., None]
        sure = np.clip(total / 0.1, 0, 1)[..., None]
        field = field + (mean - field) * sure
    return np.asarray(field, np.float32)


def _missing_noise(
    piece: np.ndarray, ground: np.ndarray, ring: np.ndarray, gain: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise (h,w) in grey levels that makes the piece, `gain` times as bright as it was, as noisy as the ground."""
    white = rng.standard_normal(ring.shape).astype(np.float32)
    if ring.sum() < 16:
        return 0 * white
    own, other = (noise_of(p.astype(np.float32).mean(2), ring) for p in (piece, ground))
    return float(np.sqrt(max(other**2 - (gain * own) ** 2, 0.0))) * white


def _edge(mask: np.ndarray) -> np.ndarray:
    """Share (h,w) of the piece, rising from its edge inwards over 2 px, or less where it is thin."""
    far = cv2.distanceTransform(cv2.copyMakeBorder((mask != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE),
                                cv2.DIST_L2, 3)[1:-1, 1:-1]  # fmt: skip
    widest = cv2.dilate(far, np.ones((7, 7), np.uint8))
    return np.asarray(np.clip(far / np.clip(0.6 * widest, 1e-3, 2.5), 0, 1) * (mask != 0), np.float32)
