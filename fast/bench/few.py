"""How many real defects are pairs worth? The quick judge's scores with few real defects, alone and with pairs.

Factories have a handful of defects. For each number of them, nested random choices are trained on as they are and
together with each method's pairs; a method that learns from defects sees the chosen ones alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fast.bench.trial import Judge, trial
from fast.bench.verdict import gain
from fast.data.images import read_image, write_bytes
from fast.data.index import DatasetIndex, Sample
from fast.data.split import Split
from fast.generators import create
from fast.runtime.tables import markdown
from fast.segmentation.data import SegmentationSample, from_output, from_samples, merged
from ldm.errors import UserError
from ldm.rng import seed_of

ALONE = "real alone"
SHARE = 0.5  # of the defects drawn in training that are real, where there are real and synthetic ones
METRICS = ("miou", "miou_types", "ap", "auroc")


@dataclass(frozen=True)
class Few:
    """What is measured.

    `counts`: real defects of each type, None for all of the training side; `seeds`: choices of them and trainings;
    `methods`: rows by label, each a name of `fast.generators` with its options, or the folder of a finished run under
    `folder`; `per_type`: pairs of each type; `only_all`: rows that are measured beside
    all real defects alone, as those of a `folder` are always, whose pairs may hold any of the training side.
    """

    counts: tuple[int | None, ...]
    seeds: tuple[int, ...]
    methods: Mapping[str, Mapping[str, Any]]
    per_type: int
    only_all: tuple[str, ...] = ()  # rows that are measured with the whole training side alone


def choose(samples: Sequence[Sample], count: int | None, seed: int) -> list[Sample]:
    """The first `count` of each type in a random order in which different parts come first; larger choices of one seed
    hold the smaller ones."""
    rng = np.random.default_rng(seed)
    chosen: list[Sample] = []
    for kind in sorted({(s.category, s.anomaly) for s in samples}):
        own = [s for s in samples if (s.category, s.anomaly) == kind]
        own = [own[i] for i in rng.permutation(len(own))]
        seen: dict[str, int] = {}
        turns = []
        for sample in own:
            turns.append(seen.get(sample.group, 0))
            seen[sample.group] = turns[-1] + 1
        order = sorted(range(len(own)), key=lambda i: turns[i])
        chosen += [own[i] for i in order[: count if count is not None else len(own)]]
    return chosen


def measure(
    index: DatasetIndex, split: Split, few: Few, judge: Judge, out: Path, report: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Rows `label`, `count`, `seed` with the judge's figures, written to `out` as they come; those there are not
    measured again. Raises `UserError`."""
    known: list[dict[str, Any]] = json.loads(out.read_text()) if out.is_file() else []
    train = [s for s in index.defects if index.relative(s.image) in set(split.train)]
    held_out = [s for s in index.defects if index.relative(s.image) in set(split.test)]
    test = from_samples(held_out)
    if not train or not test:
        raise UserError("the split leaves no defects on one side; make it anew with scripts/prepare_data.py")
    made = _Pairs(index, few, held_out)
    for count in few.counts:
        for seed in few.seeds:
            real = choose(train, count, seed) if count != 0 else []
            for label in (ALONE, *few.methods):
                skipped = (label == ALONE and not real) or (count is not None and _needs_all(label, few))
                if skipped or any((r["label"], r["count"], r["seed"]) == (label, count, seed) for r in known):
                    continue
                pairs = [] if label == ALONE else made.of(label, real, count, seed)
                if label != ALONE and not pairs:
                    continue
                share = SHARE if pairs and real else None
                figures = trial(judge, merged(pairs, from_samples(real), real_share=share), test, seed).figures
                row = {"label": label, "count": count, "seed": seed, "real": len(real), "pairs": len(pairs)}
                known.append({**row, **{m: figures[m] for m in METRICS}, "types": _types(figures)})
                write_bytes(out, (json.dumps(known, indent=1) + "\n").encode())
                report(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in known[-1].items()
                                if k != "types"))  # fmt: skip
    return known


def _needs_all(label: str, few: Few) -> bool:
    return label in few.only_all or "folder" in few.methods.get(label, {})


def _types(figures: dict[str, Any]) -> dict[str, float]:
    return {name: own["iou"] for name, own in figures["types"].items()}


