"""The sections of the answer's page that take the figures apart: by type of defect, and by the parts tested."""

from __future__ import annotations

from collections.abc import Sequence

from fast.bench.advice import images, short, signed
from fast.bench.by_part import ByPart, told
from fast.bench.page_cells import change_text, mean_text
from fast.bench.results import summarize
from fast.bench.verdict import RUNS, Answer, Verdict, gain, scores, type_gain, type_scores, types
from fast.reports.report import Bar, Points, Section, Table


def types_section(answer: Answer, found: Verdict) -> Section | None:
    """Tables of IoU, Acc and AP; None where no type was tested."""
    kinds = types(answer)
    if not kinds:
        return None
    if found.fell:
        fell = [
            f"{short(answer, kind)} ({signed(g.points)} points, "
            f"{'one training' if g.margin is None else 'more than chance explains' if g.sure else 'may be chance'})"
            for kind, g in found.fell
        ]
        text = f"IoU fell for {'; '.join(fell)}. "
    else:
        text = "IoU fell for no type. " if any(type_gain(answer, kind, "iou") for kind in kinds) else ""
    rows: list[list[str | Bar]] = [
        [
            short(answer, kind),
            str(images(answer, kind) or "–"),
            *_bars(*(type_scores(answer, run, kind, "iou") for run in RUNS)),
        ]
        for kind in kinds
    ]
    rows.append(["All pixels", "", *_bars(*(scores(answer.runs.get(run, ()), "miou") for run in RUNS))])
    columns = ["type", "test pictures", *(f"IoU, {run}" for run in RUNS), "change, points"]
    return Section(
        "By type of defect",
        f"{text}Change is real + synthetic against real only, with the margin of chance. Acc is the share of the "
        "defect pixels that was found, whatever else was marked. AP, average precision, judges the network's ranking "
        "of the pixels without a fixed threshold.",
        [Table("Overlap of found and true defect pixels", columns, rows, total=True), _further(answer, kinds)],
    )


def _bars(real: list[float], both: list[float], synthetic: list[float]) -> list[str | Bar]:
    shares = [summarize(values) for values in (real, both, synthetic)]
    bars = [Bar(one.mean / 100 if one else None, strong=i == 1) for i, one in enumerate(shares)]
    return [*bars, change_text(gain(real, both))]


def _further(answer: Answer, kinds: Sequence[str]) -> Table:
    columns = ["type", *(f"{name}, {run}" for name in ("Acc", "AP") for run in RUNS)]
    rows = [
        [
            short(answer, kind),
            *(mean_text(type_scores(answer, run, kind, key)) for key in ("acc", "ap") for run in RUNS),
        ]
        for kind in kinds
    ]
    total = [mean_text(scores(answer.runs.get(run, ()), key)) for key in ("acc", "ap") for run in RUNS]
    return Table(
        "Found defect pixels (Acc) and average precision (AP)", columns, [*rows, ["All pixels", *total]], total=True
    )


def parts_section(by: ByPart | None) -> Section | None:
    """How much hangs on single parts; None where that was not counted."""
    if by is None:
        return None
    return Section(
        "Which parts were tested",
        "Trainings that differ in chance alone do not show how much hangs on the parts that happen to be tested. Here "
        "the same networks are asked about other choices of them.",
        [Points([("Gain in IoU, all pixels:", f"{told(by)}.")])],
    )
