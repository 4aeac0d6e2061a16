"""The page that answers "do synthetic pairs help on my part?"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fast.bench.advice import advice, images, number, share, short, signed
from fast.bench.by_part import ByPart, by_part, told
from fast.bench.figures import GREY, PALETTE, Series, curve, svg
from fast.bench.results import Summary, summarize
from fast.bench.verdict import (
    BOTH,
    REAL,
    SYNTHETIC,
    WORTH,
    Answer,
    FoundAway,
    Gain,
    Verdict,
    gain,
    points,
    scores,
    type_gain,
    type_scores,
    types,
    verdict,
)
from fast.reports.report import (
    PREDICTION_KEY,
    Bar,
    Chart,
    Commands,
    Figure,
    Gallery,
    Points,
    Report,
    Section,
    Table,
    duration,
    pair_row,
    percent,
    trial_row,
)
from fast.segmentation.unmarked import LEAST, LISTED

LEAKING = "test pictures of parts that are trained on, too"
RUNS = (REAL, BOTH, SYNTHETIC)
_PERCENT = "\N{NO-BREAK SPACE}%"
LEAST_SPAN = 20.0  # points of IoU that a curve's axis covers, so that small changes look small


def page(answer: Answer) -> Report:
    found = verdict(answer)
    by = by_part(*(answer.runs.get(kind, ()) for kind in (REAL, BOTH)))
    sections = [
        _curve(answer, found),
        _types(answer, found),
        _parts(by),
        _pairs(answer),
        _predictions(answer),
        unmarked_section(answer.unmarked, "the network trained on real and synthetic ones"),
        Section("What to do next", "", [Points(advice(answer, found))]),
        Section("Do it again", "", [Commands(answer.commands)]) if answer.commands else None,
        _how(answer),
    ]
    return Report(
        title=f"Do synthetic pairs help on {_plain(answer.name)}? {found.answer.capitalize()}.",
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


def _curve(answer: Answer, found: Verdict) -> Section | None:
    shown = points(answer)
    if len(shown) < 2:
        return None
    summed = [(pairs, summary) for pairs, values in shown if (summary := summarize(values))]
    text = "Every point has the real defects in it; at the left end they are alone."
    if found.best is not None:
        pairs, top = found.best
        last = dict(shown)[shown[-1][0]]
        apart = gain(last, dict(shown)[pairs])
        chance = "" if apart and apart.sure else ", a lead that may be chance"
        where = f"with {pairs} pairs" if pairs else "with the real defects alone"
        text += f" The mean is highest {where}, {top:.1f} %, not at the last point{chance}."
    values = "; ".join(f"{pairs} pairs {one.mean:.1f} %" for pairs, one in summed)
    single = any(one.spread is None for _, one in summed)
    note = "Line: mean. " + ("" if single else "Band: one standard deviation to both sides. ")
    note += "Dots: single trainings. Dashed: the real defects alone."
    rows = [_point(*point, shown[0]) for point in shown]
    if shown[0][0] != 0:
        rows = [row[:-1] for row in rows]
        note = note.removesuffix(" Dashed: the real defects alone.")
    drawn, zero = _drawn(answer, shown)
    note += "" if zero else " The upright axis does not begin at zero."
    columns = ["synthetic pairs", "IoU", "spread", "trainings", "change, points"][: len(rows[0])]
    return Section(
        "How many pairs?",
        text,
        [
            Chart(drawn, f"Curve of the IoU against the number of synthetic pairs: {values}.", note),
            Table("The points of the curve", columns, rows),
        ],
    )


def _point(pairs: int, values: Sequence[float], first: tuple[int, list[float]]) -> list[str | Bar]:
    """A row of the curve's table."""
    one = summarize(values)
    assert one is not None
    change = gain(first[1], values) if pairs != first[0] else None
    return [str(pairs), Bar(one.mean / 100, strong=True), _spread(one), str(one.seeds), _change(change)]


