"""Does it help? Real defects alone, synthetic pairs alone, both, and how many pairs: a protocol and a page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fast.bench.answer_page import page
from fast.bench.candidates import CANDIDATES
from fast.bench.grid import Cell
from fast.bench.page_pictures import SHOWN_PAIRS, SHOWN_TESTS, seen, smaller
from fast.bench.plan import CategoryPlan, Column, SweepPlan
from fast.bench.protocol import Entry, PairsRule, Protocol, Segmentation, SplitRule, Start, TrainingRule, check
from fast.bench.verdict import BOTH, REAL, SYNTHETIC, Answer, FoundAway
from fast.bench.work import WEIGHTS, pairs_folder
from fast.data.index import Sample
from fast.generators import LATENT
from fast.generators.looks import place_of_looks
from fast.reports.contact_sheet import read_row
from fast.reports.report import render
from fast.runtime.command import command_line
from fast.segmentation.data import from_samples
from fast.segmentation.networks import PRETRAINED, load
from fast.synthesis.records import read_records
from ldm.errors import UserError

PARTS = (8, 4, 2)  # the curve has an eighth, a quarter and a half of the pairs
SHARDS, START_STEPS = 8, 1500  # of the drawn defects that segmenters begin with
DRAFTED = {
    "transplant": "real defects of the training side set into normal images",
    "procedural": "drawn defects",
    "mixed": "real defects of the training side set into normal images, and drawn ones that look like them",
}
EVALUATIONS = 10  # of a method on a latent base, where no candidate says how it makes pairs


def protocol_of(
    method: str = "fast",
    count: int = 100,
    segmenter: str = "fpn",
    size: int = 256,
    seeds: int = 3,
    steps: int | None = None,
    precision: str = "auto",
    split: str | None = None,
    native: bool = False,
    upright: bool = False,
    looks: Mapping[str, Sequence[str]] | None = None,
    trained: Collection[str] = (),
    real_share: float | str = 0.5,
) -> Protocol:
    """The protocol behind `scripts/bench.py --dataset FOLDER`: small recipes, and segmenters that begin alike.

    Args:
        method: what makes the pairs, one of `fast.generators.METHODS`.
        count: pairs of each defect type.
        segmenter: the network that is trained on them.
        size: side in pixels of all pictures, or with `native` of the windows that the segmenter sees.
        seeds: trainings of the segmenter of each kind.
        steps: optimizer steps of each. None: as many as the network needs.
        precision: in which pairs are made and the segmenter is trained, "auto", "fp32" or "bf16".
        split: a split file. None: a third of each type trains.
        native: pictures keep their own size.
        upright: training pictures are not turned by large angles.
        looks: what is drawn for a type, see `fast.generators.looks`. None: the types' names decide.
        trained: methods whose trained weights are given.
        real_share: share of the defects drawn that are real, where there are both, or "merge" to draw all equally
            often.

    Raises:
        UserError: when an option cannot be, or `looks` are given for a method that draws nothing.
    """
    for name, number in (("count", count), ("seeds", seeds)):
        if number < 1:
            raise UserError(f"--{name} {number} must be above 0")
    how: dict[str, Any] = {"steps": EVALUATIONS, "windows": True} if method in LATENT else {}
    if (adapted := CANDIDATES.get(method)) and adapted.adapted:  # as --auto has it
        how |= {"train": () if method in trained else adapted.training, **adapted.options}
    if looks:
        how |= {"options": (_drawn_as(method, str(how.get("draft", "none")), looks),)}
    entries = [
        Entry(REAL),
        Entry(SYNTHETIC, method, real="none", **how),
        Entry(BOTH, method, **how),
        *(Entry(str(n), method, count=n, **how) for n in sorted({count // part for part in PARTS}) if n),
    ]
    protocol = Protocol(
        f"answer-{method}-{segmenter}",
        "Real defects, synthetic pairs, or both",
        tuple(entries),
        column="pairs",
        metrics=("mIoU", "mIoU (types)", "Acc", "AP", "AUROC"),
        split=SplitRule(file=split),
        pairs=PairsRule(per_type=count, size=None if native else size, masks="given", precision=precision),
        training=TrainingRule(recipes="small"),
        segmentation=Segmentation(
            networks=(segmenter,),
            seeds=tuple(range(seeds)),
            steps=(700 if segmenter in PRETRAINED else 600) if steps is None else steps,
            batch_size=8,
            size=size,
            native=native,
            augment="upright" if upright else "classical",
            lr=None if segmenter in PRETRAINED else 1e-3,
            draw="parts",
            prior="real",
            real_share=None if isinstance(real_share, str) else real_share,
            normals=0.3,  # for all three: pairs stand on normals, and real defects alone would never see one
            precision=precision,
            start=None if segmenter in PRETRAINED else _start(size, precision),
        ),
    )
    check(protocol, "the command")
    return protocol


def _start(size: int, precision: str) -> Start:
    return Start(SHARDS, START_STEPS, size, crop=size // 2 if size >= 32 else None, precision=precision)


def _drawn_as(method: str, draft: str, looks: Mapping[str, Sequence[str]]) -> str:
    """The option of `generate_with_mask.py` that says what is drawn for a type. UserError where nothing is drawn."""
    place = place_of_looks(method, draft)
    if not place:
        raise UserError(f"--looks says how defects are drawn, and {method} draws none; leave it out")
    return f"method.{place}={json.dumps({name: list(types) for name, types in looks.items()}, ensure_ascii=False)}"


def write_pages(plan: SweepPlan, command: str) -> Iterator[tuple[str, str]]:
    """(file name, HTML) for each category of a plan that `protocol_of` made; `command`: the line that made it."""
    several = len(plan.categories) > 1
    for category in plan.categories:
        columns = {c.entry.label: c for c in plan.columns if c.category is category}
        html = render(page(_answer(plan, category, columns, command)))
        yield f"{category.name}.html" if several else "report.html", html


def _commands(column: Column, command: str) -> list[tuple[str, str]]:
    """(what it does, command line)"""
    assert column.pairs is not None
    folder = pairs_folder(column.pairs, column.category.types[0])
    more = f"{command_line('scripts/contact_sheet.py')} {shlex.join([str(folder), '--out', 'pairs.png'])}"
    return [("This page again; a run that was stopped goes on", command), ("Look at more of the pairs", more)]


def _answer(plan: SweepPlan, category: CategoryPlan, columns: dict[str, Column], command: str) -> Answer:
    seg, (network,) = plan.protocol.segmentation, plan.protocol.segmentation.networks
    runs = {label: _metrics(columns[label]) for label in (REAL, SYNTHETIC, BOTH)}
    counted = sorted((int(label), column) for label, column in columns.items() if label.isdigit())
    curve = [(0, runs[REAL]), *((_pairs(c), _metrics(c)) for _, c in counted), (_pairs(columns[BOTH]), runs[BOTH])]
    both = columns[BOTH]
    cells = {cell.folder: cell for c in columns.values() for cell in _all(c)}
    counts = {
        "real": len(category.train),
        "synthetic": _pairs(both),
        "normals": len(category.index.normals),
        "test": len(category.test) + (len(category.index.test_normals) if seg.test_normals else 0),
        "steps": seg.steps,
        "size": seg.size,
    }
    if network == "quick":  # its training is its own, and pictures of their own size it sees whole
        del counts["steps"]
        if seg.native:
            del counts["size"]
    return Answer(
        name=category.name,
        method=str(both.entry.method),
        network=network,
        runs=runs,
        curve=[(n, found) for n, found in curve if found],
        counts=counts,
        split=category.split.hash,
        pictures=both.pictures.result() if both.pictures and both.pictures.done else None,
        pairs=list(_shown_pairs(both)),
        predictions=list(_predictions(columns, category, network, seg)),
        unmarked=list(_unmarked(columns, category, network, seg)),
        commands=_commands(both, command),
        seconds=sum(cell.seconds for cell in cells.values()),
        draft=both.entry.draft,
        native=seg.native and network != "quick",
        making=list(_making(both.entry, given=_weights(both))),
        leaking=sum(len(leak.seen) for leak in category.leaks),
        real_share=seg.real_share,
    )


def _weights(column: Column) -> str | None:
    """The file of the weights that the user gave for a column's pairs, if any."""
    needs = () if column.pairs is None else column.pairs.needs
    return next((Path(need.use["file"]).name for need in needs if need.kind == "given"), None)


