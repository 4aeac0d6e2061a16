"""Pairs whose mask is what really changed; those where next to nothing did are made again."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from fast.data.images import read_image, resize_image
from fast.masks.changed import MARGIN, NEARLY, changed_mask
from fast.runtime.counts import number_of
from fast.synthesis.maker import Maker
from fast.synthesis.pair import Pair, SynthesizedSample
from ldm.rng import seed_of

TOGETHER = 256  # pairs that are all done before the next are begun
TRIES = 4  # of a pair, the first included
UNCHANGED = "next to nothing changed"  # why a pair is rejected


class HonestMaker:
    """`maker`, but each pair's mask is `changed_mask` of the one that it has.

    A pair with less than `NEARLY` of that is made again, with a seed derived from its own and the number of
    the try; after `TRIES` it is given out as rejected. `composite`: nothing outside the asked mask changes; else a
    change within `MARGIN` pixels of it counts too.
    """

    def __init__(self, maker: Maker, composite: bool):
        self.maker, self.margin, self.stopped = maker, 0 if composite else MARGIN, False

    @property
    def size(self) -> int | None:
        return self.maker.size

    def prompt(self, type_index: int) -> str:
        return self.maker.prompt(type_index)

    def settings(self) -> dict[str, Any]:
        return {**self.maker.settings(), "honest_masks": True}

    def stop(self) -> None:
        self.stopped = True
        self.maker.stop()

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        """As the maker's, which is called once for each try of `TOGETHER` pairs; not in the order of the pairs."""
        self.stopped, pairs = False, iter(pairs)
        while not self.stopped and (some := list(islice(pairs, TOGETHER))):
            yield from self._make(some, in_flight)

    def _make(self, pairs: Sequence[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        left = {pair.index: pair for pair in pairs}
        for number in range(TRIES):
            again = [p if number == 0 else replace(p, seed=seed_of(p.seed, 5, number)) for p in left.values()]
            for made in self.maker.make(iter(again), in_flight):
                honest = self._honest(made, number + 1)
                if not honest.rejected or number == TRIES - 1:
                    del left[made.pair.index]
                    yield honest
            if self.stopped or not left:
                return

    def _honest(self, made: SynthesizedSample, tries: int) -> SynthesizedSample:
        if made.pair.counterfeit or not made.mask.any():
            return made  # no change was asked for
        found = np.zeros_like(made.mask)
        rows, columns = made.shown
        image, marked = made.image[rows, columns], made.mask[rows, columns]
        margin = self.margin if made.asked is None else 0  # the soft edge around is changed, and not marked
        found[rows, columns] = changed_mask(self._normal(made, image.shape), image, marked, margin)
        share = float(found.sum()) / int(made.mask.sum())
        origin = {**made.origin, "honest": {"share": round(share, 4), "tries": tries}}
        asked = made.mask if made.asked is None else made.asked
        return replace(made, mask=found, asked=asked, origin=origin, rejected=UNCHANGED if share < NEARLY else "")

    def _normal(self, made: SynthesizedSample, shape: tuple[int, ...]) -> np.ndarray:
        """The normal image within the windows; what the pair carries of it is made small where it is large."""
        if made.normal.shape == shape:
            return made.normal
        assert made.pair.normal is not None
        normal = read_image(made.pair.normal)
        return (resize_image(normal, self.size) if self.size else normal)[made.shown]


def made_again(rows: Sequence[dict[str, Any]], packed: bool = False) -> str:
    """What to tell of the pairs with these records; empty where each was made once. `packed`: into shards."""
    again = sum(row.get("honest", {}).get("tries", 1) > 1 for row in rows)
    unchanged = sum(row.get("rejected") == UNCHANGED for row in rows)
    where = "such pairs have a record and no picture" if packed else "such pairs lie in rejected/"
    left = f"; of {unchanged} nothing is to be seen after {TRIES} tries: {where}" if unchanged else ""
    made = number_of(again, "pair was", "pairs were")
    return f"{made} made again, for next to nothing had changed{left}" if again else ""
