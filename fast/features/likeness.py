"""Whether a defect that somebody made looks like the real ones of its type."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np

from fast.data.images import read_image
from fast.data.index import Sample
from fast.data.samples import read_sample
from fast.features.nearest import Defect, RealDefects, describe
from fast.features.store import FeatureStore
from ldm.errors import UserError
from ldm.rng import seed_of

LOOKED_AT = 48  # real defects of a type; more tell nothing new and take their time
MOVED = 16  # times that a real defect of a type is set into the picture of another part, to say what is near
TRIES = 64  # of a defect and a picture for that: the two may be of one part
LEAST_UNIT = 1e-6  # what is near, where real defects are copies of each other

# Sets a real defect of a type into a picture (H,W,3): the picture, the mask (H,W), the file that the defect is from.
Move = Callable[[np.ndarray, str, np.random.Generator], tuple[np.ndarray, np.ndarray, Path]]


class Likeness:
    """How far made defects are from the real ones, in the features of the shipped encoder.

    A real defect on the ground of another part, at another size, is what a made one can be at best. A distance of 1 is
    as far as such moved defects are, in the median, from the real ones of parts that are not their own. Everything is
    looked at when somebody first asks, and several threads may ask.

    Args:
        real: the real defects. Their masks must not be empty.
        move: sets a real defect of a type into another picture, see `Move`.

    Raises:
        UserError: when somebody asks and a real defect's files cannot be read.
    """

    def __init__(self, real: Sequence[Sample], move: Move):
        by_type: dict[str, list[Sample]] = {}
        for sample in real:
            by_type.setdefault(f"{sample.category}/{sample.anomaly}", []).append(sample)
        self.real = {kind: _evenly(found, LOOKED_AT) for kind, found in by_type.items()}
        self.move = move
        self._groups = {sample.image: sample.group for sample in real}
        self._units: dict[str, float | None] = {}
        self._store, self._lock = FeatureStore(memory=0), Lock()

    def distance(self, kind: str, image: np.ndarray, mask: np.ndarray) -> float | None:
        """Of the defect in `mask` (H,W), nonzero = defect, of an image uint8 (H,W,3) from the real ones of its type
        "category/anomaly". None for a type that has real defects of one part alone, or none."""
        with self._lock:
            if kind not in self._units:
                self._units[kind] = self._unit(kind)
            unit = self._units[kind]
        return None if unit is None else self._apart(kind, image, mask) / unit

    def _apart(self, kind: str, image: np.ndarray, mask: np.ndarray, without: str = "") -> float:
        found = self._known.distance(kind, describe(self._store, image, mask), without)
        assert found is not None
        return found[0]

    def settings(self) -> dict[str, str]:
        """What decides a distance beside the real defects' files and `move`."""
        parts = [[kind, [sample.group for sample in found]] for kind, found in sorted(self.real.items())]
        return {"encoder": self._store.mark, "parts": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}

    def _unit(self, kind: str) -> float | None:
        """How far moved real defects of a type are from the real ones of other parts."""
        own = self.real.get(kind, [])
        if len({sample.group for sample in own}) < 2:
            return None
        apart: list[float] = []
        for number in range(TRIES):
            ground = own[number * max(1, len(own) // MOVED) % len(own)]
            try:
                made, mask, source = self.move(
                    read_image(ground.image), kind, np.random.default_rng(seed_of(0, 31, number))
                )
            except UserError:  # it finds no place there
                continue
            if self._groups[source] != ground.group:
                apart.append(self._apart(kind, made, mask, without=self._groups[source]))
            if len(apart) == MOVED:
                break
        return max(float(np.median(apart)), LEAST_UNIT) if apart else None

    @cached_property
    def _known(self) -> RealDefects:
        defects = []
        for kind, samples in self.real.items():
            for sample in samples:
                image, mask = read_sample(sample)
                if mask.any():
                    described = describe(self._store, image, mask)
                    defects.append(Defect(kind, sample.image.name, sample.group, described))
        return RealDefects(defects)


def _evenly(found: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of them at most, spread evenly over the list."""
    if len(found) <= count:
        return list(found)
    return [found[i * len(found) // count] for i in range(count)]
