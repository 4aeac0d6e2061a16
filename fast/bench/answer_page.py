"""The page that answers "do synthetic pairs help on my part?"."""

from __future__ import annotations

from fast.bench.advice import advice, signed
from fast.bench.answer_breakdown import parts_section, types_section
from fast.bench.answer_curve import curve_section
from fast.bench.answer_galleries import pairs_section, predictions_section, unmarked_section
from fast.bench.answer_how import how_section
from fast.bench.by_part import ByPart, by_part
from fast.bench.results import summarize
from fast.bench.verdict import BOTH, REAL, SYNTHETIC, Answer, Verdict, scores, verdict
from fast.reports.report import Commands, Figure, Points, Report, Section

_PERCENT = "\N{NO-BREAK SPACE}%"


def page(answer: Answer) -> Report:
    name, found = answer.name.replace("_", " "), verdict(answer)
    by = by_part(*(answer.runs.get(kind, ()) for kind in (REAL, BOTH)))
    sections = [
        curve_section(answer, found),
        types_section(answer, found),
        parts_section(by),
        pairs_section(answer),
        predictions_section(answer),
        unmarked_section(answer.unmarked, "the network trained on real and synthetic ones"),
        Section("What to do next", "", [Points(advice(answer, found))]),
        Section("Do it again", "", [Commands(answer.commands)]) if answer.commands else None,
        how_section(answer),
    ]
    return Report(
        title=f"Do synthetic pairs help on {name}? {found.answer.capitalize()}.",
        lead=f"{sentence(answer, found)}{_doubt(by, found)} IoU is the overlap of the pixels the network calls "
        "defect with those that are: 100 % if it marks exactly these.",
        figures=[_figure(answer, kind, found.answer == "yes" and kind == BOTH) for kind in (BOTH, REAL, SYNTHETIC)],
        sections=[section for section in sections if section],
        foot="Written by FAST. Every number was measured on this dataset. Changes are of figures before rounding.",
    )


def sentence(answer: Answer, found: Verdict) -> str:
    """The answer with its numbers."""
    real, both, change = found.real, found.both, found.gain
    if real is None or both is None or change is None:
        missing = " and none with ".join(kind for kind, one in ((REAL, real), (BOTH, both)) if one is None)
        return f"No training with {missing} has been finished."
    way = f"from {real.mean:.1f}{_PERCENT} to {both.mean:.1f}{_PERCENT}"
    if change.margin is None:
        return (
            f"The IoU went {way}: {signed(change.points)} points. But one training of a kind does not say how much of "
            "that is chance; it takes two of each, better three."
        )
    by = f"{signed(change.points)} points, give or take {change.margin:.1f}"
    if found.answer == "yes":
        return f"On test pictures that no training saw, synthetic pairs raise the IoU {way}: {by}."
    if found.answer == "no" and change.sure and change.points < 0:
        return f"On test pictures that no training saw, synthetic pairs lower the IoU {way}: {by}."
    if found.answer == "no":
        return (
            f"On test pictures that no training saw, the IoU hardly moves, {way}: {by}. A gain of one point or more "
            "is as good as ruled out."
        )
    return f"The IoU went {way}: {by}. That much may come about by chance alone."


def _doubt(by: ByPart | None, found: Verdict) -> str:
    """What to add to an answer that other parts might turn round."""
    if by is None or not by.doubtful or found.gain is None or not found.gain.sure:
        return ""
    return " With other parts tested it might be otherwise (below: which parts were tested)."


def _figure(answer: Answer, kind: str, strong: bool) -> Figure:
    found = summarize(scores(answer.runs.get(kind, ()), "miou"))
    given = [("real", "real defects")] * (kind != SYNTHETIC) + [("synthetic", "synthetic pairs")] * (kind != REAL)
    made_of = " + ".join(f"{answer.counts[key]} {what}" for key, what in given if key in answer.counts)
    if found is None:
        return Figure("–", f"IoU, {kind}", "not measured", strong)
    note = (
        "one training"
        if found.spread is None
        else f"±\N{NO-BREAK SPACE}{found.spread:.1f} between {found.seeds} trainings"
    )
    return Figure(f"{found.mean:.1f} %", f"IoU, {kind}", f"{made_of}; {note}" if made_of else note, strong)
