"""Where to look closer: the surroundings of a defect that is small in its picture."""

from __future__ import annotations

import numpy as np

LEAST = 64  # pixels of a picture that a zoom shows at least
SMALL = 0.45  # of a picture's side: a box of a defect that is larger needs no zoom
Box = tuple[int, int, int, int]  # top, left, bottom, right


def zoom_box(mask: np.ndarray, margin: float = 1.3) -> Box | None:
    """A square around a small defect: its box times `margin`, `LEAST` pixels at least, within the picture (H,W). None
    for no defect, or one that is large enough to be seen."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    box = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    size = min(max(LEAST, round(margin * box)), height, width)
    if box > SMALL * min(height, width) or size >= min(height, width):
        return None
    top = _within((rows[0] + rows[-1] + 1) / 2, size, height)
    left = _within((columns[0] + columns[-1] + 1) / 2, size, width)
    return top, left, top + size, left + size


def _within(middle: float, size: int, limit: int) -> int:
    return int(min(max(round(middle - size / 2), 0), limit - size))