def _drawn(answer: Answer, shown: Sequence[tuple[int, list[float]]]) -> tuple[str, bool]:
    """The curve, and whether its upright axis begins at zero."""
    summed = [summarize(values) for _, values in shown]
    means = [one.mean if one else None for one in summed]
    spreads = [one.spread if one else None for one in summed]
    line = Series("IoU", [pairs for pairs, _ in shown], means, spreads)
    real = f" beside {answer.counts['real']} real defects" if "real" in answer.counts else ""
    drawn = curve([line], x_label=f"synthetic pairs{real}", y_label="IoU of the defect pixels (%)")
    axes = drawn.axes[0]
    x, y = zip(*[(pairs, value) for pairs, values in shown for value in values], strict=True)
    axes.scatter(x, y, s=9, color=PALETTE[0], alpha=0.55, linewidths=0, zorder=3)
    if shown[0][0] == 0:
        axes.axhline(float(np.mean(shown[0][1])), linestyle="--", linewidth=1.2, color=GREY, zorder=1)
    low, high = axes.get_ylim()
    more = max(0.0, LEAST_SPAN - (high - low)) / 2
    bottom = max(0.0, min(low - more, 100 - LEAST_SPAN))
    axes.set_ylim(bottom, max(high + more, bottom + LEAST_SPAN))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if len(x) > 1 and min(x) < max(x):
        axes.set_xticks([pairs for pairs, _ in shown if pairs == 0 or pairs >= max(x) / 10])
    drawn.set_size_inches(5.6, 3.5)
    return svg(drawn), bottom == 0


def _types(answer: Answer, found: Verdict) -> Section | None:
    kinds = types(answer)
    if not kinds:
        return None
    parts = []
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
    parts.append(Table("Overlap of found and true defect pixels", columns, rows, total=True))
    parts.append(_further(answer, kinds))
    return Section(
        "By type of defect",
        f"{text}Change is real + synthetic against real only, with the margin of chance. Acc is the share of the "
        "defect pixels that was found, whatever else was marked. AP, average precision, judges the network's ranking "
        "of the pixels without a fixed threshold.",
        parts,
    )


def _parts(by: ByPart | None) -> Section | None:
    if by is None:
        return None
    return Section(
        "Which parts were tested",
        "Trainings that differ in chance alone do not show how much hangs on the parts that happen to be tested. Here "
        "the same networks are asked about other choices of them.",
        [Points([("Gain in IoU, all pixels:", f"{told(by)}.")])],
    )


def _doubt(by: ByPart | None, found: Verdict) -> str:
    """What to add to an answer that other parts might turn round."""
    if by is None or not by.doubtful or found.gain is None or not found.gain.sure:
        return ""
    return " With other parts tested it might be otherwise (below: which parts were tested)."


def _bars(real: list[float], both: list[float], synthetic: list[float]) -> list[str | Bar]:
    shares = [summarize(values) for values in (real, both, synthetic)]
    bars = [Bar(one.mean / 100 if one else None, strong=i == 1) for i, one in enumerate(shares)]
    return [*bars, _change(gain(real, both))]


def _further(answer: Answer, kinds: Sequence[str]) -> Table:
    columns = ["type", *(f"{name}, {run}" for name in ("Acc", "AP") for run in RUNS)]
    rows = [
        [short(answer, kind), *(_mean(type_scores(answer, run, kind, key)) for key in ("acc", "ap") for run in RUNS)]
        for kind in kinds
    ]
    total = [_mean(scores(answer.runs.get(run, ()), key)) for key in ("acc", "ap") for run in RUNS]
    return Table(
        "Found defect pixels (Acc) and average precision (AP)", columns, [*rows, ["All pixels", *total]], total=True
    )


def _pairs(answer: Answer) -> Section | None:
    parts: list[Table | Gallery | Points] = []
    if answer.pictures:
        parts += [_measured(answer.pictures), Points(_meanings(answer.pictures))]
    if answer.pairs:
        rows = [pair_row(short(answer, kind), normal, mask, made) for kind, normal, mask, made in answer.pairs]
        parts.append(Gallery("", rows))
    text = (
        "Look at them as an inspector would: is that a defect, and does it look like one of this type? A network "
        "learns what it is shown."
    )
    return Section("The pairs: are they defects?", text, parts) if parts else None


def _measured(pictures: Mapping[str, Any]) -> Table:
    real = pictures.get("real") or {}

    def shown(name: str, key: str, whole: bool) -> list[str]:
        values = [number(one, key) for one in (pictures, real)]
        return [name, *("–" if v is None else share(v) if whole else f"{v:.2f}" for v in values)]

    rows = [
        shown("look empty", "empty", True),
        shown("seam at the border", "seam", False),
        shown("likeness to the nearest real defect", "likeness", False),
        shown("copies of a real defect", "copied", True),
    ]
    count = f"{pictures['pairs']} pairs" if "pairs" in pictures else "the pairs"
    return Table(f"Measured on {count}, no network involved", ["measure", "pairs", "real defects"], rows)


