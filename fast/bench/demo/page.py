"""The demo's page, made of what the other stages left on disk."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fast.bench.demo.case import DemoPlan, Real, handful, tests
from fast.bench.demo.record import say, timed, times
from fast.bench.demo.work import SEGMENTERS, found_path, records
from fast.data.images import read_image, read_mask, write_bytes
from fast.procedural import defects_of
from fast.reports.report import (
    PREDICTION_KEY,
    Bar,
    Commands,
    Figure,
    Gallery,
    Report,
    ReportImage,
    Section,
    Table,
    duration,
    pair_row,
    percent,
    render,
    trial_row,
)
from fast.runtime.command import command_line

if TYPE_CHECKING:
    from fast.metrics.segmentation import MetricAccumulator

STAGES = {
    "draw": "drawing the test case",
    "pairs": "synthesizing pairs",
    "segmenters": "training and testing two segmenters",
    "report": "writing this page",
}
PAIRS_SHOWN, TRIALS_SHOWN = 6, 3  # rows for each material


def report(plan: DemoPlan, out: Path) -> Path:
    """Write report.html from what the other stages have left. Returns its path."""
    say("writing the report")
    start = time.perf_counter()
    page = out / "report.html"
    with timed(out, "report", afresh=True):
        made = {m: records(out / "pairs" / m) for m in plan.materials}
        sections = [
            _pairs(plan, out, made),
            _worth(plan, out),
            _trials(plan, out),
            _own_part(),
            _how(plan, {**times(out), "report": time.perf_counter() - start}, made),
        ]
        spent = {**times(out), "report": time.perf_counter() - start}
        write_bytes(page, render(_front(plan, out, sections, spent, made)).encode(errors="backslashreplace"))
    return page


def _front(
    plan: DemoPlan, out: Path, sections: list[Section], spent: dict[str, float], made: dict[str, list[dict[str, Any]]]
) -> Report:
    alone, merged = (tally(plan, out, name, lambda _: "all")["all"] for name in SEGMENTERS)
    count, few = sum(map(len, made.values())), len(handful(plan, out))
    gain = 100 * ((merged.iou or 0) - (alone.iou or 0))
    per_pair = duration(spent.get("pairs", 0.0) / count)
    names = list(SEGMENTERS.values())
    change = f"{abs(gain):.1f} points {'more' if gain >= 0 else 'less'}, on the same {alone.images} test pictures"
    return Report(
        title="Defects from words and masks, for parts the model has never seen",
        lead=(
            f"{len(plan.materials)} materials that were kept out of all training, {few} real defects in all (real here "
            "means drawn, not synthesized: the project ships no photographs), and "
            f"{count} synthetic pairs made from normal pictures, masks and a few words. Does a segmentation network "
            "trained on them find more of the defects it has not seen? Every number on this page was measured in the "
            "run that wrote it."
        ),
        figures=[
            Figure(percent(merged.iou), f"IoU, {names[1]}", change, strong=True),
            Figure(percent(alone.iou), f"IoU, {names[0]}", f"{few} real defects, the same steps of training"),
            Figure(per_pair, "per synthetic pair", f"{plan.size} × {plan.size} pixels, {count} pairs"),
            Figure(
                duration(sum(spent.values())),
                "from nothing to this page",
                f"on {os.cpu_count()} cores, training included",
            ),
        ],
        sections=sections,
        foot=(
            "Written by FAST. The materials and their defects are drawn by the project's own generator; “real” means "
            "drawn, not synthesized. IoU and Acc are those of the defect pixels, summed over all pictures."
        ),
        cover=_cover(plan, out, made),
    )


def _cover(plan: DemoPlan, out: Path, made: dict[str, list[dict[str, Any]]]) -> list[ReportImage]:
    """A synthetic picture of each material."""
    rows = [(m, first_of(made[m])[defect]) for m, (defect,) in spread(plan.materials, 1, rarest=True).items()]
    return [
        ReportImage(
            read_image(out / "pairs" / material / row["image"]),
            f"{row['prompt']}, synthetic",
            f"A synthetic defect: {row['prompt']}",
        )
        for material, row in rows
    ]


def _pairs(plan: DemoPlan, out: Path, made: dict[str, list[dict[str, Any]]]) -> Section:
    from fast.reports.contact_sheet import read_row

    galleries, shown = [], spread(plan.materials, PAIRS_SHOWN, rarest=True)
    for material in plan.materials:
        first, rows = first_of(made[material]), []
        for defect in (d for d in shown[material] if d in first):
            pair = read_row(out / "pairs" / material, first[defect])
            rows.append(pair_row(_title(defect), pair.normal, pair.mask, pair.synthetic, f"“{pair.caption}”"))
        galleries.append(Gallery(_title(material), rows))
    return Section(
        "The pairs",
        "A normal picture, a mask and the quoted words go in; the synthetic picture comes out. Outside the mask every "
        f"byte is that of the normal picture. Shown are {PAIRS_SHOWN} types of each material, the first pair made of "
        f"each; all of them lie in {out / 'pairs'}.",
        galleries,
    )


def _worth(plan: DemoPlan, out: Path) -> Section:
    counts = Counter(d.defect for d in handful(plan, out))
    few, count = sum(counts.values()), plan.pairs * len(plan.types())
    return Section(
        "What the pairs are worth",
        f"Two networks of 0.8 million parameters, the same start, {plan.steps} steps of 8 windows each. One trains on "
        f"{few} real defects, the other on these and {count} synthetic pairs; both see the normal pictures too. The "
        "test pictures were used by neither. Single types rest on few pictures: read their figures as a tendency.",
        [
            _scores(plan, out, "By material", "material", lambda d: _title(d.material)),
            _scores(plan, out, "By type of defect", "type", lambda d: _title(d.defect), counts),
        ],
    )


def _scores(
    plan: DemoPlan,
    out: Path,
    caption: str,
    what: str,
    key: Callable[[Real], str],
    counts: Counter[str] | None = None,
) -> Table:
    sums = [tally(plan, out, name, key) for name in SEGMENTERS]
    totals = [tally(plan, out, name, lambda _: "All")["All"] for name in SEGMENTERS]
    rows: list[list[str | Bar]] = []
    for name in sums[0]:
        given = [] if counts is None else [str(sum(n for d, n in counts.items() if _title(d) == name))]
        rows.append([name, str(sums[0][name].images), *given, *_cells(*([own[name]] for own in sums))])
    rest = [] if counts is None else [""]
    rows.append([f"Mean of the {what}s", "", *rest, *_cells(*(list(own.values()) for own in sums))])
    rest = [] if counts is None else [str(sum(counts.values()))]
    rows.append(["All pixels", str(totals[0].images), *rest, *_cells(*([total] for total in totals))])
    given = [] if counts is None else ["real in training"]
    columns = [what, "test pictures", *given, *(f"{s}, {n}" for s in ("IoU", "Acc") for n in SEGMENTERS.values())]
    return Table(caption, columns, rows, total=True)


def _cells(alone: Sequence[MetricAccumulator], merged: Sequence[MetricAccumulator]) -> list[str | Bar]:
    """IoU and Acc of both segmenters; of several tallies the means over those that have a figure."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known else None

    iou = [mean(t.iou for t in tallies) for tallies in (alone, merged)]
    acc = [mean(t.acc for t in tallies) for tallies in (alone, merged)]
    return [Bar(iou[0]), Bar(iou[1], strong=True), *map(percent, acc)]


