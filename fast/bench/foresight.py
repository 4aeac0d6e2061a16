"""What a run of `--auto` will take, from a few measured steps of it, before any of it is begun."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fast.bench.nested import Sides
from fast.bench.rows import Made, Row, generator_of, masks_of, one_pair
from fast.bench.trial import NetworkJudge
from fast.data.decode import image_size
from fast.data.images import encoded
from fast.data.index import Sample
from fast.segmentation.data import from_samples
from fast.segmentation.export import Described, export
from fast.segmentation.quick import QuickCosts, QuickJudge
from ldm.errors import UserError

LOOKED_AT = 4  # images that are measured on
STEPS = 3  # of the final training that are measured, the first not counted
LEAST_STEPS = 100  # of the final training, below which it is not worth its name
SLACK = 1.25  # of the minutes that are advised: what was measured varies


@dataclass
class Budget:
    """Seconds of the clock. `clock`: reads it."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.clock()

    @property
    def left(self) -> float:
        return self.seconds - (self.clock() - self.start)


@dataclass(frozen=True)
class Costs:
    """Seconds, measured: `quick` of the quick judge; `start`, `step` and `image` of the final segmenter's beginning,
    training step and answer; `export` of writing it; `fit` of what a method learns from a real defect, `pair` of making
    an image-mask pair, `writing` of a pair as files."""

    quick: QuickCosts
    start: float
    step: float
    image: float
    export: float
    fit: float = 0.0
    pair: float = 0.0
    writing: float = 0.0


def looked_at(samples: Sequence[Sample]) -> list[Sample]:
    """`LOOKED_AT` of them, or all where there are fewer: the middle ones of as many groups by the size of the image, so
    that their mean size is about that of all. UserError for a file that is no image."""
    by_size = sorted(samples, key=lambda sample: math.prod(image_size(sample.image)))
    count = min(LOOKED_AT, len(by_size))
    return [by_size[(2 * k + 1) * len(by_size) // (2 * count)] for k in range(count)]


def measure(
    judge: QuickJudge, final: NetworkJudge, described: Described, samples: Sequence[Sample],
    row: Row | None, sides: Sides,
) -> Costs:  # fmt: skip
    """Do a little of each on a few `samples` (`looked_at`), export the network, and make pairs by `row` on the normal
    images of `sides`. `final`: how it is trained and tested; nothing of it is changed. Raises `UserError`."""
    few = from_samples(samples)
    quick = judge.costs(few)
    began, ends = time.monotonic(), list[float]()
    training = {**final.training, "steps": STEPS, "minutes": None}
    short = replace(final, training=training, progress=lambda *_: ends.append(time.monotonic()))
    network = short.fit(few)
    step = (ends[-1] - ends[0]) / (len(ends) - 1)
    tested = time.monotonic()
    short.test(network, few)
    written = time.monotonic()
    with TemporaryDirectory() as folder:
        export(network, Path(folder), described)
    exported = time.monotonic() - written
    making = (0.0, 0.0, 0.0) if row is None else _making(row, sides, samples)
    return Costs(quick, max(0.0, ends[0] - began - step), step, (written - tested) / len(few), exported, *making)


def _making(row: Row, sides: Sides, samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Seconds of `Costs.fit`, `pair` and `writing` by a row that learns from `samples` alone. A pair that finds no
    place takes its time too."""
    clock, normals = time.monotonic, [s.image for s in sides.index.normals]
    start = clock()
    generator = generator_of(row, sides, samples, "0")
    fitted, found = clock(), list[Made]()
    for number, sample in enumerate(samples):
        kind, normal = f"{sample.category}/{sample.anomaly}", normals[number * len(normals) // len(samples)]
        masks = None if generator.own_masks else masks_of(row, kind, samples)
        with suppress(UserError):
            found.append(one_pair(generator, normal, kind, np.random.default_rng(number), masks))
    made = clock()
    for pair in found:
        image, mask = pair.sample.read()
        encoded(image), encoded(mask)
    return (fitted - start) / len(samples), (made - fitted) / len(samples), (clock() - made) / max(1, len(found))


@dataclass(frozen=True)
class Foreseen:
    """What the parts of a run will take, in seconds.

    Args:
        alone: a trial of real defects alone on a nested split.
        beside: what pairs add to a trial, the making of them among it.
        delivered: making and writing the pairs that are delivered.
        least: the final segmenter with the fewest steps, its test and export among it.
        full: the same with all steps that are asked for.
        ending: that test and export alone.
        done: trials of the first split that an earlier run has left, 0 to 2.
        normals: looking at the normal images, which the first trial does for all.
    """

    alone: float
    beside: float
    delivered: float
    least: float
    full: float
    ending: float
    done: int = 0
    normals: float = 0.0

    @property
    def first(self) -> float:
        """Of the first nested split: real defects alone, and one candidate."""
        return (self.normals + self.alone if self.done < 1 else 0.0) + (
            self.alone + self.beside if self.done < 2 else 0.0
        )

    @property
    def smallest(self) -> float:
        """Of the smallest run: one nested split, one candidate, its pairs, the final segmenter."""
        return self.first + self.delivered + self.least

    @property
    def choosing(self) -> float:
        """Of the smallest run from which anything can be chosen: the same on two nested splits."""
        return self.smallest + 2 * self.alone + self.beside

    def reserve(self, seconds: float) -> float:
        """How many of the `seconds` that are left are kept for the final segmenter: half of them, fewer if it needs no
        more or the first split takes them."""
        return min(self.full, max(self.least, min(seconds / 2, seconds - self.first - self.delivered)))


def foresee(costs: Costs, judge: QuickJudge, real: int, inner_test: int, pairs: int, test: int, steps: int,
            done: int = 0, normals: int = 0) -> Foreseen:  # fmt: skip
    """`real`, `inner_test`: images of the two sides of a nested split; `normals` beside the real ones; `pairs` of a
    candidate; `test`: images of the test side; `steps` of the final training, at most."""
    alone = judge.seconds(costs.quick, real, 0, inner_test)
    making = costs.fit * real + costs.pair * pairs
    beside = judge.seconds(costs.quick, real, pairs, inner_test) - alone + making
    looking = judge.seconds(costs.quick, real, normals, inner_test) - alone
    ending = costs.image * test + costs.export
    least, full = (costs.start + costs.step * n + ending for n in (min(steps, LEAST_STEPS), steps))
    delivered = making + costs.writing * pairs
    return Foreseen(alone, beside, delivered, least, full, ending, done, looking)


def advised(spent: float, seconds: float) -> int:
    """Whole minutes to give for a run of so many seconds after those that were `spent`."""
    return math.ceil((spent + SLACK * seconds) / 60)


def in_minutes(seconds: float) -> str:
    """1.5 minutes."""
    return f"{max(0.0, seconds) / 60:.1f} minutes"
