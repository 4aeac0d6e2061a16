"""Do synthetic pairs help? The answer, with its margin, from a few trainings of each kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fast.bench.results import Summary, summarize

REAL, SYNTHETIC, BOTH = "real only", "synthetic only", "real + synthetic"
RUNS = (REAL, BOTH, SYNTHETIC)  # in the order of the page's tables
CONFIDENCE = 0.95
WORTH = 1.0  # point of IoU: a gain that is surely smaller is none


# Of a test picture: its file, the share of it that was found where nothing is marked, and as in `Answer.predictions`.
FoundAway = tuple[str, float, np.ndarray, np.ndarray, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Answer:
    """All that was measured on one dataset, as its page needs it.

    Args:
        name: the dataset or category.
        method, network: what made the pairs, and what was trained on them.
        runs: metrics in 0..1 of each seed (`fast.segmentation.evaluation.evaluate`), by kind of training: REAL,
            SYNTHETIC and BOTH. Any may be missing.
        curve: for each number of synthetic pairs in all, the metrics of each seed. The real defects always take part, 0
            stands for them alone.
        counts: how many there are of `real`, `synthetic`, `normals` and `test`, and the `steps` and the `size` in
            pixels that the segmenter sees.
        split: hash of the split.
        pictures: what `fast.bench.pictures.measures` says of the pairs. None: they were not measured.
        pairs: (type, normal, mask, synthetic) of some pairs, images uint8 (H,W,3) and masks (H,W).
        predictions: (type, test picture, true mask, what each kind of training found), masks (H,W) and the last by REAL
            and BOTH.
        commands: (what it does, command line).
        seconds: what all the work took.
        draft: what the pairs started from, one of `fast.synthesis.options.DRAFTS`.
        making: (what, value) of how the pairs were made, for the reader.
        native: the network saw windows of pictures at their own size.
        leaking: number of test pictures whose parts are trained on, too.
        real_share: share of the defects drawn that are real, where there are both. None: all are drawn alike.
        unmarked: (file, share of it that was found where nothing is marked), and then picture, true mask and findings
            as in `predictions`.
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
    draft: str = "none"
    making: Sequence[tuple[str, str]] = ()
    native: bool = False
    leaking: int = 0
    real_share: float | None = 0.5
    unmarked: Sequence[FoundAway] = ()


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
    change = gain(*(aligned(answer.runs.get(kind, ()), "miou") for kind in (REAL, BOTH)))
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
    """From values of each seed, NaN where one has none. As many before as after are pairs, of one seed each: the
    interval is Student's for the mean of their differences. Else it is that for two groups (Welch)."""
    first, second = np.array(before, float), np.array(after, float)
    if len(first) == len(second):
        difference = (second - first)[np.isfinite(second - first)]
        if not len(difference):
            return None
        return Gain(float(difference.mean()), half_interval(difference))
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if not len(first) or not len(second):
        return None
    points = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2:
        return Gain(points, None)
    if not (np.ptp(first) or np.ptp(second)):
        return Gain(points, 0.0)
    interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(CONFIDENCE)
    return Gain(points, float(interval.high - interval.low) / 2)


def half_interval(values: Sequence[float] | np.ndarray) -> float | None:
    """Half the width of the 95 % interval of a mean (Student's t); None for fewer than two values."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))


def aligned(metrics: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """One of the metrics of each seed, in percent; NaN where it has none."""
    found = [one.get(key) for one in metrics]
    return [math.nan if value is None else 100 * float(value) for value in found]


def scores(metrics: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """One of the metrics of each seed that has it, in percent."""
    return [value for value in aligned(metrics, key) if math.isfinite(value)]


def type_scores(answer: Answer, run: str, kind: str, key: str) -> list[float]:
    return scores([(one.get("types") or {}).get(kind, {}) for one in answer.runs.get(run, ())], key)


def type_gain(answer: Answer, kind: str, key: str) -> Gain | None:
    runs = ([(one.get("types") or {}).get(kind, {}) for one in answer.runs.get(run, ())] for run in (REAL, BOTH))
    return gain(*(aligned(metrics, key) for metrics in runs))


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
