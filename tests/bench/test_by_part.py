"""How much hangs on which parts were tested, against sums over all draws that there are."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast.bench.advice import signed
from fast.bench.answer_page import page
from fast.bench.by_part import by_part, told
from fast.bench.few import ALONE
from fast.bench.few_table import PARTS, WORTH, report
from fast.bench.verdict import BOTH, REAL, Answer
from fast.reports.report import render
from fast.segmentation.data import SegmentationSample
from fast.segmentation.tally import Tally


def run(*counts: tuple[int, int, int], first: str = "p") -> dict[str, Any]:
    """Figures of one training: (both, found, defect) of each part, two pictures of it."""
    names = ("part", "images", "both", "found", "defect")
    parts = [dict(zip(names, (f"{first}{i}", 2, *own), strict=True)) for i, own in enumerate(counts)]
    return {"parts": parts, "miou": iou([run_counts(part) for part in parts])}


def run_counts(part: dict[str, Any]) -> tuple[int, int, int]:
    return part["both"], part["found"], part["defect"]


def iou(counts: list[tuple[int, int, int]]) -> float:
    both, found, defect = (sum(own[k] for own in counts) for k in range(3))
    return both / max(1, found + defect - both)


BEFORE = [
    run((50, 80, 100), (10, 30, 40), (70, 90, 80), (5, 9, 20), (30, 45, 60)),
    run((60, 90, 100), (14, 20, 40), (65, 99, 80), (4, 5, 20), (40, 45, 60)),
]
AFTER = [
    run((70, 80, 100), (8, 30, 40), (75, 90, 80), (10, 12, 20), (30, 40, 60)),
    run((65, 90, 100), (9, 40, 40), (72, 95, 80), (12, 15, 20), (35, 40, 60)),
]


def points(parts: tuple[int, ...]) -> float:
    """The gain of the runs above over a choice of parts, by hand."""
    before, after = ([iou([run_counts(one["parts"][i]) for i in parts]) for one in runs] for runs in (BEFORE, AFTER))
    return 100 * (sum(after) / 2 - sum(before) / 2)


def test_the_interval_is_that_of_all_draws_and_one_part_decides_most() -> None:
    found = by_part(BEFORE, AFTER)
    assert found is not None
    assert found.parts == 5
    assert found.points == pytest.approx(points((0, 1, 2, 3, 4)))
    every = [points(draw) for draw in itertools.product(range(5), repeat=5)]
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(np.quantile(every, 0.025), abs=0.8)
    assert found.high == pytest.approx(np.quantile(every, 0.975), abs=0.8)
    without = {f"p{i}": points(tuple(j for j in range(5) if j != i)) for i in range(5)}
    most = max(without, key=lambda name: abs(without[name] - found.points))
    assert (found.most, found.images) == (most, 2)
    assert found.without == pytest.approx(without[most])
    assert by_part(BEFORE, AFTER) == found  # the draws are the same each time
    assert told(found).startswith(f"{signed(found.points)} points over 5 parts; as many drawn anew from these, ")
    assert told(found).endswith(f"without {most} (2 pictures), which decides most, {signed(without[most])}")


def test_fewer_than_five_parts_are_not_drawn_anew() -> None:
    counts = (10, 20, 20), (10, 20, 20), (0, 500, 10)
    better = (12, 20, 20), (12, 20, 20), (0, 5, 10)
    found = by_part([run(*counts)], [run(*better)])
    assert found is not None
    assert (found.low, found.high, found.most) == (None, None, "p2")
    assert found.without == pytest.approx(100 * (24 / 56 - 20 / 60))
    assert "drawn anew" not in told(found)
    assert not found.doubtful
    worse = by_part([run(*counts)], [run((8, 20, 20), (8, 20, 20), (0, 5, 10))])
    assert worse is not None
    assert worse.points > 0 > worse.without
    assert worse.doubtful


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], AFTER),
        ([{"miou": 0.5}], AFTER),
        (BEFORE, [run((1, 2, 3), (1, 2, 3))]),
        ([run((1, 2, 3), (1, 2, 3))], [run((1, 2, 3), (1, 2, 3), first="q")]),
        ([run((1, 2, 3))], [run((2, 2, 3))]),
        ([run((0, 0, 0), (0, 0, 0))], [run((0, 0, 0), (0, 0, 0))]),
    ],
    ids=["none", "not counted", "fewer", "others", "one", "no defect"],
)
def test_nothing_is_said_of(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    assert by_part(before, after) is None


def test_parts_add_up_to_the_pooled_figures() -> None:
    rng, tally = np.random.default_rng(0), Tally()
    for number, group in enumerate(["a", "b", "a", "", "good"]):
        labels = rng.choice(np.array([0, 1, 255], np.uint8), (16, 16))
        kind = "part/good" if group == "good" else "part/dent"
        labels = np.where(labels == 1, 0, labels) if group == "good" else labels
        score = rng.normal(size=(16, 16))
        sample = SegmentationSample(Path(f"{number}.png"), None, kind, group=group)
        tally.add(sample, score > 0, labels, score)
    picture = np.zeros((16, 16, 3), np.uint8)
    for _ in range(2):
        array = SegmentationSample(picture, np.ones((16, 16), np.uint8), "part/dent")
        tally.add(array, np.ones((16, 16), bool), np.ones((16, 16), np.uint8), np.ones((16, 16)))
    found = tally.report()
    parts = found["parts"]
    assert [(p["part"], p["images"]) for p in parts] == [
        ("a", 2), ("b", 1), ("3.png", 1), ("good", 1), ("picture 5", 1), ("picture 6", 1),
    ]  # fmt: skip
    assert iou([run_counts(p) for p in parts]) == pytest.approx(found["miou"])
    assert sum(p["both"] for p in parts) / sum(p["defect"] for p in parts) == pytest.approx(found["acc"])


def test_the_page_says_where_other_parts_might_turn_the_answer() -> None:
    empty = Answer("part", "fast", "mini", {}, [], {}, "", None, [], [], [], 0.0)
    grease = [(0, 900 + i, 10) for i in range(3)]
    clear = [(0, 100 + i, 10) for i in range(3)]
    good, less = (90, 100, 100), (80, 100, 100)
    real, both = (
        [run(good, good, good, good, own) for own in grease],
        [run(less, less, less, less, own) for own in clear],
    )
    shown = render(page(replace(empty, runs={REAL: real, BOTH: both})))
    assert "synthetic pairs raise the IoU" in shown
    assert "With other parts tested it might be otherwise" in shown
    assert "Which parts were tested" in shown
    assert "without p4 (2 pictures), which decides most, −" in shown
    real, both = ([run(each, each, own) for own in clear] for each in (less, good))
    same = render(page(replace(empty, runs={REAL: real, BOTH: both})))
    assert "Which parts were tested" in same
    assert "might be otherwise" not in same
    old = [{"miou": 0.5, "types": {}}, {"miou": 0.6, "types": {}}]
    assert "Which parts were tested" not in render(page(replace(empty, runs={REAL: old, BOTH: old})))


def test_a_report_of_few_defects_says_what_pairs_are_worth_and_which_parts_decide() -> None:
    def row(label: str, count: int | None, seed: int, figures: dict[str, Any]) -> dict[str, Any]:
        named = {"label": label, "count": count, "seed": seed, "real": 40 if count is None else 2 * count}
        return {**named, "ap": 0.5, "auroc": 0.5, "miou_types": 0.5, "types": {"a": 0.5, "b": 0.5}, **figures}

    three = run((20, 40, 100), (20, 40, 100)), run((60, 80, 100), (60, 80, 100)), run((40, 70, 100), (40, 70, 100))
    rows = [row(ALONE, 5, 0, three[0]), row(ALONE, None, 0, three[1]), row("moved", 5, 0, three[2])]
    text = report([*rows, row("moved", None, 0, run((99, 99, 100), (99, 99, 100)))])
    share = (three[2]["miou"] - three[0]["miou"]) / (three[1]["miou"] - three[0]["miou"])
    assert f"{WORTH}\n\n| real defects of each type | 5 | all |\n| --- | --- | --- |\n" in text
    assert f"| moved | {5 + share * 15:.1f} | more than were measured |" in text
    assert f"{PARTS}\n\n- moved, 5: {signed(100 * (three[2]['miou'] - three[0]['miou']))} points over 2 parts; " in text
    assert WORTH not in report(rows[:1])
    assert PARTS not in report(rows[:1])
