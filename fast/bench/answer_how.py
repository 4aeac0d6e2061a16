"""The section of the answer's page on how it was measured."""

from __future__ import annotations

from fast.bench.fairness import told_share
from fast.bench.verdict import RUNS, WORTH, Answer, scores
from fast.reports.report import Points, Section, Table, duration

LEAKING = "test pictures of parts that are trained on, too"


def how_section(answer: Answer) -> Section:
    """What was compared, the rule of the answer, and the numbers of pictures and trainings."""
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
    odds = (
        "Odds of a defect are divided by how much more often training draws defect pixels than the real pictures of "
        "the training side show them, or the pairs where they are alone. "
    )
    odds = "" if answer.network == "quick" else odds
    return Section(
        "Measured how",
        "The kinds of training have the same network, the same number of steps, the same augmentation and the same "
        "test pictures; they differ in the pairs they train on, and where there are both, "
        f"{told_share(answer.real_share)}. {odds}The split keeps the test pictures out of all training, "
        "of the method that makes the pairs too, "
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
