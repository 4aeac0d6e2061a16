"""A small set of image-mask pairs whose masks are hard to hold: what format checks are done on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from fast.data.formats.outlines import parts
from fast.data.images import read_mask, write_image, write_mask

# What a client read: by image name the type, and masks of its instances or, where the format has none, the whole mask.
Seen = dict[str, tuple[str, list[np.ndarray]]]
TYPES = ("crack", "hole")
SIZE = (61, 90)


def hard_masks() -> list[np.ndarray]:
    """Rings, islands, parts that touch with a side or a corner, hairlines, single pixels, borders, dust."""
    rng, blank = np.random.default_rng(0), np.zeros(SIZE, np.uint8)
    masks = [blank.copy() for _ in range(8)]
    cv2.circle(masks[0], (40, 30), 20, 1, -1)
    cv2.circle(masks[0], (40, 30), 12, 0, -1)  # a ring
    cv2.circle(masks[0], (40, 30), 5, 1, -1)  # with an island
    masks[1][10:40, 10:30], masks[1][20:50, 30:60] = 1, 1  # two squares that touch with a side: one instance
    masks[1][15:20, 15:20], masks[1][30:33, 40:44] = 0, 0  # and two holes
    masks[2][10:20, 10:20], masks[2][20:30, 20:30] = 1, 1  # that touch with a corner: one instance
    masks[2][40:50, 10:20], masks[2][40:50, 21:30] = 1, 1  # that do not touch
    cv2.line(masks[3], (3, 5), (80, 50), 1)
    masks[3][60, :], masks[3][:, 89] = 1, 1  # at the border
    masks[4][7, 9], masks[4][30, 40:42], masks[4][50:52, 70] = 1, 1, 1
    masks[5][:] = rng.random(blank.shape) < 0.35
    masks[6][:] = cv2.GaussianBlur(rng.random(blank.shape), (0, 0), 2) > 0.52
    masks[7][:] = 1
    masks[7][1, 1], masks[7][30:32, 88] = 0, 0
    return masks


def make_run(folder: Path) -> Path:
    """A folder as generate_with_mask.py leaves it."""
    rng, lines = np.random.default_rng(1), []
    normal = folder.parent / "normal" / "0.png"
    write_image(normal, rng.integers(0, 255, (*SIZE, 3), np.uint8))
    for i, mask in enumerate(hard_masks()):
        write_image(folder / f"image/{i:06d}.png", rng.integers(0, 255, (*mask.shape, 3), np.uint8))
        write_mask(folder / f"mask/{i:06d}.png", mask)
        row = {"index": i, "image": f"image/{i:06d}.png", "mask": f"mask/{i:06d}.png", "normal_source": str(normal),
               "type": f"part/{TYPES[i % 2]}", "pair_seed": i}  # fmt: skip
        lines.append(json.dumps(row) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def truth(run: Path) -> Seen:
    found: Seen = {}
    for i, path in enumerate(sorted((run / "mask").iterdir())):
        mask = read_mask(path)
        whole = []
        for box, part in parts(mask):
            whole.append(np.zeros_like(mask))
            whole[-1][box] = part
        found[path.stem] = TYPES[i % 2], whole
    return found