def _meanings(pictures: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Look empty:", "pairs whose defect does not stand out from the part's own grain; 0 % is best."),
        (
            "Seam:",
            "how much sharper the border of the mask is than what is beside it; 1 is none. Near the real ones is good.",
        ),
        (
            "Likeness:",
            "1 is the same defect again. As alike as real defects are among themselves is good, copies are not.",
        ),
    ]


def _predictions(answer: Answer) -> Section | None:
    if not answer.predictions:
        return None
    rows = [trial_row(short(answer, kind), image, truth, found) for kind, image, truth, found in answer.predictions]
    return Section(
        "What the networks find",
        "Test pictures that no training saw, the first ones of each type, good or bad. Below each: its own IoU.",
        [Gallery("", rows, PREDICTION_KEY)],
    )


def unmarked_section(found: Sequence[FoundAway], who: str) -> Section | None:
    """Test pictures in which `who` found much where nothing is marked, for somebody to look at."""
    if not found:
        return None
    rows = [
        trial_row(f"{file}: {percent(share)} of the picture", image, truth, masks)
        for file, share, image, truth, masks in found
    ]
    return Section(
        "Found where nothing is marked",
        f"Test pictures in which {who} found most away from every mark: at least {percent(LEAST)} of the picture, one "
        f"picture of a part, {LISTED} at most. It is a false alarm, or a defect that nobody marked: look. Missing "
        "marks make IoU and AP too low, most of all where most is found; mark what is missing and run again. A false "
        "alarm, at grease or a reflection say, can grow rarer with normal images that show the like: pairs stand on "
        "them, and a network learns that it is no defect.",
        [Gallery("", rows, PREDICTION_KEY)],
    )


def _how(answer: Answer) -> Section:
    counts = {
        "real": "real defects trained on",
        "synthetic": "synthetic pairs",
        "normals": "normal pictures",
        "test": "test pictures",
        "steps": "steps of each training",
        "size": "pixels of a side that the network sees",
    }
    seeds = {kind: len(scores(answer.runs.get(kind, ()), "miou")) for kind in RUNS}
    rows = [
        ["pairs made by", answer.method],
        *([what, value] for what, value in answer.making),
        ["network trained on them", answer.network],
        *([name, str(answer.counts[key])] for key, name in counts.items() if key in answer.counts),
        *([[LEAKING, str(answer.leaking)]] if answer.leaking else []),
        *([["pictures", "windows of pictures at their own size"]] if answer.native else []),
        *([f"trainings, {kind}", str(n)] for kind, n in seeds.items()),
        ["split", answer.split[:12]],
        ["time of all of it", duration(answer.seconds)],
    ]
    return Section(
        "Measured how",
        "The kinds of training have the same network, the same number of steps, the same augmentation and the same "
        "test pictures; they differ in the pairs they train on, and where there are both, half of the defects drawn "
        "are real. The split keeps the test pictures out of all training, of the method that makes the pairs too, "
        "and nothing, no weights and no setting, was chosen by them.",
        [
            Points(
                [
                    (
                        "The rule.",
                        "Trainings that differ in their random numbers alone show how much of a change is chance; from "
                        "the differences of trainings of one seed follows its margin (Student's 95 % interval of "
                        "paired differences). Yes: all of the interval lies "
                        "above zero, and it reaches one point. No: all of it "
                        f"lies below {WORTH:.0f} point. Otherwise, and with one training of a kind: cannot tell.",
                    ),
                    (
                        "What it leaves out.",
                        "How much the figures would differ with other real defects to train on, and all but a little "
                        "of what other test parts would change: types with few test pictures feel that most. And "
                        "of many types one may cross its margin by chance.",
                    ),
                ]
            ),
            Table("What was measured", ["what", "value"], rows),
        ],
    )


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _spread(one: Summary) -> str:
    return "–" if one.spread is None else f"± {one.spread:.1f}"


def _change(change: Gain | None) -> str:
    if change is None:
        return "–"
    return signed(change.points) + ("" if change.margin is None else f" ± {change.margin:.1f}")


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} %" if values else "–"