def _making(entry: Entry, given: str | None = None) -> Iterator[tuple[str, str]]:
    """How a column's pairs are made, for the reader; `given`: the weights if they were not trained for it."""
    if given is not None:
        yield "weights given", given
    elif entry.train:
        yield "trained with", ", ".join(entry.train)
    if entry.draft != "none":
        yield "pairs start from", f"{DRAFTED[entry.draft]}; strength {entry.strength:g}"
    if entry.steps is not None:
        yield "evaluations of the network for a pair", str(entry.steps)


def _metrics(column: Column) -> list[dict[str, Any]]:
    return [cell.result()["metrics"] for cell in column.segments.values() if cell.done]


def _pairs(column: Column) -> int:
    """Synthetic pairs of all types that a column trains on, at most."""
    assert column.pairs is not None
    per_type = column.entry.count or column.pairs.key["per_type"]
    return int(per_type * len(column.pairs.key["types"]))


def _all(column: Column) -> Iterator[Cell]:
    waiting = [cell for cell in (*column.segments.values(), column.pictures) if cell is not None]
    while waiting:
        cell = waiting.pop()
        waiting += cell.needs
        yield cell


def _shown_pairs(column: Column) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(type, normal, mask, synthetic) of the first pairs of each type."""
    assert column.pairs is not None
    if not column.pairs.done:
        return
    for kind in column.pairs.key["types"]:
        folder = pairs_folder(column.pairs, kind)
        for record in read_records(folder)[:SHOWN_PAIRS]:
            row = read_row(folder, record)
            yield kind, smaller(row.normal), smaller(row.mask), smaller(row.synthetic)


def _predictions(
    columns: dict[str, Column], category: CategoryPlan, network: str, seg: Segmentation
) -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """The first test pictures of each type as the first seed's networks see them: not chosen."""
    chosen = [
        (kind, sample)
        for kind in category.types
        for sample in [s for s in category.test if f"{s.category}/{s.anomaly}" == kind][:SHOWN_TESTS]
    ]
    for (kind, _), shown in zip(chosen, _seen(columns, [s for _, s in chosen], network, seg), strict=False):
        yield kind, *shown


