"""Figures as tables, on a terminal and on a page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from fast.runtime import tables


@dataclass
class ScoreTable:
    """Cells as text; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)


def cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def mean_cell(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{100 * value['mean']:.1f}" + ("" if value["std"] is None else f" ± {100 * value['std']:.1f}")


def plain(table: ScoreTable) -> str:
    text = tables.plain(table.columns, table.rows)
    return f"{table.title}\n{text}" if table.title else text


def markdown(table: ScoreTable) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, ["---"] * len(table.columns), *table.rows)]
    title = [table.title[:1].upper() + table.title[1:] + ":", ""] if table.title else []
    return "\n".join([*title, *(re.sub(" +", " ", line) for line in lines)])
