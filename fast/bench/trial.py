"""Train a segmenter on these samples, test it on those: what every protocol does that asks what samples are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from fast.segmentation import build
from fast.segmentation.data import SegmentationSample
from fast.segmentation.evaluation import evaluate
from fast.segmentation.prior import Corrected
from fast.segmentation.train import train


class Judge(Protocol):
    """A way to train and test segmenters: `NetworkJudge`, or `fast.segmentation.quick.QuickJudge`."""

    def fit(self, samples: Sequence[SegmentationSample], seed: int = 0) -> Any:
        """A segmenter that was trained on weighted samples. Raises `UserError`."""

    def test(self, network: Any, samples: Sequence[SegmentationSample]) -> dict[str, Any]:
        """Its figures, as `fast.segmentation.evaluation.evaluate` returns them."""


@dataclass(frozen=True)
class NetworkJudge:
    """Networks of one kind, each trained from initial weights that its seed draws.

    network: a name of `fast.segmentation.build`.
    training: keywords of `fast.segmentation.train.train` for the training alone: `steps`, `lr`, ...
    seen: keywords that training and test share: `size`, `native`, `bf16`, `device`.
    weights: initial weights, a file.
    labels: {class: defect type} of a network that tells types apart; None: defect or background.
    batch_size: of the test.
    progress: as `train` calls it.
    """

    network: str
    training: Mapping[str, Any]
    seen: Mapping[str, Any]
    weights: Path | None = None
    labels: Mapping[int, str] | None = None
    batch_size: int = 8
    progress: Callable[[int, float, float], None] | None = None

    @property
    def classes(self) -> int:
        return 1 + len(self.labels or (1,))

    def start(self, seed: int) -> nn.Module:
        """A network with initial weights."""
        return build(self.network, self.classes, weights=self.weights, seed=seed)

    def fit(self, samples: Sequence[SegmentationSample], seed: int = 0, network: nn.Module | None = None) -> nn.Module:
        """`network`: what is trained, in the place of one that starts here."""
        network = self.start(seed) if network is None else network
        labelled = self._labelled(samples)
        return train(network, labelled, seed=seed, progress=self.progress, **self.training, **self.seen)

    def test(self, network: nn.Module, samples: Sequence[SegmentationSample]) -> dict[str, Any]:
        """`oversampling` among them where the network was corrected for it (`fast.segmentation.prior`)."""
        labelled = self._labelled(samples)
        figures = evaluate(network, labelled, labels=self.labels, batch_size=self.batch_size, **self.seen)
        return {**figures, "oversampling": network.oversampling} if isinstance(network, Corrected) else figures

    def _labelled(self, samples: Sequence[SegmentationSample]) -> Sequence[SegmentationSample]:
        """With the class of their type, where there is more than one."""
        numbers = {kind: number for number, kind in (self.labels or {}).items()}
        return [replace(s, label=numbers.get(s.kind, 1)) for s in samples] if self.labels else samples


@dataclass(frozen=True)
class Trial:
    """A trained segmenter, its figures on the test samples, and the seconds of its training."""

    network: Any
    figures: dict[str, Any]
    seconds: float


def trial(judge: Judge, samples: Sequence[SegmentationSample], test: Sequence[SegmentationSample], seed: int) -> Trial:
    """Train on `samples` (`fast.segmentation.data.merged` gives their weights), test on `test`. Raises `UserError`."""
    start = time.perf_counter()
    network = judge.fit(samples, seed)
    seconds = time.perf_counter() - start
    return Trial(network, judge.test(network, test), seconds)
