"""The page of `scripts/bench.py --auto`: what was tried, what was taken and why, and what the segmenter finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fast.bench.answer_galleries import unmarked_section
from fast.bench.answer_how import LEAKING
from fast.bench.auto import NETWORK, Delivered
from fast.bench.candidates import CANDIDATES
from fast.bench.choice import LEAST, CandidateScore
from fast.bench.fairness import told_share
from fast.bench.few import ALONE
from fast.bench.page_cells import points_text
from fast.bench.page_pictures import SHOWN_PAIRS, SHOWN_TESTS, seen, smaller
from fast.bench.verdict import FoundAway
from fast.data.alike import leaks_of
from fast.data.images import read_image
from fast.data.index import Sample
from fast.reports.report import (
    PREDICTION_KEY,
    Bar,
    Commands,
    Figure,
    Gallery,
    ImageRow,
    Points,
    Report,
    Section,
    Table,
    duration,
    pair_row,
    percent,
    trial_row,
)
from fast.segmentation.data import from_samples


def page(found: Delivered, commands: Sequence[tuple[str, str]]) -> Report:
    name, final = found.name.replace("_", " "), found.final
    sections = [
        _tried(found),
        _types(found),
        Section("What lies in this folder", "", [Points(_files(found))]),
        _pairs(found),
        Section(
            "What the segmenter finds",
            "Test pictures that nothing was trained on or chosen by, the first ones of each type, good or bad.",
            [Gallery("", list(_predictions(found)), PREDICTION_KEY)],
        ),
        unmarked_section(list(_unmarked(found)), "the segmenter"),
        Section("Do it again", "", [Commands(commands)]),
        _how(found),
    ]
    figures = [
        Figure(percent(final.figures["miou"]), "IoU of the delivered segmenter", "test side, all pixels", strong=True),
        Figure(percent(final.figures["miou_types"]), "mean of the types' IoU", "test side"),
        Figure(_best(found), "gain of what was taken", "nested splits, quick judge, in points"),
    ]
    return Report(
        title=f"What helps on {name}? {_title(found)}.",
        lead=f"{_sentence(found)} {_spent(found)}",
        figures=figures,
        sections=[section for section in sections if section],
        foot="Written by FAST. Every number was measured on this dataset.",
    )


def _title(found: Delivered) -> str:
    if found.choice.taken:
        return found.choice.taken.capitalize()
    enough = any(score.splits >= LEAST for score in found.choice.scores)
    return "Nothing that was tried" if enough else "The minutes were too few to tell"


def _best(found: Delivered) -> str:
    score = next((s for s in found.choice.scores if s.label == found.choice.taken), None)
    return "none" if score is None else _gain(score)


def _sentence(found: Delivered) -> str:
    choice = found.choice
    count = sum(not made.counterfeit for made in found.final.made)
    if choice.taken is None:
        why = "Nothing raised the score above that of real defects with classical augmentation by more than chance"
        few = any(score.splits < LEAST for score in choice.scores)
        short = "; the minutes sufficed for one nested split, which says nothing about chance" if few else ""
        if not choice.scores:
            why = "No pairs were tried: the minutes sufficed for none, or none could be made"
        return f"{why}{short}, so the segmenter was trained on the {len(found.sides.train)} real defects alone."
    score = next(s for s in choice.scores if s.label == choice.taken)
    return (
        f"On {score.splits} splits inside the training side, {choice.taken} raised the score from "
        f"{score.iou - score.gain:.1f} to {score.iou:.1f} %: {_gain(score)} points. The segmenter was trained on "
        f"{len(found.sides.train)} real defects and {count} pairs made so, and tested once on the test side."
    )


def _spent(found: Delivered) -> str:
    asked, taken = found.plan.minutes, found.seconds / 60
    over = "" if taken < 1.05 * asked else ", more than was foreseen by what was measured at its beginning"
    return f"Asked for {asked:g} minutes, taken {taken:.1f}{over}."


def _why_not(score: CandidateScore) -> str:
    return "cannot tell from one split" if score.splits < LEAST else "may be chance" if score.gain > 0 else "no gain"


def _gain(score: CandidateScore) -> str:
    return points_text(score.gain, score.error)


def _tried(found: Delivered) -> Section:
    choice = found.choice
    rows: list[list[str | Bar]] = [
        [ALONE, "real defects with classical augmentation", Bar(choice.alone / 100), _splits(found, ALONE), "–",
         _time(found, ALONE), "" if choice.taken else "taken"]
    ]  # fmt: skip
    for score in choice.scores:
        decision = "taken" if score.label == choice.taken else "helps" if score.helps else _why_not(score)
        what = CANDIDATES[score.label].what if score.label in CANDIDATES else "half of the pairs of each"
        bar = Bar(score.iou / 100, strong=score.label == choice.taken)
        rows.append([score.label, what, bar, str(score.splits), _gain(score), _time(found, score.label), decision])
    columns = ["pairs", "what they are", "score", "nested splits", "gain, points", "time of a trial", ""]
    parts: list[Table | Points] = [Table("Tried on splits inside the training side", columns, rows)]
    if choice.left_out:
        parts.append(Points([(f"Left out, {label}:", f"{why}.") for label, why in choice.left_out.items()]))
    return Section(
        "What was tried, and why this was taken",
        "Score: the mean of the IoU of all defect pixels and of the mean of the types' IoU, by the quick judge. Gain: "
        "above real defects alone on the same split, mean and standard error. Taken is the highest gain that is above "
        "its standard error. The best of several gains measured on few splits is flattered; what the test side says "
        "is above.",
        parts,
    )


def _splits(found: Delivered, label: str) -> str:
    return str(sum(row["label"] == label for row in found.choice.rows))


def _time(found: Delivered, label: str) -> str:
    seconds = [row["seconds"] for row in found.choice.rows if row["label"] == label]
    return duration(float(np.mean(seconds))) if seconds else "–"


def _types(found: Delivered) -> Section:
    figures = found.final.figures
    rows: list[list[str | Bar]] = [
        [kind.split("/", 1)[-1], str(own["images"]), Bar(own["iou"]), percent(own["acc"]), percent(own["ap"])]
        for kind, own in figures["types"].items()
    ]
    rows.append(["All pixels", "", Bar(figures["miou"], strong=True), percent(figures["acc"]), percent(figures["ap"])])
    columns = ["type", "test pictures", "IoU", "Acc", "AP"]
    return Section(
        "The delivered segmenter on the test side",
        "Scored once, at the end; nothing was chosen by it. Acc is the share of the defect pixels that was found; AP "
        "judges the ranking of the pixels without a threshold.",
        [Table("Overlap of found and true defect pixels", columns, rows, total=True)],
    )


def _files(found: Delivered) -> list[tuple[str, str]]:
    pairs = [("pairs/", "the image-mask pairs, with a manifest of what each was made from")] if found.final.made else []
    return [
        ("segmenter.onnx:", "the segmenter, for onnxruntime and others; one class of defects"),
        ("segmenter.json, segmenter.txt:", "what is done before and after it, for programs and for people"),
        ("segmenter.safetensors:", "its weights for this project (scripts/segment.py --weights)"),
        *pairs,
        ("metrics.json, choice.json:", "the figures of the test side; every trial of the choice"),
    ]


def _pairs(found: Delivered) -> Section | None:
    if not found.final.made:
        return None
    rows: list[ImageRow] = []
    for kind in found.kinds:
        own = [made for made in found.final.made if made.sample.kind == kind]
        for made in (*own[:1], *own[-1:])[:SHOWN_PAIRS]:  # of a mixture one of each
            image, mask = made.sample.read()
            normal = read_image(made.record["normal_source"])
            heading = f"{kind.split('/', 1)[-1]}, {made.record['method']}"
            rows.append(pair_row(heading, smaller(normal), smaller((mask == 1).astype(np.uint8)), smaller(image)))
    text = "Look at them as an inspector would: is that a defect, and does it look like one of this type?"
    return Section("The pairs", text, [Gallery("", rows)])


def _predictions(found: Delivered) -> Iterator[ImageRow]:
    for kind in found.kinds:
        for sample in [s for s in found.sides.test if f"{s.category}/{s.anomaly}" == kind][:SHOWN_TESTS]:
            yield trial_row(sample.anomaly, *_seen(found, sample))


def _unmarked(found: Delivered) -> Iterator[FoundAway]:
    tests = {str(s.image): s for s in found.sides.test}
    for row in found.final.figures["unmarked"]:
        sample = tests[row["image"]]
        yield found.sides.index.relative(sample.image), row["share"], *_seen(found, sample)


def _seen(found: Delivered, sample: Sample) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    plan = found.plan
    sides = (None, plan.size) if plan.native else (plan.size, None)
    (pair,) = from_samples([sample])
    return seen(pair, {"segmenter": found.final.network}, *sides)


def _how(found: Delivered) -> Section:
    plan, sides, final = found.plan, found.sides, found.final
    leaking = sum(len(leak.seen) for leak in leaks_of(sides.train, sides.test))
    rows = [
        ["real defects of the training side", str(len(sides.train))],
        ["pairs of each type", str(plan.per_type)],
        ["normal images", str(len(sides.index.normals))],
        ["test pictures", str(len(sides.test))],
        *([[LEAKING, str(leaking)]] if leaking else []),
        ["network delivered", NETWORK],
        ["its steps", str(final.steps)],
        ["its training", duration(final.seconds)],
        ["pixels of a side that it sees", f"{plan.size}{', windows of pictures at their own size' * plan.native}"],
        ["split", sides.split.hash[:12]],
        ["time asked for", duration(60 * plan.minutes)],
        ["time taken", duration(found.seconds)],
    ]
    return Section(
        "Measured how",
        "Nested splits divide the training side again, by whole parts, two thirds to train on; pairs of a trial are "
        "made from its inner training side alone. Classical augmentation in every row; "
        f"where there are both, {told_share(plan.real_share)}. "
        "The segmenter learns from all of the training side and stops at its steps or when "
        "the minutes are over, whichever comes first; its odds are divided by how much more often its training drew "
        "defect pixels than real pictures show them.",
        [Table("What was measured", ["what", "value"], rows)],
    )
