"""What `few_defects.py` found, as tables: the figures, what pairs are worth, and which tested parts decide."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fast.bench.by_part import by_part, told
from fast.bench.few import ALONE, METRICS
from fast.bench.verdict import gain
from fast.runtime.tables import markdown

Rows = Sequence[dict[str, Any]]
WORTH = (
    "real defects of each type that alone reach the pooled IoU with pairs, on a straight line between those measured"
)
PARTS = "what the tested parts decide of the gain in pooled IoU"


def report(rows: Rows) -> str:
    """Markdown: a table of each metric, what pairs are worth in real defects, and how much hangs on single parts."""
    parts = [f"{metric}\n\n{table(rows, metric)}\n" for metric in METRICS]
    parts += [
        f"{title}\n\n{text}\n" for title, text in ((WORTH, _worth_table(rows)), (PARTS, _parts_list(rows))) if text
    ]
    return "\n".join(parts)


def table(rows: Rows, metric: str = "miou") -> str:
    """A Markdown table: rows are labels, columns the numbers of real defects; mean and standard deviation in percent,
    of one seed its figure alone, and the points above real defects alone with half of the 95 % interval of the paired
    difference."""
    counts = _counts(rows)
    labels = list(dict.fromkeys(r["label"] for r in rows))

    def values(label: str, count: int | None) -> dict[int, float]:
        return {r["seed"]: r[metric] for r in rows if (r["label"], r["count"]) == (label, count)}

    head, lines = _head(counts), []
    for label in labels:
        cells = []
        for count in counts:
            own, base = values(label, count), values(ALONE, count)
            if not own:
                cells.append("-")
                continue
            numbers = 100 * np.array(list(own.values()))
            text = f"{numbers.mean():.1f}" + (f" ± {numbers.std(ddof=1):.1f}" if len(numbers) > 1 else "")
            both = sorted(own.keys() & base.keys())
            if label != ALONE and both:
                change = gain([100 * base[s] for s in both], [100 * own[s] for s in both])
                if change is not None:
                    margin = "" if change.margin is None else f" ± {change.margin:.1f}"
                    text += f" ({change.points:+.1f}{margin})"
            cells.append(text)
        lines.append([label, *cells])
    return markdown(head, lines, left=len(head))


def worth(rows: Rows, label: str, count: int | None, total: float, metric: str = "miou") -> float | None:
    """The number of real defects of each type at which they alone reach what `count` of them reach with the pairs of
    `label`, between the measured numbers on a straight line; None beyond the last. `total`: what "all" is on average.
    """

    def mean(name: str, n: int | None) -> float | None:
        found = [r[metric] for r in rows if (r["label"], r["count"]) == (name, n)]
        return float(np.mean(found)) if found else None

    reached = mean(label, count)
    numbers = _counts([r for r in rows if r["label"] == ALONE])
    curve = [(0.0, 0.0)] + [(total if c is None else float(c), m) for c in numbers if (m := mean(ALONE, c)) is not None]
    if reached is None:
        return None
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if y0 <= reached <= y1:
            return x0 + (x1 - x0) * (reached - y0) / max(y1 - y0, 1e-9)
    return None if reached > curve[-1][1] else 0.0


def _worth_table(rows: Rows) -> str:
    """Empty where real defects alone were not measured in two numbers."""
    counts = _counts(rows)
    alone = [r for r in rows if r["label"] == ALONE and r["count"] is None and r["types"]]
    if len({r["count"] for r in rows if r["label"] == ALONE}) < 2:
        return ""
    total = float(np.mean([r["real"] / len(r["types"]) for r in alone])) if alone else 0.0

    def cell(label: str, count: int | None) -> str:
        if not any((r["label"], r["count"]) == (label, count) for r in rows):
            return "-"
        found = worth(rows, label, count, total)
        return "more than were measured" if found is None else f"{found:.1f}"

    labels = [label for label in dict.fromkeys(r["label"] for r in rows) if label != ALONE]
    lines = [[label, *(cell(label, count) for count in counts)] for label in labels]
    return markdown(_head(counts), lines, left=len(counts) + 1) if lines else ""


def _parts_list(rows: Rows) -> str:
    """A line for each label and number of real defects of which it can be said."""
    lines = []
    for label, count in dict.fromkeys((r["label"], r["count"]) for r in rows if r["label"] != ALONE):
        after = {r["seed"]: r for r in rows if (r["label"], r["count"]) == (label, count)}
        before = {r["seed"]: r for r in rows if (r["label"], r["count"]) == (ALONE, count)}
        both = sorted(after.keys() & before.keys())
        found = by_part([before[seed] for seed in both], [after[seed] for seed in both])
        if found is not None:
            lines.append(f"- {label}, {'all' if count is None else count}: {told(found)}")
    return "\n".join(lines)


def _counts(rows: Rows) -> list[int | None]:
    return sorted({r["count"] for r in rows}, key=lambda c: 10**9 if c is None else c)


def _head(counts: Sequence[int | None]) -> list[str]:
    return ["real defects of each type", *("all" if c is None else str(c) for c in counts)]
