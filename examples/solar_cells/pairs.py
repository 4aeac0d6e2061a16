"""Training pairs: functional cells with drawn defects, and functional cells as they are."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fast.generators import create
from fast.generators.base import Generator
from fast.procedural.noise import Rng, blur
from fast.segmentation.data import SegmentationSample, from_arrays, merged
from ldm.errors import UserError
from ldm.rng import seed_of
from solar_cells.archive import Photo
from solar_cells.drawing import Cell, draw, look

GENERIC = ("crack", "burn", "stain")  # drawn by the method `procedural` as for any part
NORMAL_SHARE = 0.5
# How often a type is drawn: those that matter most, or are easiest missed, more often. Several on a cell in this order.
CHANCES = {"generic": 2, "crack": 5, "broken_fingers": 2, "burn": 1, "cut_off": 4, "dead_area": 4, "dark_cell": 2}


def channels(image: np.ndarray) -> np.ndarray:
    """What a segmenter sees of a cell, uint8 (H,W) to uint8 (H,W,3): the image; the image over its rows' own medians,
    in which busbars and the fall of light towards them are gone; and the image over its own surroundings."""
    level = image.astype(np.float32) + 1
    middle = float(np.median(level))
    rows = np.median(level, axis=1, keepdims=True)
    around = blur(level, len(image) / 20)
    seen = [level, level / rows * 150, level / (around + 0.05 * middle) * 150]
    return np.clip(np.rint(np.stack(seen, axis=2)), 0, 255).astype(np.uint8)


def pairs(photos: Sequence[Photo], count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """(image uint8 (H,W), mask uint8 (H,W) in {0,1}, type) of `count` pairs on functional cells. Raises `UserError`."""
    if not photos or not all(photo.functional for photo in photos):
        raise UserError("pairs are drawn on functional cells only; give some")
    generic = create("procedural", on_object="off", change="darker")
    names, chances = list(CHANCES), np.array(list(CHANCES.values()), float)
    found = []
    for number in range(count):
        rng = np.random.default_rng(seed_of(seed, number))
        photo = photos[int(rng.integers(len(photos)))]
        image, mask = flipped(photo.image, rng), np.zeros(photo.image.shape, np.uint8)
        cell, kinds = look(image, photo.mono), []
        chosen = rng.choice(names, size=int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])), p=chances / chances.sum())
        for name in sorted(map(str, chosen), key=names.index):
            image, drawn, kind = _drawn(image, cell, name, generic, rng)
            mask |= drawn
            kinds.append(kind)
        found.append((image, mask, "+".join(sorted(set(kinds)))))
    return found


def _drawn(
    image: np.ndarray, cell: Cell, name: str, generic: Generator, rng: Rng
) -> tuple[np.ndarray, np.ndarray, str]:
    """Image, mask and type. What cannot darken this cell any more is drawn as a crack."""
    if name == "generic":
        name = str(rng.choice(GENERIC))
        try:
            made, mask = generic.synthesize(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None, rng, name)
            return np.ascontiguousarray(made[..., 0]), mask, name
        except UserError:
            name = "crack"
    return *draw(image, cell, name, rng), name


def flipped(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Mirrored either way at random; a cell is never turned by less, as its fingers run one way."""
    image = image[:, ::-1] if rng.random() < 0.5 else image
    return np.ascontiguousarray(image[::-1] if rng.random() < 0.5 else image)


def training_set(photos: Sequence[Photo], count: int, seed: int) -> list[SegmentationSample]:
    """`count` pairs on functional cells, and the cells as they are, `NORMAL_SHARE` of what is drawn."""
    made = pairs(photos, count, seed)
    drawn = from_arrays((channels(image) for image, _, _ in made), (mask for _, mask, _ in made), "cell/defect")
    normals = from_arrays((channels(p.image) for p in photos), (None for _ in photos), "cell/good")
    return merged(drawn, [], normals, normal_share=NORMAL_SHARE)
