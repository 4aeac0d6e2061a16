"""Do synthetic pairs help? The answer, with its margin, from a few trainings of each kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fast.bench.results import Summary, summarize

REAL, SYNTHETIC, BOTH = "real only", "synthetic only", "real + synthetic"
WORTH = 1.0  # point of IoU: a gain that is surely smaller is none
# Student's t, 95 % on both sides, for 1, 2, ... degrees of freedom; the last stands for all beyond.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What was measured on one dataset.

    `name`: of the dataset or category; `method`, `network`: what made the pairs, what was trained on them. `runs`:
    REAL, SYNTHETIC and BOTH -> metrics (0..1, `fast.segmentation.metrics.evaluate`) of each seed; may lack any.
    `curve`: (number of synthetic pairs in all, metrics of each seed), the real defects always in, 0 = they alone.
    `counts`: real, synthetic, normals, test, steps, size (pixels that the segmenter sees). `split`: its hash.
    `pictures`: `fast.bench.pictures.measures` of the pairs. `pairs`: (type, normal, mask, synthetic), uint8 (H,W,3),
    masks (H,W). `predictions`: (type, test picture, true mask, {kind of training: what it found, (H,W)}). `commands`:
    (what it does, command lines). `seconds` of all the work.
    """

    name: str
    method: str
    network: str
    runs: Mapping[str, Sequence[Mapping[str, Any]]]
    curve: Sequence[tuple[int, Sequence[Mapping[str, Any]]]]
    counts: Mapping[str, int]
    split: str
    pictures: Mapping[str, Any] | None
    pairs: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]
    predictions: Sequence[tuple[str, np.ndarray, np.ndarray, Mapping[str, np.ndarray]]]
    commands: Sequence[tuple[str, str]]
    seconds: float


@dataclass(frozen=True)
class Gain:
    """How much higher the second mean is, in points. `margin`: half its 95 % interval, None where there is none."""

    points: float
    margin: float | None

    @property
    def sure(self) -> bool:
        """Whether it is no chance of the trainings that it is above, or below, zero."""
        return self.margin is not None and abs(self.points) > self.margin


@dataclass(frozen=True)
class Verdict:
    """`answer`: "yes", "no" or "cannot tell"; `real`, `both`: IoU in percent; `gain` of both over real; `best`: the
    number of pairs with the highest mean on the curve if that is not the last, and that mean; `fell`: types whose
    IoU is lower with the pairs, the worst first."""

    answer: str
    real: Summary | None
    both: Summary | None
    gain: Gain | None
    best: tuple[int, float] | None
    fell: Sequence[tuple[str, Gain]]


def verdict(answer: Answer) -> Verdict:
    """Yes: all of the gain's 95 % interval lies above zero. No: all of it lies below `WORTH`, one point, so that
    there is none worth having. Else, and with one training of a kind, it cannot be told. A gain that is surely above
    zero and surely below a point is a no."""
    before, after = (scores(answer.runs.get(kind, ()), "miou") for kind in (REAL, BOTH))
    change = gain(before, after)
    fell = [(kind, g) for kind in types(answer) if (g := type_gain(answer, kind, "iou")) and g.points < 0]
    return Verdict(
        _judged(change),
        summarize(before),
        summarize(after),
        change,
        _best(answer),
        sorted(fell, key=lambda one: one[1].points),
    )


def _judged(change: Gain | None) -> str:
    if change is None or change.margin is None:
        return "cannot tell"
    if change.points + change.margin < WORTH:
        return "no"
    return "yes" if change.points - change.margin > 0 else "cannot tell"


def gain(before: Sequence[float], after: Sequence[float]) -> Gain | None:
    """From values of each seed. The interval is Student's for two groups of one spread."""
    if not before or not after:
        return None
    points, freedom = float(np.mean(after) - np.mean(before)), len(before) + len(after) - 2
    if min(len(before), len(after)) < 2:
        return Gain(points, None)
    squares = sum(float(np.square(np.array(values) - np.mean(values)).sum()) for values in (before, after))
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    return Gain(points, STUDENT[min(freedom, len(STUDENT)) - 1] * error)


def scores(metrics: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """One of the metrics of each seed that has it, in percent."""
    found = [one.get(key) for one in metrics]
    return [100 * float(value) for value in found if value is not None and math.isfinite(value)]


def type_scores(answer: Answer, run: str, kind: str, key: str) -> list[float]:
    return scores([(one.get("types") or {}).get(kind, {}) for one in answer.runs.get(run, ())], key)


def type_gain(answer: Answer, kind: str, key: str) -> Gain | None:
    return gain(type_scores(answer, REAL, kind, key), type_scores(answer, BOTH, kind, key))


def types(answer: Answer) -> list[str]:
    """Defect types that a training was tested on; normal pictures, which have no defect pixel to find, are none."""
    found = [
        (kind, row) for runs in answer.runs.values() for one in runs for kind, row in (one.get("types") or {}).items()
    ]
    return sorted({kind for kind, row in found if row.get("acc", 0.0) is not None})


def points(answer: Answer) -> list[tuple[int, list[float]]]:
    """The curve in percent, its points that have a value, by number of pairs."""
    found = [(number, scores(metrics, "miou")) for number, metrics in answer.curve]
    return sorted((number, values) for number, values in found if values)


def _best(answer: Answer) -> tuple[int, float] | None:
    curve = [(number, float(np.mean(values))) for number, values in points(answer)]
    if not curve:
        return None
    best = max(curve, key=lambda point: point[1])
    return best if best[1] > curve[-1][1] else None
