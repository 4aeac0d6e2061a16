"""What is counted while a segmenter is tested, whatever it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from fast.metrics.segmentation import MetricAccumulator, summary
from fast.segmentation.data import SegmentationSample, is_normal
from fast.segmentation.parts import Parts
from fast.segmentation.unmarked import Unmarked


class Tally:
    """The figures of `fast.segmentation.evaluation.evaluate` but those of classes, from one test picture after the
    other."""

    def __init__(self) -> None:
        self._types: dict[str, MetricAccumulator] = {}
        self._normal: set[str] = set()
        self._unmarked, self._parts = Unmarked(), Parts()

    def add(self, sample: SegmentationSample, found: np.ndarray, labels: np.ndarray, score: np.ndarray) -> None:
        """See `MetricAccumulator.add`."""
        counts = self._types.setdefault(sample.kind, MetricAccumulator()).add(found, labels, score)
        if is_normal(sample):
            self._normal.add(sample.kind)
        self._unmarked.add(sample, found, labels)
        self._parts.add(sample, counts)

    def report(self) -> dict[str, Any]:
        found = summary(self._types, self._normal)
        return {**found, "unmarked": self._unmarked.report(), "parts": self._parts.report()}
