"""What the classifier of defect types looks at: two views around a defect; and masks filled with what is of no type."""

from __future__ import annotations

import cv2
import numpy as np

from fast.procedural.noise import Rng, blur, unit, white

# A view is stored a little larger than what the network sees, so that training can shift it.
STORED, SEEN = 112, 96
# Image pixels per pixel of the two views: how a defect is made, and how far it reaches.
SCALES = (1, 2)


def middle(mask: np.ndarray) -> np.ndarray:
    """The pixel (row, column) of a mask (H,W) that lies nearest to its centre of mass; of an empty one the centre."""
    points = np.argwhere(mask)
    if not len(points):
        return np.array(mask.shape) // 2
    return np.asarray(points[np.argmin(((points - points.mean(0)) ** 2).sum(1))])


def cut(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Views (2, STORED, STORED, 3) uint8 around the middle of the mask, inside the image where they fit.

    `image` (H,W,3) uint8, `mask` (H,W). The mask says where to look and nothing else: it is not part of the views.
    """
    point = middle(mask)
    views = []
    for scale in SCALES:
        side = STORED * scale
        at, padded = point, image
        short = np.maximum(side - np.array(image.shape[:2]), 0)
        if short.any():
            before = short // 2
            at = point + before
            edges = [*zip(before, short - before, strict=True), (0, 0)]
            padded = np.pad(image, edges, mode="symmetric")
        y, x = np.clip(at - side // 2, 0, np.array(padded.shape[:2]) - side)
        view = padded[y : y + side, x : x + side]
        views.append(view if scale == 1 else cv2.resize(view, (STORED, STORED), interpolation=cv2.INTER_AREA))
    return np.stack(views).astype(np.uint8)


def cut_all(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """`cut` of each of `images` (N,H,W,3) and `masks` (N,H,W): (N, 2, STORED, STORED, 3) uint8."""
    views = np.empty((len(images), len(SCALES), STORED, STORED, 3), np.uint8)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        views[i] = cut(image, mask)
    return views


def fill_untyped(normal: np.ndarray, mask: np.ndarray, rng: Rng) -> np.ndarray:
    """A normal image (H,W,3) uint8 with something in its mask (H,W) that has the mask's outline but is of no type:
    an even shade, clouds of one size, or both, with a hard or a soft edge."""
    h, w = mask.shape
    ground = normal.astype(np.float32)
    shaded, cloudy = [(True, False), (False, True), (True, True)][rng.integers(3)]
    tint = rng.uniform(0.7, 1.3, 3) if rng.random() < 0.5 else np.ones(3)
    shade = rng.choice([-1, 1], p=[0.7, 0.3]) * rng.uniform(8, 90) if shaded else rng.uniform(-15, 15)
    change: np.ndarray = np.broadcast_to(shade * tint, (h, w, 3)).astype(np.float32)
    if cloudy:
        clouds = unit(blur(white(rng, h, w), float(rng.uniform(0.6, 6))))
        change = change + (clouds * rng.uniform(6, 35))[..., None] * tint
    inside: np.ndarray = ground
    if mask.any() and rng.random() < 0.5:  # without the texture of the surface
        inside = np.broadcast_to(ground[mask > 0].mean(0), ground.shape)
    softened = blur(mask.astype(np.float32), float(rng.uniform(0.5, 2))) if rng.random() < 0.6 else mask
    share = (softened * (mask > 0))[..., None]
    return np.clip(np.rint(ground + share * (inside + change - ground)), 0, 255).astype(np.uint8)
