"""The pairs of a finished run with their scores and decisions, filtered and sorted, and as cards of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any

from markupsafe import Markup

from fast.review.decisions import Decision, Review
from fast.studio.pictures import thumbs
from fast.synthesis.records import each_record, manifests
from ldm.errors import UserError

PAGE = 40  # cards shown at once
NONE = Decision("undecided")
NEEDED = ("index", "type", "image", "mask", "shard", "normal_source", "scores", "defect_pixels", "seconds")


@dataclass(frozen=True)
class Item:
    """A pair of a folder: of its line of the manifest what is `NEEDED`, and what was decided."""

    row: dict[str, Any]
    decision: Decision

    @property
    def index(self) -> int:
        return int(self.row["index"])

    @property
    def kind(self) -> str:
        return str(self.row.get("type", "")).strip("/")

    def score(self, name: str) -> float | None:
        """A score by name, or the number, size in pixels or seconds of the pair; None where it has none."""
        known = {
            "number": self.index,
            "defect pixels": self.row.get("defect_pixels"),
            "seconds": self.row.get("seconds"),
        }
        value = known[name] if name in known else (self.row.get("scores") or {}).get(name)
        return float(value) if isinstance(value, int | float) else None


def read_items(folder: Path) -> list[Item]:
    """All pairs of a folder, the rejected ones too, without those that lie in `rejected/`. Raises `UserError`."""
    found = Review(folder).decisions()
    files = [(path, path.stat()) for path in manifests(folder)]
    rows = _rows(folder, tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in files))
    return [Item(row, found.get(row["index"], NONE)) for row in rows]


@lru_cache(maxsize=4)
def _rows(folder: Path, _files: tuple[tuple[str, int, int], ...]) -> list[dict[str, Any]]:
    """What the page shows of each record, read anew where a file has changed: whole ones of a hundred thousand pairs
    are a second at each click and most of a gigabyte."""
    return [
        {key: intern(v) if isinstance(v := row[key], str) else v for key in NEEDED if key in row}
        for row in each_record(folder, rejected=True)
    ]


def sortable(items: Sequence[Item]) -> list[str]:
    """Names of what items can be sorted by."""
    scores = {
        name for item in items for name, v in (item.row.get("scores") or {}).items() if isinstance(v, int | float)
    }
    return ["number", *sorted(scores), "defect pixels", "seconds"]


def chosen(
    items: Iterable[Item], kind: str = "", decision: str = "", by: str = "number", descending: bool = False
) -> list[Item]:
    """Those of a type and with a decision (empty: all), sorted by a score; those without it come last."""
    found = [i for i in items if kind in ("", i.kind) and decision in ("", i.decision.decision)]
    known = [(score, i) for i in found if (score := i.score(by)) is not None]
    ordered = [i for _, i in sorted(known, key=lambda p: ((-p[0] if descending else p[0]), p[1].index))]
    return ordered + [i for i in found if i.score(by) is None]


def counted(items: Sequence[Item]) -> str:
    """How many are accepted, rejected and undecided."""
    counts = Counter(i.decision.decision for i in items)
    return f"{counts['accepted']} accepted, {counts['rejected']} rejected, {counts['undecided']} undecided"


CARD = Markup(
    '<figure class="card {decision}" data-index="{index}" tabindex="0" aria-label="pair {index}, {kind}, {decision}">'
    '<div class="pair"><img src="{plain}" alt="pair {index}"><img class="outline" src="{marked}" alt=""></div>'
    '<figcaption><b>{index}</b> <span class="kind">{kind}</span><span class="by">{by}</span>'
    '<span class="why">{why}</span></figcaption></figure>'
)
LOST = Markup(
    '<figure class="card lost" data-index="{index}" tabindex="0"><div class="pair">{why}</div>'
    "<figcaption><b>{index}</b></figcaption></figure>"
)


def cards(folder: Path, items: Sequence[Item], by: str) -> str:
    """HTML of a page of items; every text in it is escaped."""
    if not items:
        return '<p class="empty">No pair fits these filters.</p>'
    return '<div class="cards">' + "".join(_card(folder, item, by) for item in items) + "</div>"


def _card(folder: Path, item: Item, by: str) -> Markup:
    try:
        plain, marked = thumbs(folder / item.row["image"], folder / item.row["mask"])
    except UserError as error:
        return LOST.format(index=item.index, why=str(error))
    value = item.score(by)
    told = "" if value is None or by == "number" else f"{by} {value:.3g}"
    decision = item.decision
    why = decision.reason or (decision.decision if decision != NONE else "")
    return CARD.format(
        decision=decision.decision, index=item.index, kind=item.kind, plain=plain, marked=marked, by=told, why=why
    )
