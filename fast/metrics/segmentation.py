"""How well defects are segmented: IoU and Acc as the papers compute them; AP, AUROC, F1-max and PRO over all scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fast.data.mask_looks import IGNORED
from fast.metrics.pro import area_under_pro, shares
from ldm.errors import UserError

_BINS = 1 << 16  # a score is rounded to half precision; each of its values is a bin of its own


class PixelCounts(NamedTuple):
    """Pixels of one picture, without those to ignore."""

    both: int  # that are defect and found
    found: int
    defect: int


@dataclass
class MetricAccumulator:
    """Pixel counts over any number of pictures. Areas are summed first and divided once, as in the papers' tables: a
    mean over pictures would weigh a picture with a pinhole like one with a gash."""

    images: int = 0
    pixels: int = 0
    both: int = 0  # pixels that are defect and found
    found: int = 0
    defect: int = 0
    regions: int = 0  # 8-connected components of the masks
    recalls: float = 0.0  # sum of the regions' found shares
    scores: np.ndarray = field(default_factory=lambda: np.zeros((2, _BINS), np.int64))  # good, defect pixels per score
    shares: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))  # per score, of the regions (`pro.shares`)

    def add(self, found: np.ndarray, labels: np.ndarray, score: np.ndarray) -> PixelCounts:
        """found: bool (H,W); labels (H,W): 1 or True is defect, 255 ignored; score: float (H,W), higher = more surely a
        defect; only its order matters. Returns the counts of this picture alone."""
        mask, known = labels == 1, labels != IGNORED
        share, regions = shares(mask)
        if not known.all():
            found, mask, score, share = found[known], mask[known], score[known], share[known]
        self.images += 1
        self.pixels += mask.size
        self.regions += regions
        self.recalls += float(share[found].sum())
        counts = PixelCounts(int((found & mask).sum()), int(found.sum()), int(mask.sum()))
        self.both += counts.both
        self.found += counts.found
        self.defect += counts.defect
        bins = _order(score)
        self.scores[0] += np.bincount(bins[~mask], minlength=_BINS)
        self.scores[1] += np.bincount(bins[mask], minlength=_BINS)
        self.shares += np.bincount(bins[mask], weights=share[mask], minlength=_BINS)
        return counts

    def merge(self, other: MetricAccumulator) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def iou(self) -> float | None:
        """Of the defect class; None without a defect pixel, found or true."""
        return _ratio(self.both, self.found + self.defect - self.both)

    @property
    def acc(self) -> float | None:
        """Share of the defect pixels that were found; None where there are none."""
        return _ratio(self.both, self.defect)

    @property
    def aacc(self) -> float | None:
        """Share of all pixels, good and defect, that are told right."""
        return _ratio(self.pixels - self.found - self.defect + 2 * self.both, self.pixels)

    @property
    def f1(self) -> float | None:
        """F1 = 2 TP / (2 TP + FP + FN) of `found`, in the binary case of a defect's probability above 0.5; None without
        a defect pixel, found or true. Not `f1_max`."""
        return _ratio(2 * self.both, self.found + self.defect)

    @property
    def pro_at_half(self) -> float | None:
        """Mean recall of the regions by `found`, at one threshold; None without a region. Not the area `pro`."""
        return _ratio(self.recalls, self.regions)

    def f1_max(self) -> float | None:
        """Largest F1 at any threshold, every distinct score of all pixels being one; None where there is no defect."""
        good, defect = (np.cumsum(row[::-1]) for row in self.scores)
        return float((2 * defect / np.maximum(good + defect + defect[-1], 1)).max()) if defect[-1] else None

    def pro(self) -> float | None:
        """Area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3 (`area_under_pro`)."""
        return area_under_pro(self.scores[0], self.shares, self.regions)

    def ap(self) -> float | None:
        """Average precision: sum of precision times gain of recall over all distinct scores, falling."""
        good, defect = (np.cumsum(row[::-1]) for row in self.scores)
        if not defect[-1]:
            return None
        gain = np.diff(defect, prepend=0)
        used = gain > 0
        return float((gain[used] / defect[-1] * (defect / np.maximum(good + defect, 1))[used]).sum())

    def auroc(self) -> float | None:
        """Probability that a defect pixel scores above a good one, ties counted half."""
        good, defect = self.scores
        if not good.sum() or not defect.sum():
            return None
        below = np.cumsum(good) - good
        # Shares, not counts: products of counts of millions of pixels would overflow.
        return float((defect / defect.sum() * ((below + good / 2) / good.sum())).sum())

    def best_threshold(self) -> float | None:
        """The score at and above which pixels, called defect, have the highest IoU; None where there is no defect."""
        good, defect = (np.cumsum(row[::-1]) for row in self.scores)
        if not defect[-1]:
            return None
        iou = defect / (good + defect[-1])
        return _score(_BINS - 1 - int(iou.argmax()))

    def report(self) -> dict[str, Any]:
        """All figures in 0..1 by the names of `evaluate`, and the number of images."""
        at_half = {"iou": self.iou, "acc": self.acc, "aacc": self.aacc, "f1": self.f1, "pro_at_half": self.pro_at_half}
        over_all = {"ap": self.ap(), "auroc": self.auroc(), "f1_max": self.f1_max(), "pro": self.pro()}
        return {"images": self.images, **at_half, **over_all}


@dataclass
class ClassMetricAccumulator:
    """Pixel counts of each of K classes over any number of pictures, areas summed first as in `MetricAccumulator`."""

    count: int
    areas: np.ndarray = field(init=False)  # (3, K) pixels: in common, predicted, true

    def __post_init__(self) -> None:
        self.areas = np.zeros((3, self.count), np.int64)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Labels of pixels, integer, (H,W) or of those that count, in 0..K-1, 0 = good."""
        for row, labels in enumerate((predicted[predicted == truth], predicted, truth)):
            self.areas[row] += np.bincount(labels.reshape(-1), minlength=self.count)

    def report(self, names: Mapping[int, str]) -> dict[str, Any]:
        """`classes`: IoU and Acc of the named classes; `miou_classes`, `acc_classes`: means over those that have one
        (IoU: true or predicted anywhere, Acc: true anywhere); `aacc_classes`: all pixels told right of all pixels."""
        both, predicted, true = self.areas.tolist()
        each = {
            name: {"iou": _ratio(both[k], predicted[k] + true[k] - both[k]), "acc": _ratio(both[k], true[k])}
            for k, name in names.items()
        }
        return {
            "miou_classes": _mean([row["iou"] for row in each.values()]),
            "acc_classes": _mean([row["acc"] for row in each.values()]),
            "aacc_classes": _ratio(sum(both), sum(true)),
            "classes": each,
        }


