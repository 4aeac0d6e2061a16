"""What a mask file's values look like: counts, edges, the border; and what a reading of them consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SOFT, FLAT = 0.6, 0.35  # shares of in-between pixels beside higher ones, from and up to which edges are soft or flat
TESTED = 256  # pixels from which on a photograph can be told
IGNORED = 255  # in label maps: neither defect nor background
SET = "say what the defect is with prepare_data.py --mask_values"


class Unclear(Exception):
    """A mask that can be read in two ways, or in none; the message says why, and what settles it."""


@dataclass(frozen=True)
class MaskReading:
    """`mask` (H,W) uint8 in {0,1}; `values`: those seen, and `taken`: what they were taken for, in words. `ignored`
    (H,W) bool: pixels that mean neither defect nor background, 0 in the mask; None where there are none."""

    mask: np.ndarray
    values: str
    taken: str
    ignored: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """(H,W) uint8: 0 background, 1 defect, `IGNORED` neither."""
        if self.ignored is None:
            return self.mask
        return np.where(self.ignored & (self.mask == 0), np.uint8(IGNORED), self.mask)


def soft_share(values: np.ndarray) -> float:
    """Share of the pixels between lowest and highest value that touch a higher one: edges do, labels' areas do not."""
    plain = values.astype(np.float32)
    between = (plain > plain.min()) & (plain < plain.max())
    if not between.any():
        return 0.0
    higher = cv2.dilate(plain, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) > plain
    return float(higher[between].mean())


def half(values: np.ndarray) -> int:
    top = int(values.max())
    full = 255 if top <= 255 else 65535
    return 127 * (full // 255) if top > 0.75 * full else top // 2


def refuse_photograph(values: np.ndarray, least: int = 32) -> None:
    """Raise `Unclear` for grey values, or numbers of colours, that are neither flat nor dark and bright."""
    used, counts = count(values)
    if values.size < TESTED or len(used) < least:
        return
    flat = float(np.sort(counts)[-2:].sum()) / values.size
    same = np.concatenate([(values[1:] == values[:-1]).ravel(), (values[:, 1:] == values[:, :-1]).ravel()])
    if flat < 0.4 or float(same.mean()) < 0.5 or (values.dtype != np.int32 and _is_shaded(values, float(used[-1]))):
        raise Unclear("looks like a photograph, not like a mask; give the mask, in which defects differ from the rest")


def _is_shaded(values: np.ndarray, top: float) -> bool:
    """True where much is neither dark nor bright, or where areas, away from their edges, are not bright."""
    above, below = values > 0.25 * top, values < 0.75 * top
    inner = cv2.erode(above.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return float((above & below).mean()) > 0.3 or (float(inner.mean()) > 0.02 and float(below[inner].mean()) > 0.3)


def count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur, and how often."""
    if values.dtype not in (np.uint8, np.uint16):
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.ravel())
    used = np.flatnonzero(counts)
    return used, counts[used]


def border_of(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def named(used: np.ndarray | Sequence[int], colours: bool = False) -> str:
    """Values in words, the first and the last where they are many."""
    words = [f"#{int(v):06x}" if colours else str(int(v)) for v in used]
    return ", ".join(words if len(words) <= 8 else [*words[:4], "...", words[-1]])
