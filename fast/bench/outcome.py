"""What a grid has found so far: tables, figures, pictures and the numbers behind them, written into one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fast.bench import fairness, figures, gallery, paper, tables
from fast.bench.grid import Cell
from fast.bench.plan import CategoryPlan, Column, SweepPlan
from fast.bench.results import from_json
from fast.bench.tables import ResultTable
from fast.bench.work import pairs_folder
from fast.data.images import write_bytes, write_image
from fast.runtime.tables import markdown, markdown_text
from fast.synthesis.records import read_records
from ldm.errors import UserError

MEASURES = ("empty", "outside", "seam", "copied", "set_distance")  # of `fast.bench.pictures` in the provenance
DEEP = ("kid", "is", "ic_lpips")
DECIMALS = {"kid": 4}  # of those that two say too little of


def results(plan: SweepPlan) -> list[dict[str, Any]]:
    """Every finished training of the plan, as plain values."""
    found = []
    for column in plan.columns:
        for (network, seed), cell in column.segments.items():
            if cell.done:
                where = {"category": column.category.name, "label": column.entry.label}
                found.append({**where, "backbone": network, "seed": seed, "cell": cell.folder.name, **cell.result()})
    return found


def build_table(plan: SweepPlan) -> ResultTable:
    """Raises `UserError` where nothing is finished."""
    found = [from_json(result) for result in results(plan)]
    if not found:
        raise UserError(f"nothing of {plan.protocol.name} is finished; run the same command again")
    protocol = plan.protocol
    return tables.build(
        found,
        metrics=protocol.metrics,
        column=protocol.column,
        paper=[paper.load(name) for name in protocol.paper],
        labels=[entry.label for entry in protocol.entries],
        categories=[category.name for category in plan.categories],
        backbones=protocol.segmentation.networks,
        seeds=protocol.segmentation.seeds,
        title=protocol.title,
    )


def write(plan: SweepPlan, folder: Path) -> list[Path]:
    """Write what there is; returns the files. Raises `UserError` where nothing is finished."""
    table = build_table(plan)
    records = [from_json(result) for result in results(plan)]
    files = {
        "protocol.json": (plan.protocol.text + "\n").encode(errors="backslashreplace"),
        "results.json": (json.dumps(results(plan), indent=1) + "\n").encode(errors="backslashreplace"),
        "table.md": "\n".join(
            [tables.markdown(table), *fairness.notes(plan.protocol, records), provenance(plan)]
        ).encode(errors="backslashreplace"),
        "table.csv": tables.csv(table).encode(errors="backslashreplace"),
        "table.tex": tables.latex(table).encode(errors="backslashreplace"),
        **dict(_drawings(plan, table)),
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    pictures = dict(_galleries(plan))
    for name, picture in pictures.items():
        write_image(folder / name, picture)
    return [folder / name for name in (*files, *pictures)]


# how each came about


def provenance(plan: SweepPlan) -> str:
    """A Markdown table for each category: what every column was given, what it took, and what its pairs are like."""
    lines = []
    for category in plan.categories:
        rows = [_provenance(columns) for columns in _by_pairs(plan, category)]
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        real = f"{len(category.train)} real defects to train on, {len(category.test)} to test on"
        lines += [
            f"{markdown_text(category.name)}: split {category.split.hash[:12]}, {real}, "
            f"{len(category.index.normals)} normals.",
            "",
        ]
        cells = [[markdown_text(row.get(name, "-")) for name in names] for row in rows]
        lines += [markdown(list(map(markdown_text, names)), cells, left=len(names)), ""]
    return "\n".join(lines)


def _by_pairs(plan: SweepPlan, category: CategoryPlan) -> list[list[Column]]:
    """The columns of a category whose pairs are made, those together that use the same."""
    found: dict[Path, list[Column]] = {}
    for column in plan.columns:
        if column.category is category and column.pairs is not None and column.pairs.done:
            found.setdefault(column.pairs.folder, []).append(column)
    return list(found.values())


def _provenance(columns: Sequence[Column]) -> dict[str, str]:
    """Of columns with the same pairs."""
    column, made = columns[0], columns[0].pairs
    assert made is not None
    first = read_records(pairs_folder(made, made.key["types"][0]))[0]
    row = {
        "made for": ", ".join(column.entry.label for column in columns),
        "masks": "training side's" if made.key["masks"] == "given" else made.key["masks"],
        "background": "a normal picture" if first["normal_source"] else "its own",
        "evaluations": str(first.get("steps") or first.get("options", {}).get("steps") or "-"),
        "pairs": str(made.result()["pairs"]),
        "s per pair": f"{made.result()['seconds_per_pair']:.2f}",
    }
    for need in made.needs:
        trained = need.result()
        row |= {"optimiser steps": str(trained["steps"]), "minutes": f"{trained['minutes']:.1f}"}
        row |= {"weights learned": f"{trained['parameters'] / 1e6:.2f} M", "trained at": f"{trained['trained_at']} px"}
    return row | _measured(column.pictures, MEASURES) | _measured(column.deep, DEEP)


def _measured(cell: Cell | None, names: Sequence[str]) -> dict[str, str]:
    if cell is None or not cell.done:
        return {}
    found = cell.result()
    return {
        n.replace("_", " "): "-" if found.get(n) is None else f"{found[n]:.{DECIMALS.get(n, 2)}f}"
        for n in names
        if n in found
    }


# pictures


def _drawings(plan: SweepPlan, table: ResultTable) -> Iterator[tuple[str, bytes]]:
    """For each network that has results: a curve of each of the first two metrics where the columns are steps, else
    bars of both."""
    by_steps = table.column == "steps" and all(label.isdecimal() and int(label) for label in table.labels)
    for backbone in plan.protocol.segmentation.networks:
        title, metrics = f"{table.title}, {backbone}", table.metrics[:2]
        shown = {metric: _part(table, backbone, (metric,), by_steps) for metric in metrics}
        there = [metric for metric in metrics if any(cell.ours for cell in shown[metric].cells.values())]
        drawn: dict[str, Figure] = {}
        if by_steps:
            drawn = {f"-{m.lower().replace(' ', '_')}": figures.steps(shown[m], m, title=title) for m in there}
        elif there:
            drawn = {"": figures.grouped(_part(table, backbone, there), title=title)}
        for name, figure in drawn.items():
            yield f"figure-{backbone}{name}.png", figures.png(figure)
            yield f"figure-{backbone}{name}.svg", figures.svg(figure).encode(errors="backslashreplace")


def _part(table: ResultTable, backbone: str, metrics: Sequence[str], averaged: bool = False) -> ResultTable:
    """The rows of one network and some metrics; `averaged`: of several categories the average alone."""
    rows = [row for row in table.rows if row[0] == backbone]
    rows = rows[-1:] if averaged else rows
    cells = {key: cell for key, cell in table.cells.items() if key[:2] in rows and key[3] in metrics}
    return replace(table, rows=tuple(rows), metrics=tuple(metrics), cells=cells)


def _galleries(plan: SweepPlan) -> Iterator[tuple[str, np.ndarray]]:
    """The same normals and masks filled by each column, for each category."""
    for category in plan.categories:
        made = [c for c in plan.columns if c.category is category and c.pairs is not None and c.pairs.done]
        if made:
            yield f"gallery-{category.name}.png", _gallery(category, made)


def _gallery(category: CategoryPlan, columns: Sequence[Column]) -> np.ndarray:
    """A line for each defect type: its first pair by every column."""
    lines = []
    for kind in category.types:
        outputs = {c.entry.label: pairs_folder(c.pairs, kind) for c in columns if c.pairs is not None}
        lines += gallery.read_lines(outputs, types=[kind])
    return gallery.grid(lines)
