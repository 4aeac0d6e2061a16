"""What `scripts/bench.py --auto` tries. A new candidate is one entry of `CANDIDATES`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast.bench.placeholders import SEED, SHIPPED
from fast.bench.rows import Row
from fast.generators.looks import with_looks


@dataclass(frozen=True)
class Candidate:
    """A method of `fast.generators` with its options. `what`: for the page. `adapted`: its weights are trained on the
    training side first, by `configs/methods/<method>.yaml` with the overrides `training`. `counterfeits`: see
    `fast.bench.rows.Row`."""

    method: str
    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    adapted: bool = False
    training: tuple[str, ...] = ()
    counterfeits: float = 0.0


SHIPPED_DRAFTS = {"weights": SHIPPED, "strength": 0.3, "steps": 4, "scale": 1.0}

# In the order in which they are tried: where minutes are short, the first ones are.
CANDIDATES: dict[str, Candidate] = {
    "transplant": Candidate("transplant", "real defects cut out, turned, scaled and set into normal images"),
    "procedural": Candidate("procedural", "defects drawn into normal images, by the names of the types"),
    "fast_mixed": Candidate(
        "fast",
        "FAST with the shipped weights from real defects set into normal images, and drawn ones that look like them",
        {**SHIPPED_DRAFTS, "draft": "mixed"},
    ),
    "fast_drawn": Candidate(
        "fast",
        "FAST with the shipped weights from drawn drafts, and normal content in half of their masks, labelled normal",
        {**SHIPPED_DRAFTS, "draft": "procedural"},
        counterfeits=0.5,
    ),
    "fast": Candidate(
        "fast",
        "FAST, adapted to the training side and its normal surface, from drafts of both kinds",
        {"draft": "mixed", "strength": 0.5, "steps": 10, "scale": 1.0},
        adapted=True,
        # The part's normal surface under masks, and drawn and moved defects on it, beside the real ones.
        training=("data.params.normal_share=0.25", "data.params.drawn_share=0.25", "data.params.pool=48"),
    ),
}
ADAPT_MINUTES = 8.0  # of one adaptation


def rows_of(
    kinds: Sequence[str],
    out: Path,
    looks: Mapping[str, Sequence[str]],
    content: str,
    candidates: Mapping[str, Candidate] = CANDIDATES,
) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows of the candidates that can make the defect types `kinds`, and why others cannot. `content`: see
    `adapted_folder`."""
    rows, left_out = {}, {}
    for label, one in candidates.items():
        options = with_looks(one.method, one.options, looks)
        if one.adapted:
            options["weights"] = str(adapted_folder(out, one, SEED, content))
        row = Row(one.method, options, counterfeits=one.counterfeits)
        if why := row.cannot_draw(kinds):
            left_out[label] = why
        else:
            rows[label] = row
    return rows, left_out


def adapted_folder(out: Path, candidate: Candidate, run: str, content: str) -> Path:
    """Where a candidate's weights lie that were adapted to nested split `run`, or `all` of the training side. Its name
    says how they were trained, and on what, by the `content` of the training side: those of others are others."""
    how = hashlib.sha256(" ".join([*candidate.training, content]).encode()).hexdigest()[:6]
    return out / "adapted" / f"{candidate.method}-{how}-{run}"
