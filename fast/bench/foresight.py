"""What a run of `--auto` will take, from a few measured steps of it, before any of it is begun."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fast.bench.trial import NetworkJudge
from fast.segmentation.data import SegmentationSample
from fast.segmentation.export import Described, export
from fast.segmentation.quick import QuickJudge

LOOKED_AT = 4  # images that are measured on
STEPS = 3  # of the final training that are measured, the first not counted
LEAST_STEPS = 100  # of the final training, below which it is not worth its name
SLACK = 1.25  # of the minutes that are advised, for what was not measured: above all making the pairs


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
    """Seconds, measured: `view` of a view's features for the quick judge, `head` of its training on them; `start`,
    `step` and `image` of the final segmenter's beginning, training step and answer; `export` of writing it."""

    view: float
    head: float
    start: float
    step: float
    image: float
    export: float


def measure(
    judge: QuickJudge, final: NetworkJudge, described: Described, samples: Sequence[SegmentationSample]
) -> Costs:
    """Do a little of each on `LOOKED_AT` of `samples`, evenly chosen, or on all where there are fewer, and export the
    network. `final`: how it is trained and tested; nothing of it is changed. Raises `UserError`."""
    few = samples[:: max(1, len(samples) // LOOKED_AT)][:LOOKED_AT]
    view, head = judge.costs(few)
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
    return Costs(view, head, max(0.0, ends[0] - began - step), step, (written - tested) / len(few),
                 time.monotonic() - written)  # fmt: skip


@dataclass(frozen=True)
class Foreseen:
    """Seconds of the parts of a run. `alone`: a trial of real defects alone on a nested split; `beside`: what pairs add
    to one, but for making them; `least`, `full`: the final segmenter with the fewest steps and with all that are asked
    for, its test and export among them; `ending`: those two alone; `done`: trials of the first split that an earlier
    run has left, 0 to 2."""

    alone: float
    beside: float
    least: float
    full: float
    ending: float
    done: int = 0

    @property
    def first(self) -> float:
        """Of the first nested split: real defects alone, and one candidate."""
        return (self.alone if self.done < 1 else 0.0) + (self.alone + self.beside if self.done < 2 else 0.0)

    @property
    def smallest(self) -> float:
        """Of the smallest run: one nested split, one candidate, the final segmenter."""
        return self.first + self.least

    @property
    def choosing(self) -> float:
        """Of the smallest run from which anything can be chosen: the same on two nested splits."""
        return self.smallest + 2 * self.alone + self.beside

    def reserve(self, seconds: float) -> float:
        """How many of the `seconds` that are left are kept for the final segmenter: half of them, fewer if it needs no
        more or the first split takes them."""
        return min(self.full, max(self.least, min(seconds / 2, seconds - self.first)))


def foresee(costs: Costs, judge: QuickJudge, real: int, inner_test: int, pairs: int, test: int, steps: int,
            done: int = 0) -> Foreseen:  # fmt: skip
    """`real`, `inner_test`: images of the two sides of a nested split; `pairs` of a candidate; `test`: images of the
    test side; `steps` of the final training, at most."""
    alone = costs.view * (judge.looks(real, 0) + inner_test) + costs.head
    beside = costs.view * (judge.looks(real, pairs) - judge.looks(real, 0))
    ending = costs.image * test + costs.export
    least, full = (costs.start + costs.step * n + ending for n in (min(steps, LEAST_STEPS), steps))
    return Foreseen(alone, beside, least, full, ending, done)


def advised(spent: float, seconds: float) -> int:
    """Whole minutes to give for a run of so many seconds after those that were `spent`."""
    return math.ceil((spent + SLACK * seconds) / 60)


def minutes(seconds: float) -> str:
    return f"{max(0.0, seconds) / 60:.1f} minutes"
