"""How much of a gain hangs on which physical parts were tested.

Trainings that differ in their random numbers alone show how much of a gain is chance of training. A test side of few
parts is a chance of its own: one part that was photographed ten times may decide all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fast.bench.advice import signed
from fast.bench.verdict import CONFIDENCE
from fast.runtime.counts import number_of

DRAWS = 2000
LEAST = 5  # parts, below which to draw them anew says nothing


@dataclass(frozen=True)
class ByPart:
    """`points`: the gain in pooled IoU. `low`, `high`: where it lies in 95 % of draws of as many parts from the
    `parts`, with repetition (a bootstrap); None below five. `most`: the part without whose `images` the gain changes
    most, and what it is `without` them."""

    parts: int
    points: float
    low: float | None
    high: float | None
    most: str
    images: int
    without: float

    @property
    def doubtful(self) -> bool:
        """Whether with other parts tested it might as well be on the other side of zero."""
        crosses = self.low is not None and self.high is not None and self.low < 0 < self.high
        return crosses or self.without * self.points < 0


def told(found: ByPart) -> str:
    """In a sentence."""
    parts = f"{signed(found.points)} points over {found.parts} parts"
    drawn = ""
    if found.low is not None and found.high is not None:
        drawn = f"; as many drawn anew from these, {signed(found.low)} to {signed(found.high)} in 95 % of draws"
    pictures = number_of(found.images, "picture")
    return f"{parts}{drawn}; without {found.most} ({pictures}), which decides most, {signed(found.without)}"


def by_part(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> ByPart | None:
    """From the figures of `fast.segmentation.evaluation.evaluate` of each training, before and after. None where they
    do not say of which parts they are, are not all of the same parts, or are of one part alone."""
    runs = [*before, *after]
    names = [tuple((row["part"], row["images"], row["defect"]) for row in run.get("parts") or ()) for run in runs]
    if not before or not after or len(set(names)) != 1 or len(names[0]) < 2:
        return None
    counts = np.array([[(row["both"], row["found"], row["defect"]) for row in run["parts"]] for run in runs], float)
    both, union = counts[..., 0], counts[..., 1] + counts[..., 2] - counts[..., 0]

    def gains(weights: np.ndarray) -> np.ndarray:
        """Points (draws,) of parts weighed (draws, parts)."""
        return _points(weights @ both.T, weights @ union.T, len(before))

    number = len(names[0])
    (points,) = gains(np.ones((1, number)))
    single = _points(both.sum(axis=1) - both.T, union.sum(axis=1) - union.T, len(before))  # without each of the parts
    if not np.isfinite(points) or not np.isfinite(single).any():
        return None
    most = int(np.nanargmax(np.abs(single - points)))
    low = high = None
    if number >= LEAST:
        rng, even = np.random.default_rng(0), np.full(number, 1 / number)
        # A few at a time: a test side may hold thousands of parts.
        drawn = np.concatenate([gains(rng.multinomial(number, even, 100).astype(float)) for _ in range(DRAWS // 100)])
        edges = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        low, high = (float(edge) for edge in np.nanquantile(drawn, edges))
    part, images, _ = names[0][most]
    return ByPart(number, float(points), low, high, part, images, float(single[most]))


def _points(both: np.ndarray, union: np.ndarray, first: int) -> np.ndarray:
    """How much higher the mean IoU of the other runs is than that of the `first`, of pixels (choices, runs): points
    (choices,), NaN where nothing is defect."""
    iou = 100 * np.divide(both, union, out=np.full_like(both, np.nan), where=union > 0)
    return np.asarray(iou[:, first:].mean(axis=1) - iou[:, :first].mean(axis=1))
