"""Do synthetic pairs help? The rule against numbers worked by hand, and a page that says what it was given."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fast.bench import answer as module_answer
from fast.bench.advice import advice, signed
from fast.bench.answer_page import page
from fast.bench.protocol import Segmentation
from fast.bench.verdict import BOTH, REAL, SYNTHETIC, Answer, gain, verdict
from fast.data.images import write_image
from fast.data.index import Sample
from fast.data.mask_looks import IGNORED
from fast.reports.report import render
from support.page import Page

EMPTY = Answer("part", "fast", "mini", {}, [], {}, "", None, [], [], [], 0.0)
CAPTIONS = ("The points of the curve", "Overlap of found and true defect pixels", "What was measured")


def runs(*percent: float, **types: Sequence[float | None]) -> list[dict[str, Any]]:
    """Metrics of one training for each number; `types`: IoU of a type, as many."""
    return [
        {
            "miou": value / 100,
            "acc": value / 100 + 0.2,
            "ap": value / 100 + 0.1,
            "types": {
                f"part/{kind}": {"iou": None if own[i] is None else own[i] / 100, "acc": 0.5, "ap": 0.25, "images": 12}
                for kind, own in types.items()
            },
        }
        for i, value in enumerate(percent)
    ]


def answer(real: Sequence[float], both: Sequence[float], **changes: Any) -> Answer:
    return replace(EMPTY, runs={REAL: runs(*real), BOTH: runs(*both)}, **changes)


def whole() -> Answer:
    """Nothing is missing."""
    rng = np.random.default_rng(0)
    normal = rng.integers(0, 200, (16, 16, 3), dtype=np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 4:8] = 1
    real, both = (
        runs(30, 32, 34, crack=(50, 52, 54), dent=(10, 11, 12)),
        runs(39, 42, 45, crack=(40, 43, 46), dent=(29, 31, 33)),
    )
    return Answer(
        name="metal_part",
        method="fast",
        network="segformer",
        runs={REAL: real, SYNTHETIC: runs(21, 22, 23), BOTH: both},
        curve=[(0, real), (50, runs(36, 37, 38)), (100, both)],
        counts={"real": 17, "synthetic": 100, "normals": 230, "test": 71, "steps": 650, "size": 192},
        split="0123456789abcdef",
        pictures={"pairs": 60, "empty": 0.3, "seam": 1.81, "likeness": 0.61, "copied": 0.02,
                  "real": {"seam": 1.22, "likeness": 0.57, "copied": 0.01}},
        pairs=[("part/crack", normal, mask, normal + mask[..., None] * 40)],
        predictions=[("part/dent", normal, mask, {REAL: np.zeros((16, 16), bool), BOTH: mask > 0})],
        commands=[("Again", "python scripts/bench.py --dataset parts")],
        seconds=3900.0,
        draft="mixed",
        making=[("pairs start from", "drafts of both kinds; strength 0.5")],
    )  # fmt: skip


def shown(given: Answer) -> Page:
    return Page(render(page(given)))


def test_it_says_how_often_real_defects_were_drawn_and_what_odds_mean() -> None:
    given = whole()
    for share, words in (
        (0.5, "50 % of the defects drawn are real"),
        (0.75, "75 % of the"),
        (None, "every pair, real or"),
    ):
        assert words in " ".join(shown(replace(given, real_share=share)).words)
    odds = "Odds of a defect are divided by"
    assert odds in " ".join(shown(given).words)
    assert odds not in " ".join(shown(replace(given, network="quick")).words)  # it has a threshold of its own


def test_a_margin_worked_by_hand() -> None:
    # Differences of the seeds: 8, 10, 12, of variance 4: the error is 2 / sqrt(3), and t is 4.303 for 2 degrees.
    found = gain([30, 32, 34], [38, 42, 46])
    assert found is not None
    assert found.points == pytest.approx(10)
    assert found.margin == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-3)
    # One seed lacks a value on either side: what is left are the pairs (30, 38) and (34, 46), 8 and 12.
    holes = gain([30, math.nan, 34, 20], [38, 42, 46, math.nan])
    assert holes is not None
    assert (holes.points, holes.margin) == (pytest.approx(10), pytest.approx(12.706 * 2, rel=1e-3))
    # Not as many: two groups of variances 2 and 4, Welch's 2.88 degrees.
    uneven = gain([31, 33], [40, 42, 44])
    assert uneven is not None
    freedom = (2 / 2 + 4 / 3) ** 2 / ((2 / 2) ** 2 / 1 + (4 / 3) ** 2 / 2)
    assert freedom == pytest.approx(2.88, abs=0.01)
    assert uneven.margin == pytest.approx(3.257 * math.sqrt(2 / 2 + 4 / 3), rel=5e-3)
    assert gain([], [1.0]) is None


@pytest.mark.parametrize(
    ("real", "both", "expected"),
    [
        ((30, 32, 34), (40, 43, 43), "yes"),  # +10 with a margin of 2.5
        ((30, 32, 34), (31, 37, 37), "cannot tell"),  # +3 with a margin of 5.0
        ((40, 42, 44), (30, 32, 34), "no"),
        ((40, 40, 40), (40.2, 40.3, 40.4), "no"),  # +0.3 with 0.25: surely more, and surely less than a point
        ((40, 40, 40), (40.8, 40.9, 41.0), "yes"),  # +0.9 with 0.25: up to 1.15
        ((40, 41, 42), (38.5, 41.5, 40.5), "cannot tell"),  # -0.8 with 2.9: a gain of 2 is possible
        ((40,), (60,), "cannot tell"),
        ((40, 40, 40), (60,), "cannot tell"),
        ((), (60, 60), "cannot tell"),
        ((), (), "cannot tell"),
    ],
)
def test_the_rule(real: tuple[float, ...], both: tuple[float, ...], expected: str) -> None:
    given = answer(real, both)
    assert verdict(given).answer == expected
    assert shown(given).words[1].endswith(f"? {expected.capitalize()}.")
    assert advice(given, verdict(given))


def test_values_that_are_none_do_not_count() -> None:
    given = replace(
        EMPTY, runs={REAL: [{"miou": None}, {"miou": math.nan}, {"acc": 0.5}, {"miou": 0.5}], BOTH: runs(60)}
    )
    found = verdict(given)
    assert found.real is not None
    assert (found.real.mean, found.real.seeds, found.answer) == (50.0, 1, "cannot tell")


def test_the_best_number_of_pairs() -> None:
    curve = [(100, runs(35)), (0, runs(30)), (50, runs(38))]
    assert verdict(replace(EMPTY, curve=curve)).best == (50, pytest.approx(38))
    assert verdict(replace(EMPTY, curve=[*curve, (200, runs(39))])).best is None
    assert verdict(replace(EMPTY, curve=[*curve, (200, [{"miou": None}])])).best == (50, pytest.approx(38))


def test_types_that_fell_are_named_the_worst_first() -> None:
    before = runs(30, 30, crack=(50, 50), dent=(30, 30), hole=(20, 20), pit=(None, None))
    after = runs(40, 40, crack=(49, 49), dent=(20, 20), hole=(25, 25), pit=(10, 10))
    given = replace(EMPTY, runs={REAL: before, BOTH: after})
    found = verdict(given)
    assert [(kind, round(change.points)) for kind, change in found.fell] == [("part/dent", -10), ("part/crack", -1)]
    text = next(words for words in shown(given).words if words.startswith("IoU fell"))
    assert "dent (−10.0 points, more than chance explains); crack (−1.0 points" in text
    assert "hole" not in text
    assert any("dent, crack" in head for head, _ in advice(given, found))


def test_normal_pictures_are_no_type() -> None:
    real = [{"miou": 0.5, "types": {"part/good": {"iou": 0.0, "acc": None}, "part/dent": {"iou": 0.5, "acc": 0.6}}}]
    assert "good" not in shown(replace(EMPTY, runs={REAL: real, BOTH: real})).words


def test_the_numbers_are_those_given() -> None:
    found = shown(whole())
    words = " ".join(found.words).replace("\N{NO-BREAK SPACE}", " ")
    assert "help on metal part? Yes." in words
    assert "from 32.0 % to 42.0 %: +10.0 points, give or take 2.5" in words
    for text in ("17 real defects + 100 synthetic pairs; ± 3.0 between 3 trainings", "100 synthetic pairs; ± 1.0"):
        assert text in words
    # The curve: 36, 37, 38 against 30, 32, 34: differences 6, 5, 4 of variance 1.
    margin = 4.303 / math.sqrt(3)
    assert f"50 37.0 % ± 1.0 3 +5.0 ± {margin:.1f}" in words
    # By type: real only, both, nothing for synthetic only, change.
    assert "crack 12 52.0 % 43.0 % – −9.0 ± 2.5" in words
    assert "dent 12 11.0 % 31.0 % – +20.0 ± 2.5" in words
    assert "All pixels 32.0 % 42.0 % 22.0 % +10.0 ± 2.5" in words
    assert "All pixels 52.0 % 62.0 % 42.0 % 42.0 % 52.0 % 32.0 %" in words  # Acc and AP
    assert "look empty 30 % – seam at the border 1.81 1.22 likeness to the nearest real defect 0.61 0.57" in words
    assert "real only: IoU 0.0 % real + synthetic: IoU 100.0 %" in words
    for text in (
        "pairs made by fast pairs start from drafts of both kinds; strength 0.5 network",
        "normal pictures 230",
        "test pictures 71",
        "steps of each training 650",
        "0123456789ab",
        "1 h 05 min",
    ):
        assert text in words
    assert "python scripts/bench.py --dataset parts" in words


def test_the_curve_is_drawn_in_words_too_and_alike_twice() -> None:
    text = render(page(whole()))
    (svg,) = Page(text).of("svg")
    assert "0 pairs 32.0 %; 50 pairs 37.0 %; 100 pairs 42.0 %" in str(svg["aria-label"])
    assert len(Page(text).of("use")) > 10
    assert render(page(whole())) == text


def test_what_to_do_depends_on_the_answer() -> None:
    def heads(given: Answer) -> list[str]:
        return [head for head, _ in advice(given, verdict(given))]

    helped = whole()
    assert heads(helped)[0] == "More pairs."  # the last step goes up by 5 points
    assert "30 % of the pairs look empty." in heads(helped)
    assert "The pairs have a seam." in heads(helped)  # 1.81 against 1.22
    assert not any("much like" in head for head in heads(helped))
    peak = replace(helped, curve=[(0, runs(30, 30)), (50, runs(49, 51)), (100, runs(41, 43))])
    assert heads(peak)[0] == "Fewer pairs: 50."
    flat = replace(helped, curve=[(0, runs(30, 30)), (50, runs(42, 42)), (100, runs(42.3, 42.3))])
    assert heads(flat)[0] == "As many pairs as now."
    harmed = replace(helped, runs={REAL: helped.runs[BOTH], BOTH: helped.runs[REAL]})
    assert heads(harmed)[0] == "30 % of the pairs look empty."
    assert {"Other drafts.", "Another method.", "More real defects."} < set(heads(harmed))
    told = dict(advice(harmed, verdict(harmed)))["Other drafts."]
    assert "(mixed" in told
    assert "--draft transplant or procedural," in told
    assert "Other masks." in heads(replace(harmed, draft="none"))
    unsure = advice(answer((40, 40), (60,)), verdict(answer((40, 40), (60,))))
    assert unsure[0][0] == "More trainings of each kind."
    assert "--seeds 3" in unsure[0][1]
    assert heads(EMPTY)[0] == "Finish the trainings."


def test_parts_on_both_sides_come_first() -> None:
    told = "Test on other parts."
    for both in ((39, 42, 45), (30, 31, 32), (20, 50, 33)):
        given = answer((30, 32, 34), both, leaking=3)
        (first, more), *_ = advice(given, verdict(given))
        assert first == told
        assert more.startswith("3 test pictures show parts that training saw")
        clean = replace(given, leaking=0)
        assert told not in dict(advice(clean, verdict(clean)))
    words = shown(replace(whole(), leaking=3)).words
    assert words[words.index("test pictures of parts that are trained on, too") + 1] == "3"
    assert "test pictures of parts that are trained on, too" not in shown(whole()).words


@pytest.mark.parametrize(
    "missing",
    [
        {"runs": {}},
        {"runs": {REAL: runs(30, 31)}},
        {"runs": {BOTH: [{}], REAL: [{"types": None}]}},
        {"runs": {SYNTHETIC: runs(3)}},
        {"curve": [], "pictures": None, "pairs": []},
        {"curve": [(0, []), (10, [{}])]},
        {"curve": [(0, runs(30)), (10, runs(31))]},
        {"curve": [(5, runs(0, 0)), (10, runs(100, 100))]},
        {"counts": {}},
        {"pictures": None},
        {"pictures": {"empty": None, "seam": math.nan, "real": None}},
        {"pairs": []},
        {"predictions": []},
        {"commands": [], "split": "", "seconds": 0.0},
    ],
    ids=lambda given: "+".join(given),
)
def test_what_is_missing_is_left_out(missing: dict[str, Any]) -> None:
    found = shown(replace(whole(), **{"curve": [], **missing}))
    assert not any(re.search(r"\b(None|nan)\b", words) for words in found.words)
    assert len(found.of("dt")) == 3
    assert {link["href"] for link in found.of("a")} == {f"#{one['id']}" for one in found.of("section")}


def test_what_is_found_where_nothing_is_marked_is_shown() -> None:
    given = whole()
    _, image, truth, found = given.predictions[0]
    before, told = shown(given), shown(replace(given, unmarked=[("test/dent/1.png", 0.0625, image, truth, found)]))
    assert "Found where nothing is marked" not in before.words
    assert "Found where nothing is marked" in told.words
    assert "test/dent/1.png: 6.2 % of the picture" in told.words
    assert len(told.of("img")) == len(before.of("img")) + 4


class Bright(nn.Module):
    """Finds what is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x[:, :1], x[:, :1]], dim=1)