def _trials(plan: DemoPlan, out: Path) -> Section:
    galleries = []
    shown = spread(plan.materials, TRIALS_SHOWN)
    for material in plan.materials:
        jobs = [d for d in tests(plan, out) if d.material == material and d.defect in shown[material] and d.index == 0]
        rows = [
            trial_row(
                f"{_title(job.material)}, {job.defect}",
                read_image(job.image),
                read_mask(job.mask),
                {label: read_mask(found_path(out, name, job)) for name, label in SEGMENTERS.items()},
            )
            for job in jobs
        ]
        galleries.append(Gallery("", rows, PREDICTION_KEY if material == plan.materials[0] else ()))
    return Section(
        "What the networks find",
        f"{TRIALS_SHOWN} types of each material, the first test picture of each, good or bad.",
        galleries,
    )


def _own_part() -> Section:
    segment = command_line("scripts/segment.py")
    synthesis = (
        f"{command_line('generate_with_mask.py')} --data_root parts/normal --mask_path parts/masks --pt_path {{}} \\\n"
        "  --sample_name samples/{} --count 500"
    )
    return Section(
        "Your own part",
        "Normal pictures in parts/normal, masks (white where the defect is to be) in parts/masks, in folders named by "
        "the defect: parts/masks/scratch, parts/masks/dent. On a GPU, and on a CPU that has bfloat16, add --precision "
        "bf16 to the synthesis.",
        [
            Commands(
                [
                    ("Words and masks alone, without one real defect", synthesis.format("mini", "words")),
                    (
                        "Look at them",
                        f"{command_line('scripts/contact_sheet.py')} samples/words --out samples/words.png",
                    ),
                    (
                        "With real defects in parts/defects/scratch and so on, masks of the same names in parts/masks: "
                        "adapt to the part, then synthesize",
                        f"{command_line('main.py')} --base configs/mini/fast.yaml -t --mvtec_path parts -n parts\n"
                        + synthesis.format("logs/parts", "parts"),
                    ),
                    (
                        "Measure what the pairs are worth for it",
                        f"{segment} --train parts --test parts --segmenter mini --out real.json\n"
                        f"{segment} --train parts samples/parts --test parts --segmenter mini "
                        "--out merged.json",
                    ),
                ]
            )
        ],
    )


