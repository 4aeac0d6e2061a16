"""The section of the answer's page on how the IoU changes with the number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from fast.bench.figures import GREY, PALETTE, Series, curve, svg
from fast.bench.page_cells import change_text, spread_text
from fast.bench.results import summarize
from fast.bench.verdict import Answer, Verdict, gain, points
from fast.reports.report import Bar, Chart, Section, Table

LEAST_SPAN = 20.0  # points of IoU that a curve's axis covers, so that small changes look small


def curve_section(answer: Answer, found: Verdict) -> Section | None:
    """The curve and its table; None where it has fewer than two points."""
    shown = points(answer)
    if len(shown) < 2:
        return None
    summed = [(pairs, summary) for pairs, values in shown if (summary := summarize(values))]
    text = "Every point has the real defects in it; at the left end they are alone."
    if found.best is not None:
        pairs, top = found.best
        last = dict(shown)[shown[-1][0]]
        apart = gain(last, dict(shown)[pairs])
        chance = "" if apart and apart.sure else ", a lead that may be chance"
        where = f"with {pairs} pairs" if pairs else "with the real defects alone"
        text += f" The mean is highest {where}, {top:.1f} %, not at the last point{chance}."
    values = "; ".join(f"{pairs} pairs {one.mean:.1f} %" for pairs, one in summed)
    single = any(one.spread is None for _, one in summed)
    note = "Line: mean. " + ("" if single else "Band: one standard deviation to both sides. ")
    note += "Dots: single trainings. Dashed: the real defects alone."
    rows = [_point(*point, shown[0]) for point in shown]
    if shown[0][0] != 0:
        rows = [row[:-1] for row in rows]
        note = note.removesuffix(" Dashed: the real defects alone.")
    drawn, zero = _drawn(answer, shown)
    note += "" if zero else " The upright axis does not begin at zero."
    columns = ["synthetic pairs", "IoU", "spread", "trainings", "change, points"][: len(rows[0])]
    return Section(
        "How many pairs?",
        text,
        [
            Chart(drawn, f"Curve of the IoU against the number of synthetic pairs: {values}.", note),
            Table("The points of the curve", columns, rows),
        ],
    )


def _point(pairs: int, values: Sequence[float], first: tuple[int, list[float]]) -> list[str | Bar]:
    """A row of the curve's table."""
    one = summarize(values)
    assert one is not None
    change = gain(first[1], values) if pairs != first[0] else None
    return [str(pairs), Bar(one.mean / 100, strong=True), spread_text(one), str(one.seeds), change_text(change)]


def _drawn(answer: Answer, shown: Sequence[tuple[int, list[float]]]) -> tuple[str, bool]:
    """The curve, and whether its upright axis begins at zero."""
    summed = [summarize(values) for _, values in shown]
    means = [one.mean if one else None for one in summed]
    spreads = [one.spread if one else None for one in summed]
    line = Series("IoU", [pairs for pairs, _ in shown], means, spreads)
    real = f" beside {answer.counts['real']} real defects" if "real" in answer.counts else ""
    drawn = curve([line], x_label=f"synthetic pairs{real}", y_label="IoU of the defect pixels (%)")
    axes = drawn.axes[0]
    x, y = zip(*[(pairs, value) for pairs, values in shown for value in values], strict=True)
    axes.scatter(x, y, s=9, color=PALETTE[0], alpha=0.55, linewidths=0, zorder=3)
    if shown[0][0] == 0:
        axes.axhline(float(np.mean(shown[0][1])), linestyle="--", linewidth=1.2, color=GREY, zorder=1)
    low, high = axes.get_ylim()
    more = max(0.0, LEAST_SPAN - (high - low)) / 2
    bottom = max(0.0, min(low - more, 100 - LEAST_SPAN))
    axes.set_ylim(bottom, max(high + more, bottom + LEAST_SPAN))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if len(x) > 1 and min(x) < max(x):
        axes.set_xticks([pairs for pairs, _ in shown if pairs == 0 or pairs >= max(x) / 10])
    drawn.set_size_inches(5.6, 3.5)
    return svg(drawn), bottom == 0