@pytest.mark.parametrize("normals", [True, False])
def test_pictures_of_the_list_are_found_again_wherever_they_lie(
    normals: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    image[:8], labels[:2], labels[4:6] = 255, 1, IGNORED
    write_image(tmp_path / "dent.png", image)
    write_image(tmp_path / "good.png", image)
    write_image(tmp_path / "dent_mask.png", labels)
    (tmp_path / "reading.json").write_text(json.dumps({"ignore": [255], "mask_values": [1]}))
    dent = Sample(tmp_path / "dent.png", tmp_path / "dent_mask.png", "part", "dent", "a")
    good = Sample(tmp_path / "good.png", None, "part", "good", "b")
    rows = [{"image": "good.png", "type": "part/good", "share": 0.5}, {"image": "dent.png", "type": "", "share": 0.1}]
    result = {"metrics": {"unmarked": rows if normals else rows[1:]}}
    cell = SimpleNamespace(done=True, folder=tmp_path, result=lambda: result)
    columns: Any = {label: SimpleNamespace(segments={("fpn", 0): cell}) for label in (REAL, BOTH)}
    index = SimpleNamespace(relative=lambda path: path.name, test_normals=[good])
    monkeypatch.setattr(module_answer, "load", lambda file: Bright())
    category: Any = SimpleNamespace(test=[dent], index=index)
    seg = Segmentation(networks=("fpn",), seeds=(0,), size=16, test_normals=normals)
    found = list(module_answer._unmarked(columns, category, "fpn", seg))
    assert [row[:2] for row in found] == [("good.png", 0.5), ("dent.png", 0.1)][not normals :]
    masks = found[-1][-1]
    assert set(masks) == {REAL, BOTH}
    assert masks[BOTH][:4].all()
    assert not masks[BOTH][4:6].any()  # to be ignored
    assert masks[BOTH][6:8].all()
    result["metrics"].pop("unmarked")  # of an older run
    assert not list(module_answer._unmarked(columns, category, "fpn", seg))


def test_nothing_measured_is_said() -> None:
    found = shown(EMPTY)
    assert found.words.count("not measured") == 3
    assert any(words.startswith("No training with real only and none with real + synthetic") for words in found.words)
    assert not set(CAPTIONS[:2]) & set(found.words)


def test_it_needs_nothing_else_and_reads_no_text_as_html() -> None:
    nasty = "<script>alert(1)</script>"
    given = whole()
    real = [{**one, "types": {f"part/{nasty}": {"iou": 0.5, "acc": 0.5}}} for one in given.runs[REAL]]
    text = render(
        page(replace(given, name=nasty, method=nasty, network=nasty, split=nasty, commands=[(nasty, nasty)],
                     runs={**given.runs, REAL: real},
                     pairs=[(nasty, *given.pairs[0][1:])], predictions=[(nasty, *given.predictions[0][1:])]))
    )  # fmt: skip
    assert not re.search(r"https?:|@import|url\((?!#)|<script|<iframe", text)
    assert sum(nasty in words for words in Page(text).words) >= 8
    assert all(str(image["src"]).startswith("data:image/") for image in Page(text).of("img"))


@pytest.mark.parametrize(("value", "text"), [(1.25, "+1.2"), (-0.34, "−0.3"), (0.04, "0.0"), (-0.04, "0.0")])
def test_signs(value: float, text: str) -> None:
    assert signed(value) == text
