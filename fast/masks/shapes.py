"""Masks of procedural shapes: Perlin noise, scratches, blobs, cracks and pits. Sizes go with the picture."""

from collections.abc import Callable

import cv2
import numpy as np

from fast.masks.perlin import perlin_mask
from fast.procedural.noise import line_noise
from fast.procedural.shapes import Curve, bezier, contour, dense, jagged_walk
from ldm.errors import UserError

REFERENCE = 256  # side in px of the picture that sizes below are given for
SUBPIXEL = 4  # binary digits of a pixel's fraction in OpenCV's drawing
SMALLEST = 8
Shape = tuple[int, int]


def _scale(shape: Shape) -> float:
    return min(shape) / REFERENCE


def _spot(shape: Shape, rng: np.random.Generator, margin: float = 0.12) -> np.ndarray:
    """A point (x, y) away from the border."""
    return np.array([shape[1], shape[0]]) * rng.uniform(margin, 1 - margin, 2)


def _draw(mask: np.ndarray, curve: Curve) -> None:
    """Draw a curve of varying half-width (px); at its thinnest it is a line of one pixel without gaps."""
    fixed = np.rint(curve.points * (1 << SUBPIXEL)).astype(np.int32)
    cv2.polylines(mask, [fixed], False, 1, shift=SUBPIXEL)
    for (x, y), width in zip(fixed.tolist(), curve.width.tolist(), strict=True):
        if width > 0.7:
            cv2.circle(mask, (x, y), round(width * (1 << SUBPIXEL)), 1, -1, shift=SUBPIXEL)


def scratch(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """One to three long, slightly bent lines that run together and thin out at their ends: (H,W) uint8 in {0,1}."""
    s, side, mask = _scale(shape), min(shape), np.zeros(shape, np.uint8)
    length, heading, centre = side * rng.uniform(0.2, 0.8), rng.uniform(0, np.pi), _spot(shape, rng, 0.25)
    forward = np.array([np.cos(heading), np.sin(heading)])
    normal = np.array([-forward[1], forward[0]])
    bend, heavy = rng.normal(0, 0.1, 2) * length, s * rng.uniform(0.6, 2.2)
    for i in range(int(rng.choice([1, 1, 2, 3]))):
        part, aside = (1.0, 0.0) if i == 0 else (rng.uniform(0.3, 0.8), rng.normal(0, 7 * s))
        slide = rng.uniform(-0.5, 0.5) * (1 - part) * length
        middle = centre + normal * aside + forward * slide
        ends = np.outer([-0.5, -0.17, 0.17, 0.5], forward * length * part)
        points, share = dense(bezier(middle + ends + np.outer([0, bend[0], bend[1], 0], normal * part)))
        taper = np.clip(np.minimum(share, 1 - share) * 8, 0, 1) ** 0.7
        press = np.clip(0.9 + 0.3 * line_noise(rng, len(points), 40 * s), 0.3, 1.4)
        _draw(mask, Curve(points, heavy * taper * press, taper))
    return mask


def crack(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """A jagged line that branches and tapers: (H,W) uint8 in {0,1}."""
    s, mask = _scale(shape), np.zeros(shape, np.uint8)
    length, heading = min(shape) * rng.uniform(0.2, 0.75), float(rng.uniform(0, 2 * np.pi))
    start = _spot(shape, rng, 0.3) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    queue, drawn = [(start, heading, length, s * rng.uniform(0.7, 1.8), 0)], 0
    while queue and drawn < 12:
        start, heading, length, heavy, level = queue.pop(0)
        points, share = dense(jagged_walk(rng, start, heading, length, 4.5 * s, 0.5))
        ends = np.clip((1 - share) * 3, 0, 1) * (np.clip(share * 8 + 0.3, 0, 1) if level == 0 else 1)
        jag = np.clip(1 + 0.35 * line_noise(rng, len(points), 7 * s), 0.4, 1.8)
        _draw(mask, Curve(points, heavy * ends**0.8 * jag, ends))
        drawn += 1
        for _ in range(rng.poisson((2.2, 0.8)[level]) if level < 2 else 0):
            k = int(rng.uniform(0.12, 0.85) * len(points))
            turned = heading + rng.choice([-1, 1]) * rng.uniform(0.45, 1.1)
            queue.append((points[k], turned, length * rng.uniform(0.2, 0.5), heavy * 0.6, level + 1))
    return mask


def _outlined(
    mask: np.ndarray, rng: np.random.Generator, at: np.ndarray, radius: float, stretch: float, rough: float
) -> None:
    """Draw an irregular closed shape of about `radius` px around a point (x, y) of the mask."""
    reach = int(np.ceil(2.2 * radius * np.sqrt(stretch))) + 2
    x, y = (int(v) for v in at)
    top, left = max(0, y - reach), max(0, x - reach)
    piece = mask[top : y + reach + 1, left : x + reach + 1]
    around = np.array([x - left, y - top])
    turn = rng.uniform(0, np.pi)
    field = contour(rng, (piece.shape[0], piece.shape[1]), around, radius, rough, stretch, turn)
    piece[field <= 0] = 1
    piece[around[1], around[0]] = 1


def blob(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """A smooth irregular patch, 3 to 16 % of the shorter side in radius: (H,W) uint8 in {0,1}."""
    mask = np.zeros(shape, np.uint8)
    radius = min(shape) * float(np.exp(rng.uniform(np.log(0.03), np.log(0.16))))
    _outlined(mask, rng, _spot(shape, rng, 0.18), radius, rng.uniform(1, 2.2), rng.uniform(0.08, 0.25))
    return mask


def spots(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Two to twenty pits near one another, each 0.5 to 3 % of the shorter side in radius: (H,W) uint8 in {0,1}."""
    mask, side = np.zeros(shape, np.uint8), min(shape)
    count = int(np.exp(rng.uniform(np.log(2), np.log(21))))
    centre, spread, largest = _spot(shape, rng, 0.2), side * rng.uniform(0.06, 0.18), side * rng.uniform(0.012, 0.03)
    for _ in range(count):
        at = np.clip(centre + rng.normal(0, spread, 2), 0, np.array([shape[1] - 1, shape[0] - 1]))
        _outlined(mask, rng, at, max(0.8, largest * rng.uniform(0.4, 1)), rng.uniform(1, 1.4), 0.15)
    return mask


def perlin(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Thresholded Perlin noise (`perlin_mask`), drawn again while it is empty: (H,W) uint8 in {0,1}."""
    mask = perlin_mask(shape, rng)
    while not mask.any():
        mask = perlin_mask(shape, rng)
    return mask


SHAPES: dict[str, Callable[[Shape, np.random.Generator], np.ndarray]] = {
    "perlin": perlin,
    "scratch": scratch,
    "blob": blob,
    "crack": crack,
    "spots": spots,
}


def drawn(kind: str, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """A shape by name, or `mixed`, any of them alike: (H,W) uint8 in {0,1}, never empty. Raises `UserError`."""
    if kind != "mixed" and kind not in SHAPES:
        raise UserError(f"shape {kind!r} is unknown; use one of {', '.join(SHAPES)} or mixed")
    if min(shape) < SMALLEST:
        raise UserError(f"a mask of {shape[1]} x {shape[0]} pixels is too small to draw in; {SMALLEST} is the least")
    chosen = str(rng.choice(list(SHAPES))) if kind == "mixed" else kind
    return SHAPES[chosen](shape, rng)