def _how(plan: DemoPlan, spent: dict[str, float], made: dict[str, list[dict[str, Any]]]) -> Section:
    rows = [[name, duration(spent[stage])] for stage, name in STAGES.items() if stage in spent]
    rows.append(["all", duration(sum(spent.values()))])
    first = next(record for lines in made.values() for record in lines)
    return Section(
        "How it was done",
        f"Sampler {first['sampler']}, {first['steps']} evaluations of the network for a pair, precision "
        f"{first['precision']}, on the {first['device'].upper()}; weights {first['weights']}. The time for pairs "
        "includes loading the weights. The same seed gives the same pairs again.",
        [Table("Where the time went", ["stage", "time"], rows, total=True)],
    )


def tally(plan: DemoPlan, out: Path, name: str, key: Callable[[Real], str]) -> dict[str, MetricAccumulator]:
    """The pixels a segmenter found in the test pictures, summed up by `key`, in the order they come."""
    from fast.metrics.segmentation import MetricAccumulator

    sums: dict[str, MetricAccumulator] = {}
    for job in tests(plan, out):
        found, truth = read_mask(found_path(out, name, job)) > 0, read_mask(job.mask) > 0
        sums.setdefault(key(job), MetricAccumulator()).add(found, truth, found.astype(np.float32))
    return sums


def first_of(made: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The first pair's record by type of defect."""
    return {record["type"].split("/", 1)[1]: record for record in reversed(made)}


def spread(materials: Sequence[str], count: int, rarest: bool = False) -> dict[str, list[str]]:
    """`count` types of each material, as many different ones in all as there can be; `rarest`: those first that occur
    on few of the materials."""
    common = Counter(defect for material in materials for defect in defects_of(material))
    seen: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    for material in materials:
        types = defects_of(material)
        chosen = sorted(types, key=lambda d: (seen[d], common[d] * rarest))[:count]
        seen.update(chosen)
        shown[material] = [d for d in types if d in chosen]
    return shown


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
