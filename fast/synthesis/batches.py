"""Pairs under way, the windows that are sampled of each, and batches of windows of one size."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from fast.synthesis.detail import faded
from fast.synthesis.options import Recipe
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.windows.regions import Region, paste, share_of
from ldm.rng import seed_of

# Windows of 256 x 256 pixels that are evaluated together; of larger ones fewer. Rounding depends on a batch's shape
# (and on the CPU on the number of threads), so the shape is fixed here and never by the user's batch size: that is
# what makes a pair's bytes its own.
WINDOWS_PER_BATCH = {"cpu": 1, "cuda": 32}
MOST_WAITING = 1 << 30  # bytes of pictures that may wait for others with windows of their size


@dataclass
class WindowedPair:
    """A pair under way: its image, or its draft, into which each window's defect is pasted once it is made. `mask`
    (H,W): where windows are sampled; `filled` (H,W): where the draft differs from the normal, if that is more."""

    pair: Pair
    image: np.ndarray
    mask: np.ndarray
    regions: list[Region]
    crops: list[np.ndarray]
    shown: tuple[slice, slice]
    normal: np.ndarray
    left: int
    seconds: float
    drafts: list[np.ndarray] | None = None
    origin: dict[str, str] = field(default_factory=dict)
    prompt_index: int | None = None
    filled: np.ndarray | None = None
    lock: Lock = field(default_factory=Lock)

    def finish(self, number: int, made: np.ndarray, seconds: float, recipe: Recipe) -> bool:
        """Paste a window, all of it or by its mask (`composite`); True if it was the last."""
        region = self.regions[number]
        if not recipe.composite:
            region = replace(region, mask=share_of(self.regions, number))
        elif recipe.blend:
            made = self._faded(number, made, recipe.blend)
        with self.lock:
            paste(self.image, made, region)
            self.left -= 1
            self.seconds += seconds
            return self.left == 0

    def _faded(self, number: int, made: np.ndarray, blend: int) -> np.ndarray:
        """The window's part inside the picture, whose edge is no border of a mask. What fades in is the change of the
        normal, or that of the draft: a draft has the border that its method gave it."""
        region, (height, width) = self.regions[number], self.image.shape[:2]
        start = self.crops if self.drafts is None or self.pair.counterfeit else self.drafts
        part = np.s_[: height - region.top, : width - region.left]
        made[part] = faded(start[number][part], made[part], region.mask[part], blend)
        return made

    @property
    def nbytes(self) -> int:
        arrays = (self.image, self.mask, self.filled, self.normal, *self.crops, *(self.drafts or ()))
        return sum(array.nbytes for array in arrays if array is not None)

    def key(self, number: int) -> Hashable:
        """What the normal image in a window is known by; None for one that came from no file."""
        region, path = self.regions[number], self.pair.normal
        return (path, region.top, region.left, region.height, region.width) if path else None

    def seed(self, number: int) -> int:
        """The first window has the pair's own seed, so that a single one is the same whatever its region is called."""
        return self.pair.seed if number == 0 else seed_of(self.pair.seed, number)

    def made(self) -> SynthesizedSample:
        windows = [(r.top, r.left, r.height, r.width) for r in self.regions]
        return SynthesizedSample(
            self.normal,
            self.image,
            self.mask,
            self.shown,
            self.filled,
            pair=self.pair,
            windows=windows,
            seconds=self.seconds,
            origin=self.origin,
            prompt_index=self.prompt_index,
        )


PairWindow = tuple[WindowedPair, int]  # a pair, and the number of one of its windows


def batches(pairs: Iterable[WindowedPair], limit: int) -> Iterator[list[PairWindow]]:
    """Windows of one size together, counterfeits apart, `batch_width` of them; fewer when too many pictures would have
    to wait. `limit`: one of `WINDOWS_PER_BATCH`."""
    waiting: dict[tuple[int, int, bool], list[PairWindow]] = defaultdict(list)
    for pair in pairs:
        for number, region in enumerate(pair.regions):
            shape = (region.height, region.width, pair.pair.counterfeit)
            waiting[shape].append((pair, number))
            if len(waiting[shape]) == batch_width(limit, region.height, region.width):
                yield waiting.pop(shape)
        while _bytes_of(waiting.values()) > MOST_WAITING:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def batch_width(limit: int, height: int, width: int) -> int:
    """How many windows of this size in pixels make a batch, where `limit` of 256 x 256 pixels do."""
    return max(1, min(limit, limit * 256 * 256 // (height * width)))


def _bytes_of(waiting: Iterable[list[PairWindow]]) -> int:
    """Memory of the pairs with windows among these, each counted once."""
    return sum({id(pair): pair.nbytes for windows in waiting for pair, _ in windows}.values())
