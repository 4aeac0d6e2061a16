"""From the scores of image-mask pairs to an order, and which of them are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import rankdata

# What makes a pair better, by score. Of two ratios that which is nearer to the real defects' (to 1 without any).
HIGHER, LOWER, RATIOS = ("visible", "agreement"), ("distance",), ("seam", "texture")
ENOUGH = 20.0  # grey levels: a change of more is no better


def goodness(scores: Mapping[str, Any], usual: Mapping[str, float]) -> dict[str, float]:
    """The scores that say something, each so that higher is better. `usual`: the ratios of the type's real defects."""
    good = {name: scores[name] for name in HIGHER if scores.get(name) is not None}
    if "visible" in good:
        good["visible"] = min(good["visible"], ENOUGH)
    good |= {name: -scores[name] for name in LOWER if scores.get(name) is not None}
    for name in RATIOS:
        if scores.get(name) is not None:
            good[name] = -abs(math.log(scores[name] / usual.get(name, 1.0)))
    return good


def ranks(good: Sequence[Mapping[str, float]]) -> list[float | None]:
    """The mean of a pair's ranks by each of its scores among the pairs that have it, from 0, the worst, to 1, the best;
    equal ones share theirs. None for a pair without scores."""
    total: list[list[float]] = [[] for _ in good]
    for name in sorted({name for one in good for name in one}):
        rows = [i for i, one in enumerate(good) if name in one]
        places = rankdata([good[i][name] for i in rows], method="average")
        for i, place in zip(rows, places, strict=True):
            total[i].append(float((place - 1) / (len(rows) - 1)) if len(rows) > 1 else 0.5)
    return [sum(found) / len(found) if found else None for found in total]


def kept(rank: Sequence[float | None], kinds: Sequence[str], count: int) -> set[int]:
    """Numbers of the `count` pairs to keep: of each type the same share, as near as whole pairs come, the best by rank
    (of equal ones the first). Pairs without a rank are kept and not counted."""
    types = {kind: [i for i, r in enumerate(rank) if r is not None and kinds[i] == kind] for kind in sorted(set(kinds))}
    ranked = sum(map(len, types.values()))
    share = min(1.0, count / ranked) if ranked else 1.0
    places = {kind: int(share * len(rows) + 1e-9) for kind, rows in types.items()}
    # The largest remainders make the count whole.
    order = sorted(types, key=lambda kind: (places[kind] - share * len(types[kind]), kind))
    for kind in order[: min(count, ranked) - sum(places.values())]:
        places[kind] += 1
    best = [sorted(rows, key=lambda i: (-(rank[i] or 0.0), i))[: places[kind]] for kind, rows in types.items()]
    return {i for rows in best for i in rows} | {i for i, r in enumerate(rank) if r is None}
