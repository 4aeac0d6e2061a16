"""Large pictures for the methods that take whole ones: they see windows, so that memory does not grow with the picture.

A method holds some fifty bytes for each pixel that it sees, in 64-bit numbers for the greater part; of a picture that
it does not see, three for the image and one for the mask.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

import numpy as np
import torch
from PIL import Image

from fast.generators.blend import ImageMask
from fast.training.memory import available_bytes
from fast.windows.regions import Region, cut, paste, plan

LARGE = 4096 * 4096  # pixels; a picture of more is made in windows
SIDE = 2048  # pixels, of a window for a mask of the method's own, and at most of one around a given mask
MARGIN, LEAST = 64, 512  # pixels: context around a given mask, and the least side of a window
PER_PIXEL = 16  # bytes that a picture under way takes: read, changed, packed for its file

Method = Callable[[np.ndarray, np.ndarray | None, np.random.Generator], ImageMask]


def is_large(image: np.ndarray) -> bool:
    """Whether a picture (H,W,3) is made in windows."""
    return image.shape[0] * image.shape[1] > LARGE


def in_windows(make: Method, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> ImageMask:
    """`make(image, mask, rng)` for a large picture: in one window of `SIDE` anywhere, for a mask of the method's own;
    in windows around a given mask (H,W), nonzero = defect. The picture (H,W,3) is changed in place and returned."""
    if mask is None:
        top, left = (int(rng.integers(max(1, length - SIDE + 1))) for length in image.shape[:2])
        window = slice(top, top + SIDE), slice(left, left + SIDE)
        made, own = make(image[window].copy(), None, rng)
        image[window] = made
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[window] = own
        return image, mask
    for region in _tiles(plan(mask, stride=1, margin=MARGIN, least=LEAST)):
        made, own = make(cut(image, region), region.mask, rng)
        paste(image, made, Region(region.top, region.left, region.height, region.width, own))
    return image, (mask != 0).astype(np.uint8)


def _tiles(regions: list[Region]) -> Iterator[Region]:
    """The regions, those with a side above `SIDE` in pieces of it that have a defect in them."""
    for r in regions:
        for top in range(0, r.height, SIDE):
            for left in range(0, r.width, SIDE):
                part = r.mask[top : top + SIDE, left : left + SIDE]
                if part.any():
                    yield Region(r.top + top, r.left + left, part.shape[0], part.shape[1], part)


class MemoryBudget:
    """Lets pictures through as long as the memory that they need together is there; one always passes.

    `limit`: in bytes, None for half of what this machine has to spare.
    """

    def __init__(self, limit: int | None = None):
        available = available_bytes(torch.device("cpu"))
        self.limit = limit if limit is not None else None if available is None else available // 2
        self._used = 0
        self._freed = Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes may be used, and use them within."""
        with self._freed:
            self._freed.wait_for(lambda: self.limit is None or not self._used or self._used + size <= self.limit)
            self._used += size
        try:
            yield
        finally:
            with self._freed:
                self._used -= size
                self._freed.notify_all()


def bytes_of(path: Path | None) -> int:
    """What a picture will take while it is under way, by its header; 0 where that cannot be told."""
    try:
        with Image.open(path) as image:  # type: ignore[arg-type]
            return image.width * image.height * PER_PIXEL
    except (OSError, ValueError, AttributeError, SyntaxError, Image.DecompressionBombError):
        return 0  # reading it will say what is wrong
