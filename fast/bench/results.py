"""Results of trained and tested segmenters, and what several seeds of one say together."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ldm.errors import UserError

# Names of the papers: key in a result's `metrics`, there 0..1.
METRICS = {
    "mIoU": "miou",
    "Acc": "acc",
    "AUROC": "auroc",
    "AP": "ap",
    "F1": "f1",
    "F1-max": "f1_max",
    "PRO": "pro",
    "mIoU (types)": "miou_types",
    "Acc (types)": "acc_types",
    "mIoU (classes)": "miou_classes",  # of a network that tells types apart
    "Acc (classes)": "acc_classes",
}


@dataclass(frozen=True)
class Record:
    """One trained and tested segmenter. `label`: the value of the table's column key. `values`: percent, by metric."""

    category: str
    label: str
    backbone: str
    seed: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (divisor n - 1; None for one seed) over `seeds` seeds."""

    mean: float
    spread: float | None
    seeds: int


def from_json(result: Mapping[str, Any]) -> Record:
    """A `result.json`'s content. Metrics that it lacks, or that are not finite, are left out.

    Raises `UserError` where it lacks one of the keys or has a value of another kind.
    """
    try:
        measured = {name: result["metrics"].get(key) for name, key in METRICS.items()}
        values = {name: 100 * float(v) for name, v in measured.items() if v is not None and math.isfinite(v)}
        return Record(
            str(result["category"]), str(result["label"]), str(result["backbone"]), int(result["seed"]), values
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a result is incomplete ({type(error).__name__}: {error}); make it again") from None


def summarize(values: Iterable[float]) -> Summary | None:
    """None for no values."""
    found = list(values)
    if not found:
        return None
    return Summary(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


@dataclass(frozen=True)
class ResultGrid:
    """Every training that is to be done, in order, and the records of those that are: by (backbone, category, label,
    seed)."""

    labels: tuple[str, ...]
    categories: tuple[str, ...]
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    records: Mapping[tuple[str, str, str, int], Record]

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        labels: Sequence[str] | None = None,
        categories: Sequence[str] | None = None,
        backbones: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> "ResultGrid":
        """What is not given is what the records hold; records outside of what is given are left out.

        Raises `UserError` for two records of one training and for an empty grid.
        """
        found: dict[tuple[str, str, str, int], Record] = {}
        for r in records:
            key = (r.backbone, r.category, r.label, r.seed)
            if key in found:
                raise UserError(f"two results of {', '.join(key[:3])}, seed {r.seed}; keep one of them")
            found[key] = r
        grid = cls(
            tuple(dict.fromkeys(r.label for r in records) if labels is None else labels),
            tuple(dict.fromkeys(r.category for r in records) if categories is None else categories),
            tuple(dict.fromkeys(r.backbone for r in records) if backbones is None else backbones),
            tuple(sorted({r.seed for r in records}) if seeds is None else seeds),
            found,
        )
        if not grid.size():
            raise UserError("there are no results to show; train at least one segmenter")
        return grid

    def size(self) -> int:
        return len(self.labels) * len(self.categories) * len(self.backbones) * len(self.seeds)

    def finished(self) -> list[Record]:
        keys = product(self.backbones, self.categories, self.labels, self.seeds)
        return [self.records[key] for key in keys if key in self.records]

    def cell(self, backbone: str, category: str, label: str, metric: str) -> Summary | None:
        """Over the seeds that are there."""
        records = (self.records.get((backbone, category, label, seed)) for seed in self.seeds)
        return summarize(r.values[metric] for r in records if r is not None and metric in r.values)

    def average(self, backbone: str, label: str, metric: str) -> Summary | None:
        """Over categories; None where one has no value, since an average of fewer says something else.

        The spread is that of the average over the seeds that every category has.
        """
        cells = [self.cell(backbone, category, label, metric) for category in self.categories]
        if any(cell is None for cell in cells):
            return None
        each = []
        for seed in self.seeds:
            records = [self.records.get((backbone, category, label, seed)) for category in self.categories]
            values = [r.values[metric] for r in records if r is not None and metric in r.values]
            if len(values) == len(self.categories):
                each.append(statistics.fmean(values))
        spread = statistics.stdev(each) if len(each) > 1 else None
        return Summary(statistics.fmean(c.mean for c in cells if c), spread, min(c.seeds for c in cells if c))
