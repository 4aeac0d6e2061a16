"""Pairs of a method that takes whole pictures: several at a time, each by its own seed."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch

from fast.data.images import read_image, resize_image, resize_mask
from fast.generators.base import Generator as Method
from fast.generators.base import MadePair, Placing
from fast.generators.large import MemoryBudget, bytes_of, in_windows, is_large
from fast.runtime.workers import overlapped, own_workers
from fast.synthesis.maker import MaskOf
from fast.synthesis.pair import Pair, SynthesizedSample
from fast.synthesis.triptych import panel


class GeneratorMaker:
    """`make` for any `Generator`: a pair's bytes depend on its files, its seed and the method's settings alone.

    `size`: side in pixels of the square that pictures are resized to; None keeps their own. `mask_of(image, pair)`: the
    mask for a picture, `region_of(image, pair)`: where the defects of a method that places them may lie; None leaves it
    to the method. `types`: the names of the pairs' type numbers.
    """

    def __init__(
        self,
        method: Method,
        types: list[str],
        size: int | None = None,
        mask_of: MaskOf | None = None,
        region_of: MaskOf | None = None,
    ):
        self.method, self.types, self.size, self.mask_of, self.region_of = method, types, size, mask_of, region_of
        self.stopping = False
        self.budget = MemoryBudget()

    def prompt(self, type_index: int) -> str:
        """No words take part."""
        return ""

    def settings(self) -> dict[str, Any]:
        """What decides the bytes of a pair."""
        return {"size": self.size, "options": self.method.settings()}

    def stop(self) -> None:
        """End `make` after the pairs under way."""
        self.stopping = True

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        """Make pairs, several at a time; the order of the results is not that of the pairs. Ends early after `stop`.
        Raises `UserError` for a picture that cannot be read or that the method refuses."""
        workers = own_workers(in_flight)
        self.stopping = False
        with _single_thread():
            yield from overlapped(self._one, self._until_stopped(pairs), workers, workers + 1)

    def _until_stopped(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        for pair in pairs:
            if self.stopping:
                return
            yield pair

    def _known(self, key: str) -> str | None:
        """A pair's type where the method tells types or parts apart; None where nothing says what the picture is of."""
        if self.method.words:
            return key
        tells_apart = bool(self.method.types or self.method.categories)
        return key if tells_apart and not key.startswith("/") else None

    def _one(self, pair: Pair) -> SynthesizedSample:
        with self.budget.take(bytes_of(pair.normal) if pair.normal else 0):
            return self._made(pair)

    def _made(self, pair: Pair) -> SynthesizedSample:
        start, rng = time.perf_counter(), np.random.default_rng(pair.seed)
        known = self._known(self.types[pair.type_index])
        if pair.normal is None:
            normal = self.method.normal(np.random.default_rng(pair.seed), known)
        else:
            normal = read_image(pair.normal)
        if self.size and not self.method.native:
            normal = resize_image(normal, self.size)
        mask = None if self.mask_of is None else self.mask_of(normal, pair)
        before = panel(normal)
        if isinstance(self.method, Placing) and self.region_of is not None and mask is None:
            made = self.method.pair(normal, mask, rng, known, self.region_of(normal, pair))
        elif pair.normal is not None and is_large(normal) and not self.method.native:
            normal = normal if normal.flags.writeable else normal.copy()
            made = MadePair(*in_windows(partial(self.method.synthesize, anomaly=known), normal, mask, rng))
        else:
            made = self.method.pair(normal, mask, rng, known)
        if self.size and self.method.native:
            normal, made = _resized(normal, made, self.size)
            before = panel(normal)
        image = made.image
        seconds, shown = time.perf_counter() - start, (slice(0, image.shape[0]), slice(0, image.shape[1]))
        window = [(0, 0, image.shape[0], image.shape[1])]
        return SynthesizedSample(
            before, image, made.mask, shown, made.filled, pair=pair, windows=window, seconds=seconds, origin=made.origin
        )


def _resized(normal: np.ndarray, made: MadePair, size: int) -> tuple[np.ndarray, MadePair]:
    """A normal and its finished pair as squares of side `size`; outside what is filled every byte is still the
    normal's."""
    normal, mask = resize_image(normal, size), resize_mask(made.mask, size)
    filled = None if made.filled is None else resize_mask(made.filled, size)
    within = mask if filled is None else filled
    image = np.where(within[..., None] > 0, resize_image(made.image, size), normal)
    return normal, replace(made, image=image, mask=mask & within, filled=filled)


@contextmanager
def _single_thread() -> Iterator[None]:
    """torch and OpenCV with one thread: rounding depends on their number, and pictures share the cores."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
