"""How the tables of the pages say a gain, a mean and a standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fast.bench.advice import signed
from fast.bench.results import Summary
from fast.bench.verdict import Gain


def points_text(points: float, margin: float | None) -> str:
    """Like +1.2 ± 0.5, or +1.2 where there is no margin."""
    return signed(points) + ("" if margin is None else f" ± {margin:.1f}")


def change_text(change: Gain | None) -> str:
    """`points_text` of a gain; a dash where none was measured."""
    return "–" if change is None else points_text(change.points, change.margin)


def spread_text(one: Summary) -> str:
    """Like ± 3.0; a dash for one training."""
    return "–" if one.spread is None else f"± {one.spread:.1f}"


def mean_text(values: Sequence[float]) -> str:
    """The mean of percentages, like 42.0 %; a dash where there are none."""
    return f"{np.mean(values):.1f} %" if values else "–"