def _order(score: np.ndarray) -> np.ndarray:
    """Bins 0.._BINS-1 in the order of the scores, rounded to half precision."""
    if np.isnan(score).any():
        raise UserError("the segmenter answers with NaN; train it again with a lower learning rate")
    with np.errstate(over="ignore"):  # beyond 65504 all scores are one
        half = (score.astype(np.float16) + np.float16(0)).view(np.uint16).astype(np.int64)  # + 0: no negative zero
    return np.where(half & 0x8000, 0xFFFF - half, half + 0x8000)


def _score(number: int) -> float:
    """The score that `_order` puts in a bin."""
    half = number - 0x8000 if number >= 0x8000 else 0xFFFF - number
    return float(np.array(half, np.uint16).view(np.float16))


def defect_score(logits: Tensor) -> Tensor:
    """Log-odds (B,H,W) of any defect class against the background, from logits (B,K,H,W)."""
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]


def summary(types: dict[str, MetricAccumulator], normal: set[str]) -> dict[str, Any]:
    """The figures of `evaluate` from a tally of each type; `normal`: those of them that are no defect type."""
    total = MetricAccumulator()
    for tally in types.values():
        total.merge(tally)
    figures = total.report()
    each = {kind: types[kind].report() for kind in sorted(types)}
    defects = [row for kind, row in each.items() if kind not in normal]
    return {
        "miou": figures.pop("iou"),
        **figures,
        "miou_types": _mean([row["iou"] for row in defects]),
        "acc_types": _mean([row["acc"] for row in defects]),
        "types": each,
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