def _unmarked(
    columns: dict[str, Column], category: CategoryPlan, network: str, seg: Segmentation
) -> Iterator[FoundAway]:
    """As `Answer.unmarked`, by the first seed's network that was trained on both."""
    cell = columns[BOTH].segments[network, seg.seeds[0]]
    rows = cell.result()["metrics"].get("unmarked", []) if cell.done else []
    tested = [*category.test, *(category.index.test_normals if seg.test_normals else [])]
    tests = {category.index.relative(s.image): s for s in tested}
    shown = _seen(columns, [tests[row["image"]] for row in rows], network, seg)
    for row, found in zip(rows, shown, strict=False):
        yield row["image"], row["share"], *found


def _seen(
    columns: dict[str, Column], samples: Sequence[Sample], network: str, seg: Segmentation
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """What the first seed's networks find in test pictures; nothing where they are not trained yet."""
    cells = {label: columns[label].segments[network, seg.seeds[0]] for label in (REAL, BOTH)}
    if not all(cell.done for cell in cells.values()):
        return
    tile = seg.size if seg.native and network != "quick" else None  # the quick judge sees whole pictures
    networks = {label: load(cell.folder / WEIGHTS) for label, cell in cells.items()}
    for pair in from_samples(samples):
        yield seen(pair, networks, None if seg.native else seg.size, tile)