class _Pairs:
    """The pairs of each row; those of methods that see no real defect are made once."""

    def __init__(self, index: DatasetIndex, few: Few, held_out: Sequence[Sample]):
        self.index, self.few, self._made = index, few, {}  # type: ignore[var-annotated]
        self.types = [f"{c}/{a}" for c, a in index.types]
        # Finished pairs that were made from any of these are left out.
        self.held_out = {path.resolve() for s in held_out for path in (s.image, s.mask) if path is not None}

    def of(self, label: str, real: Sequence[Sample], count: int | None, seed: int) -> list[SegmentationSample]:
        """Empty for a method that needs real defects where there are none."""
        options = dict(self.few.methods[label])
        if "folder" in options:
            return from_output(options["folder"], self.held_out)[0]
        method = options.pop("method", label)
        learns = method == "transplant"
        if learns and not real:
            return []
        key = (label, count, seed) if learns else (label,)
        if key not in self._made:
            self._made[key] = self._make(method, options, real, self.few.per_type, seed)
        return list(self._made[key])

    def _make(
        self, method: str, options: Mapping[str, Any], real: Sequence[Sample], per_type: int, seed: int
    ) -> list[SegmentationSample]:
        generator = create(method, **options)
        if method == "transplant":
            generator.fit(replace(self.index, defects=list(real)))
        normals = [s.image for s in self.index.normals]
        pairs = []
        for number, kind in enumerate(self.types):
            for k in range(per_type):
                rng = np.random.default_rng(seed_of(seed, number, k))
                image = read_image(normals[int(rng.integers(len(normals)))])
                named = kind if generator.types or method == "procedural" else None
                rng_again = _copy(rng)
                picture, mask = generator.synthesize(image, None, rng, named)
                # Which of its defects a pair holds decides what the threshold may be chosen on.
                origin = generator.origin(rng_again, named).get("defect_source") if method == "transplant" else None
                sources = frozenset({Path(origin)} if origin else ())
                pairs.append(SegmentationSample(picture, mask, kind, synthetic=True, sources=sources))
        return pairs


def _copy(rng: np.random.Generator) -> np.random.Generator:
    """A generator in the same state."""
    other = np.random.default_rng()
    other.bit_generator.state = rng.bit_generator.state
    return other


def table(rows: Sequence[dict[str, Any]], metric: str = "miou") -> str:
    """A Markdown table: rows are labels, columns the numbers of real defects; mean and standard deviation in percent,
    and the points above real defects alone with half of the 95 % interval of the paired difference."""
    counts = sorted({r["count"] for r in rows}, key=lambda c: 10**9 if c is None else c)
    labels = list(dict.fromkeys(r["label"] for r in rows))

    def values(label: str, count: int | None) -> dict[int, float]:
        return {r["seed"]: r[metric] for r in rows if (r["label"], r["count"]) == (label, count)}

    head, lines = ["real defects of each type", *("all" if c is None else str(c) for c in counts)], []
    for label in labels:
        cells = []
        for count in counts:
            own, base = values(label, count), values(ALONE, count)
            if not own:
                cells.append("-")
                continue
            numbers = 100 * np.array(list(own.values()))
            text = f"{numbers.mean():.1f} ± {numbers.std(ddof=1) if len(numbers) > 1 else 0:.1f}"
            both = sorted(own.keys() & base.keys())
            if label != ALONE and both:
                change = gain([100 * base[s] for s in both], [100 * own[s] for s in both])
                if change is not None:
                    margin = "" if change.margin is None else f" ± {change.margin:.1f}"
                    text += f" ({change.points:+.1f}{margin})"
            cells.append(text)
        lines.append([label, *cells])
    return markdown(head, lines, left=len(head))


def worth(
    rows: Sequence[dict[str, Any]], label: str, count: int | None, total: float, metric: str = "miou"
) -> float | None:
    """The number of real defects of each type at which they alone reach what `count` of them reach with the pairs of
    `label`, between the measured numbers on a straight line; None beyond the last. `total`: what "all" is on average.
    """

    def mean(name: str, n: int | None) -> float | None:
        found = [r[metric] for r in rows if (r["label"], r["count"]) == (name, n)]
        return float(np.mean(found)) if found else None

    reached = mean(label, count)
    numbers = sorted({r["count"] for r in rows if r["label"] == ALONE}, key=lambda c: 1e9 if c is None else c)
    curve = [(0.0, 0.0)] + [(total if c is None else float(c), m) for c in numbers if (m := mean(ALONE, c)) is not None]
    if reached is None:
        return None
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if y0 <= reached <= y1:
            return x0 + (x1 - x0) * (reached - y0) / max(y1 - y0, 1e-9)
    return None if reached > curve[-1][1] else 0.0
