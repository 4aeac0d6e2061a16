"""The bench that chooses by itself: what is tried within a budget, what is taken, and what is delivered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fast.artifact import find_weights
from fast.bench import auto as module_auto
from fast.bench import auto_pairs as module_pairs
from fast.bench import choice as module
from fast.bench.auto_page import _sentence
from fast.bench.candidates import CANDIDATES, adapted_folder, rows_of
from fast.bench.choice import Choice, Trials, choose, ranked
from fast.bench.few import ALONE, Shares
from fast.bench.foresight import Budget, Costs, advised, foresee, looked_at, measure
from fast.bench.nested import sides_of
from fast.bench.rows import Made, Row, RowPairs
from fast.bench.trial import NetworkJudge
from fast.cli import bench
from fast.data.content import Copies
from fast.data.images import read_image, read_mask, write_image, write_mask
from fast.data.index import Sample
from fast.data.layouts import check, open_dataset
from fast.data.split import Split, make_split, nested_splits
from fast.generators import FREE, create, method_class
from fast.reports.contact_sheet import read_row
from fast.runtime.command import run_cli
from fast.runtime.folders import sole
from fast.runtime.options import parse_training
from fast.segmentation.data import SegmentationSample, check_pairs, from_output
from fast.segmentation.export import Described
from fast.segmentation.networks import load
from fast.segmentation.prior import Corrected
from fast.segmentation.quick import QuickCosts, QuickJudge
from fast.synthesis.options import FIRST_COUNTERFEIT
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.util import check_params

Scores = Mapping[str, list[float]]
needs_no_card = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Trials whose scores, in percent, and seconds are given by label."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, scores: Scores, seconds: Mapping[str, float]):
        self.clock, self.done, self.file = Clock(), [], folder / "choice.json"
        self.labels = [label for label in scores if label != ALONE and " + " not in label]

        def measured(label: str, count: None, seed: int, *rest: Any) -> dict[str, Any]:
            self.done.append((label, seed))
            self.shares = rest[-1]
            self.clock.now += seconds.get(label, 1.0)
            return {
                "label": label,
                "seed": seed,
                "miou": scores[label][seed] / 100,
                "miou_types": scores[label][seed] / 100,
            }

        monkeypatch.setattr(module, "measured", measured)

    said: list[str]

    shares: Shares

    def choose(
        self, budget: float, extra: Mapping[str, float] | None = None, real_share: float | None = 0.5, **settings: Any
    ) -> Choice:
        sides = [SimpleNamespace(split=SimpleNamespace(hash=str(seed)), train=[]) for seed in range(3)]
        pairs = RowPairs({label: Row("cutpaste") for label in self.labels}, 4)
        budgeted = Budget(budget, self.clock)
        self.said = []
        trials = Trials(
            sides, pairs, None, budgeted, self.file, report=self.said.append, settings=settings,  # type: ignore[arg-type]
            shares=Shares(real_share=real_share),
        )  # fmt: skip
        return choose(trials, self.labels, extra)


SCORES = {ALONE: [30.0, 32, 34], "a": [34.0, 35, 38], "b": [31.0, 30, 37], "c": [20.0, 21, 22], "a + b": [36.0, 36, 39]}


def test_the_highest_gain_above_its_standard_error_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(monkeypatch, tmp_path, SCORES, {})
    found = bench.choose(1000)
    assert found.taken == "a + b"
    assert [score.label for score in found.scores] == ["a + b", "a", "b", "c"]
    assert found.scores[1].gain == pytest.approx(11 / 3)  # 4, 3 and 4 points
    assert found.scores[1].error == pytest.approx(1 / 3)
    assert found.scores[1].iou == pytest.approx(107 / 3)
    assert not found.scores[2].helps  # 1, -2 and 3 points: 0.67 with a standard error of 1.45
    assert found.alone == 32
    assert not found.left_out
    assert len(bench.done) == 5 * 3
    bench.choose(1000)
    assert len(bench.done) == 5 * 3  # what was measured is not measured again


def test_what_was_measured_at_another_size_is_measured_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(monkeypatch, tmp_path, SCORES, {})
    bench.choose(1000, size=256)
    bench.choose(1000, size=256)
    assert len(bench.done) == 5 * 3
    bench.choose(1000, size=320)
    assert len(bench.done) == 2 * 5 * 3


def test_rows_with_another_share_of_real_defects_are_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench(monkeypatch, tmp_path, SCORES, {})
    bench.choose(1000)
    assert bench.shares.real_share == 0.5
    for share, again in ((0.75, 12), (0.75, 12), (None, 24)):  # three rows and their mixture; those without pairs stay
        bench.choose(1000, real_share=share)
        assert bench.shares.real_share == share
        assert len(bench.done) == 15 + again


def test_a_mixture_of_an_earlier_run_is_not_taken_by_one_that_does_not_come_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench(monkeypatch, tmp_path, SCORES, {})
    assert bench.choose(1000).taken == "a + b"
    bench.labels = ["a"]
    found = bench.choose(1000)
    assert (found.taken, [score.label for score in found.scores]) == ("a", ["a"])


def test_nothing_is_taken_where_nothing_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores = {ALONE: [30.0, 32, 34], "a": [33.0, 30, 34], "b": [29.0, 31, 33], "a + b": [30.0, 32, 34]}
    found = Bench(monkeypatch, tmp_path, scores, {}).choose(1000)
    assert found.taken is None
    assert found.scores[0].label == "a"


@pytest.mark.parametrize("budget", [45, 60, 90, 130, 200])
def test_the_budget_is_kept_and_what_it_leaves_out_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: float
) -> None:
    seconds = {ALONE: 5.0, "a": 15.0, "b": 15.0, "c": 15.0, "a + b": 5.0}
    bench = Bench(monkeypatch, tmp_path, SCORES, seconds)
    found = bench.choose(budget)
    assert bench.clock.now <= budget
    tried = {score.label for score in found.scores}
    assert {"a", "b", "c"} == (tried | set(found.left_out)) & {"a", "b", "c"}
    assert not tried & set(found.left_out)
    assert all(score.splits >= 2 for score in found.scores)
    assert bool(found.left_out) == (budget < 200)
    assert found.taken in ("a", "a + b")


def test_the_second_split_goes_as_far_as_the_minutes_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(monkeypatch, tmp_path, {k: SCORES[k] for k in (ALONE, "a", "b")}, {ALONE: 5.0, "a": 15.0, "b": 15.0})
    slow = {"a": 15.0, "b": 15.0}
    found = bench.choose(55 + 20)  # 5 + 15 + 15, then 5 + 15 + 15 of the 40 that are left
    assert {score.label: score.splits for score in found.scores} == dict.fromkeys(slow, 2)
    assert found.left_out == {
        "nested split 3 of 3": "the minutes did not suffice",
        "a + b": "the minutes did not suffice",
    }


def test_too_few_minutes_for_two_splits_choose_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Bench(monkeypatch, tmp_path, SCORES, {ALONE: 5.0, "a": 15.0}).choose(22)
    assert found.taken is None
    assert found.scores[0].splits == 1
    assert "nested split 2 of 3" in found.left_out


def test_a_first_row_that_does_not_fit_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(monkeypatch, tmp_path, SCORES, {ALONE: 5.0, "a": 15.0, "b": 15.0, "c": 15.0})
    found = bench.choose(12, extra={"a": 10.0, "b": 10.0, "c": 10.0})
    assert bench.done == [(ALONE, 0)]
    assert found.taken is None
    assert bench.clock.now <= 12
    assert bench.said[-1].startswith(
        "left out: a (a nested split of it would have taken about 0.2 minutes, and 0.1 min"
    )
    assert all(f"{label} (" in bench.said[-1] for label in ("a", "b", "c", "nested split 2 of 3"))


def test_what_fits_is_told_after_the_first_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # 80 s are left: 20 for the second split of the first row, 30 for two of the next; 30 do not pay for all again.
    bench = Bench(monkeypatch, tmp_path, SCORES, {ALONE: 5.0, "a": 15.0, "b": 15.0, "c": 15.0, "a + b": 5.0})
    bench.choose(100)
    (told,) = (line for line in bench.said if "candidates" in line)
    assert "real defects alone took 5 s, a 15 s: 3 of 3 candidates on 2 of 3 nested splits fit into the 1.3 m" in told
    assert bench.clock.now <= 100
    bench = Bench(monkeypatch, tmp_path / "short", SCORES, {ALONE: 5.0, "a": 15.0})
    bench.choose(30)
    assert any("1 of 3 candidates on 1 of 3 nested splits" in line and "nothing can be chosen" in line
               for line in bench.said)  # fmt: skip


def test_what_a_row_takes_more_than_real_defects_alone_counts_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # After 20 + 80 s of 420, the second split of these and two of "b" are 100 + 160 s.
    bench = Bench(monkeypatch, tmp_path, SCORES, {ALONE: 20.0, "a": 80.0, "b": 80.0, "c": 80.0, "a + b": 20.0})
    found = bench.choose(420, extra=dict.fromkeys("abc", 60.0))
    assert any("2 of 3 candidates on 2 of 3 nested splits fit into the 5.3 minutes" in line for line in bench.said)
    assert {score.label: score.splits for score in found.scores} == {"a + b": 2, "a": 2, "b": 2}
    assert "2 nested splits of it would have taken about 2.7 minutes" in found.left_out["c"]
    assert bench.clock.now <= 420
    bench.choose(60)  # again: nothing is foreseen of what is done
    assert not any("candidates" in line for line in bench.said)


def test_time_is_kept_to_make_the_pairs_again(tmp_path: Path) -> None:
    rows = {"a": Row("transplant"), "b": Row("transplant"), "c": Row("cutpaste")}
    clock, pairs = Clock(), RowPairs(rows, 4)
    trials = Trials([], pairs, None, Budget(100, clock), tmp_path / "x.json")  # type: ignore[arg-type]
    trials.rows = [{"label": label, "making": seconds} for label, seconds in (("a", 7.0), ("b", 9.0), ("c", 50.0))]
    assert trials.left == 84  # those of cutpaste see no real defect: they are there


def test_what_a_run_takes_follows_from_its_steps() -> None:
    judge = QuickJudge(views=4)
    quick = QuickCosts(whole=0.1, view=0.1, answer=0.0, head=3.0)
    costs = Costs(quick, start=2.0, step=0.5, image=0.2, export=4.0)
    found = foresee(costs, judge, real=20, inner_test=10, pairs=50, test=30, steps=700)
    assert found.alone == pytest.approx(0.1 * (20 * 5 + 10) + 3)
    assert found.beside == pytest.approx(0.1 * 50 * 5)
    assert (found.ending, found.least, found.full) == (10, 10 + 2 + 50, 10 + 2 + 350)
    assert found.first == pytest.approx(2 * 14 + 25)
    assert found.smallest == pytest.approx(28 + 25 + 62)
    assert found.choosing == pytest.approx(found.smallest + 28 + 25)
    shown = foresee(costs, judge, real=20, inner_test=10, pairs=50, test=30, steps=700, normals=12)
    assert (shown.alone, shown.beside, shown.delivered) == (found.alone, found.beside, found.delivered)
    assert shown.first == pytest.approx(found.first + 0.1 * 12 * 5)  # once for all trials
    assert replace(shown, done=1).first == replace(found, done=1).first
    # Whole images of 2 s whose windows take 0.1 s, answers of 1 s; 20 defects learned from, 50 pairs made and written.
    large = Costs(QuickCosts(2.0, 0.1, 1.0, 3.0), 2.0, 0.5, 0.2, 4.0, fit=0.3, pair=1.5, writing=0.4)
    native = foresee(large, judge, real=20, inner_test=10, pairs=50, test=30, steps=700)
    assert native.alone == pytest.approx(2 * (20 + 10) + 0.1 * 20 * 4 + 20 + 10 + 3)
    assert native.beside == pytest.approx(2 * 50 + 0.1 * 50 * 4 + 0.3 * 20 + 1.5 * 50)
    assert native.delivered == pytest.approx(0.3 * 20 + (1.5 + 0.4) * 50)
    assert native.smallest == pytest.approx(2 * native.alone + native.beside + native.delivered + native.least)
    assert found.reserve(1800) == 362  # all steps need no more
    assert found.reserve(600) == 300
    assert found.reserve(116) == 62  # the least
    assert replace(found, least=20).reserve(80) == pytest.approx(80 - 53)  # the first split comes before half of them
    assert replace(found, done=1).first == pytest.approx(14 + 25)
    assert replace(found, done=2).first == 0
    assert advised(30, 72) == 2  # 30 s + 72 s and a quarter more


def test_what_is_measured_tells_large_images_from_their_windows(tmp_path: Path) -> None:
    index = check(open_dataset(dataset(tmp_path))).usable
    for number, sample in enumerate(index.defects):
        if number % 2:
            for file in filter(None, (sample.image, sample.mask)):
                large = cv2.resize(cv2.imread(str(file)), (1024, 768), interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(file), large)
    sides = sides_of(index, make_split(index))
    few = looked_at(index.defects)
    assert sorted(read_image(s.image).shape[0] for s in few) == [64, 64, 768, 768]
    assert len({s.image for s in few}) == 4
    assert len(looked_at(few[:3])) == 3
    judge = QuickJudge(size=None)
    final = NetworkJudge("mini", {"steps": 9, "batch_size": 2}, {"size": 64, "native": True})
    found = measure(judge, final, Described(64, True, ["part/crack"], "mini"), few, Row("transplant"), sides)
    assert found.quick.whole > 2 * found.quick.view  # 0.39 million pixels on average, windows of 0.066
    assert min(found.fit, found.pair, found.writing, found.step, found.image, found.quick.answer) > 0
    assert judge.seconds(found.quick, 3, 0, 2) > 5 * found.quick.whole


def test_a_training_s_views_are_foreseen() -> None:
    picture, mask = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=np.uint8)
    for augment in ("classical", "none"):
        judge = QuickJudge(size=64, augment=augment)
        for real, made in ((3, 0), (3, 5), (2, 300), (1, 1200)):
            samples = [SegmentationSample(picture, mask, "a/b", synthetic=i >= real) for i in range(real + made)]
            assert judge.looks(real, made) == judge._counts(samples).sum()


def test_adapting_counts_before_it_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = Bench(monkeypatch, tmp_path, SCORES, {}).choose(100, extra={"c": 60.0})
    assert "c" in found.left_out
    assert found.taken == "a + b"


def test_a_row_on_another_split_than_real_alone_is_not_compared() -> None:
    rows = [{"label": label, "seed": seed, "miou": 0.5, "miou_types": 0.5} for label, seed in ((ALONE, 0), ("a", 1))]
    assert ranked(rows) == []


def test_every_candidate_is_a_method_with_its_options() -> None:
    for one in CANDIDATES.values():
        check_params(method_class(one.method), dict(one.options), one.method)
        if one.method in FREE:
            create(one.method, **one.options)


def test_counterfeits_are_written_behind_the_pairs(tmp_path: Path) -> None:
    picture, mask, empty = np.full((8, 8, 3), 90, np.uint8), np.eye(8, dtype=np.uint8), np.zeros((8, 8), np.uint8)
    made = [
        Made(SegmentationSample(picture, own, kind, synthetic=True), {"type": kind, "normal_source": None, **more})
        for kind, own, more in (
            ("part/hole", mask, {}), ("part/good", empty, {"counterfeit": True}), ("part/hole", mask, {})
        )
    ]  # fmt: skip
    module_pairs.write_pairs(made, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [(row["index"], row["type"]) for row in rows] == [
        (0, "part/hole"), (1, "part/hole"), (FIRST_COUNTERFEIT, "part/good")
    ]  # fmt: skip
    assert [bool(read_mask(tmp_path / row["mask"]).any()) for row in rows] == [True, True, False]
    assert not any("mask_asked" in row for row in rows)
    module_pairs.write_pairs([replace(made[0], filled=np.ones((8, 8), np.uint8))], tmp_path / "soft")
    (row,) = [json.loads(line) for line in (tmp_path / "soft" / "manifest.jsonl").read_text().splitlines()]
    assert read_mask(tmp_path / "soft" / row["mask_asked"]).all()
    deep = 40_000 + np.arange(64, dtype=np.uint16).reshape(8, 8)
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep)
    seen = read_image(tmp_path / "deep.png")
    sample = SegmentationSample(np.where(mask[..., None] > 0, 0, seen), mask, "part/hole", synthetic=True)
    module_pairs.write_pairs([Made(sample, {"normal_source": str(tmp_path / "deep.png")})], tmp_path / "deep")
    stored = cv2.imread(str(tmp_path / "deep/image/000000.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.dtype == np.uint16
    assert np.array_equal(stored[mask == 0], deep[mask == 0])
    assert (stored[mask > 0] < 256).all()
    write_image(tmp_path / "normal.png", picture)
    shown = read_row(tmp_path, {**rows[0], "normal_source": str(tmp_path / "normal.png")})
    assert (shown.caption, shown.mask.shape) == ("part/hole", (8, 8))


def test_damaged_pairs_are_made_anew_by_the_next_run(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    made = [Made(SegmentationSample(picture, np.eye(32, dtype=np.uint8), "part/hole"), {"type": "part/hole"})]
    pairs: Any = SimpleNamespace(rows={"a": Row("transplant")}, made=lambda *_, **__: made)
    sides: Any = SimpleNamespace(train=[])
    (tmp_path / "choice.json").write_text("[]")
    image = tmp_path / "pairs" / "image" / "000000.png"
    for _ in range(2):
        module_pairs.final_pairs(Choice("a", [], {}, [], 0.0), sides, tmp_path, pairs, "c", lambda _: None)
        check_pairs(from_output(tmp_path / "pairs")[0])
        image.write_bytes(image.read_bytes()[:500])
        with pytest.raises(UserError, match=r"000000\.png: .*; run scripts/bench\.py --auto with --out .* again"):
            check_pairs(from_output(tmp_path / "pairs")[0])


def test_what_cannot_be_drawn_is_left_out_with_the_remedy(tmp_path: Path) -> None:
    rows, left_out = rows_of(["part/crack", "part/gizmo"], tmp_path, {}, "c")
    assert "procedural" not in rows
    assert "--looks gizmo=" in left_out["procedural"]
    assert {"fast_mixed", "fast", "transplant"} <= set(rows)  # drafts of a gizmo are real ones
    _, left_out = rows_of(["part/crack", "part/gizmo"], tmp_path, {"gizmo": ["pit"], "crack": ["none"]}, "c")
    assert "--looks crack=none" in left_out["fast_drawn"]
    rows, left_out = rows_of(["part/crack", "part/gizmo"], tmp_path, {"gizmo": ["pit"]}, "c")
    assert rows["procedural"].options["looks"] == {"gizmo": ["pit"]}
    assert not left_out
    place = Path(rows["fast"].options_for("2")["weights"])
    assert place == adapted_folder(tmp_path, CANDIDATES["fast"], "2", "c")
    assert place.parent == tmp_path / "adapted"
    assert place.name.endswith("-2")
    assert place != adapted_folder(tmp_path, replace(CANDIDATES["fast"], training=()), "2", "c")  # trained otherwise
    assert place != adapted_folder(tmp_path, CANDIDATES["fast"], "2", "d")  # on other pictures


def dataset(root: Path) -> Path:
    """Dark lines and spots on grey noise, 64 px: two types of nine parts, one image each, and four normals."""
    rng = np.random.default_rng(0)
    for kind in ("good", "crack", "hole"):
        for number in range(4 if kind == "good" else 9):
            image, mask = rng.integers(120, 140, (64, 64, 3)).astype(np.uint8), np.zeros((64, 64), np.uint8)
            x, y = (int(v) for v in rng.integers(16, 48, 2))
            if kind == "crack":
                cv2.line(mask, (x - 12, y), (x + 12, y + 9), 1, 2)
            elif kind == "hole":
                cv2.circle(mask, (x, y), 6, 1, -1)
            image[mask > 0] = 30
            side = "train" if kind == "good" else "test"
            write_image(root / "part" / side / kind / f"{number}.png", image)
            if mask.any():
                write_mask(root / "part" / "ground_truth" / kind / f"{number}_mask.png", mask)
    return root / "part"


def test_weights_are_adapted_once_to_the_training_side_of_the_split(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = check(open_dataset(dataset(tmp_path))).usable
    split, asked = nested_splits(index, make_split(index), 2)[1], []

    def main(folder: Path, script: str, *flags: str) -> None:
        asked.append(parse_training(list(flags)))
        assert script == "main.py"
        weights = folder / asked[-1].name / "checkpoints" / "fast-3.safetensors"
        save_safetensors({"a": torch.zeros(1)}, weights, {"step": "3"})

    monkeypatch.setattr(module_pairs, "run_program", main)
    for _ in range(2):
        folder = module_pairs.adapt("fast", index, split, tmp_path / "out", "1", "c", 2.5)
    (options,) = asked
    assert Split.load(options.split) == split
    assert (options.train, options.max_minutes, options.data) == (True, 2.5, str(index.root))
    assert str(folder) == rows_of(["part/crack"], tmp_path / "out", {}, "c")[0]["fast"].options_for("1")["weights"]
    assert find_weights(folder, "fast").name == "fast-3.safetensors"
    assert Path(options.base[0]).is_file()
    assert list(options.overrides) == list(CANDIDATES["fast"].training)


def test_an_adaptation_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The weights that it saved on its way are not taken for its last."""
    index = check(open_dataset(dataset(tmp_path))).usable
    split, asked = make_split(index), []

    def main(folder: Path, script: str, *flags: str) -> None:
        asked.append(parse_training(list(flags)))
        run = Path(asked[-1].resume) if asked[-1].resume else folder / asked[-1].name
        save_safetensors({"a": torch.zeros(1)}, run / "checkpoints" / f"fast-{len(asked)}00.safetensors", {})
        (run / "config.yaml").touch()
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module_pairs, "run_program", main)
    with pytest.raises(KeyboardInterrupt):
        module_pairs.adapt("fast", index, split, tmp_path / "out", "0", "c", 2.5)
    for _ in range(2):
        folder = module_pairs.adapt("fast", index, split, tmp_path / "out", "0", "c", 2.5)
    assert [options.resume for options in asked] == [None, str(folder)]
    assert find_weights(folder, "fast").name == "fast-200.safetensors"


def run(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """With a judge that sees few pixels for a few steps, enough for defects as dark as these."""
    small = partial(QuickJudge, steps=12, folds=2, views=1, pool=1000, batch=256)
    monkeypatch.setattr(module_auto, "QuickJudge", small)
    flags = ["--dataset", str(data), "--auto", "--minutes", "60", "--count", "2", "--size", "64", "--steps", "16"]
    flags += ["--real_share", "0.75"]
    return run_cli(bench.main, [*flags, "--out", str(out)])


def test_it_delivers_page_pairs_and_a_segmenter_that_answers_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    data, out = dataset(tmp_path), tmp_path / "auto"
    assert run(data, out, monkeypatch) == 0
    index = check(open_dataset(data)).usable
    split = make_split(index)
    trials = json.loads((out / "choice.json").read_text())
    assert {row["label"] for row in trials} >= {ALONE, "transplant", "procedural"}
    assert {row["seed"] for row in trials} == set(range(5))
    page = (out / "report.html").read_text()
    told = capsys.readouterr().out
    assert "by what was measured on 4 images, one nested split (real defects alone and transplant) takes about" in told
    assert "candidates on 5 of 5 nested splits fit" in told
    assert re.search(r"left out: fast \(adapting takes 8 minutes .*--minutes 64 or more\)", told)
    assert re.search(r"asked for 60 minutes, taken \d+\.\d\n", told)
    assert re.search(r"Asked for 60 minutes, taken \d+\.\d\.", page)
    for said in (
        "transplant",
        "procedural",
        "fast",
        "adapting takes",
        "segmenter.onnx",
        "75 % of the defects drawn are",
    ):
        assert said in page
    figures, about = json.loads((out / "metrics.json").read_text()), json.loads((out / "segmenter.json").read_text())
    assert ("Found where nothing is marked" in page) == bool(figures["unmarked"])
    assert {row["how"].get("real_share") for row in trials if row["label"] == "transplant"} == {0.75}
    assert {row["how"].get("normals") for row in trials} == {0.3}  # trials draw as the final training does
    # The correction for how common defects are is in what is delivered, in both files.
    assert isinstance(load(out / "segmenter.safetensors"), Corrected)
    session = onnxruntime.InferenceSession(out / about["model"])
    assert about["types"] == ["part/crack", "part/hole"]
    hit = union = 0
    for sample in split.apply(index)[1]:
        image, mask = read_image(sample.image), read_mask(sample.mask)
        assert image.shape[:2] == (about["input"]["resize"]["height"], about["input"]["resize"]["width"])
        x = ((image - np.float32(about["input"]["mean"])) / np.float32(about["input"]["std"])).transpose(2, 0, 1)
        (score,) = session.run([about["output"]["name"]], {about["input"]["name"]: x[None].astype(np.float32)})
        found = score[0, 0] > about["output"]["threshold"]
        hit, union = hit + int((found & (mask > 0)).sum()), union + int((found | (mask > 0)).sum())
    assert hit / max(union, 1) == pytest.approx(figures["miou"], abs=1e-6)
    assert hit > 0
    if figures["taken"] is None:
        assert not (out / "pairs").exists()
    else:
        train = {path.resolve() for s in split.apply(index)[0] for path in (s.image, s.mask) if path}
        pairs, left_out = from_output(out / "pairs", Copies.of_samples(split.apply(index)[1]))
        assert len(pairs) == 4
        assert left_out == 0
        normals = {s.image.resolve() for s in index.normals}
        assert {path for pair in pairs for path in pair.sources} <= train | normals


def test_minutes_that_cannot_suffice_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    costs = Costs(QuickCosts(whole=1.0, view=1.0, answer=0.0, head=10.0), start=5.0, step=1.0, image=0.5, export=5.0,
                  pair=0.75)  # fmt: skip
    monkeypatch.setattr(module_auto, "measure", lambda *_: costs)
    flags = ["--dataset", str(dataset(tmp_path)), "--auto", "--count", "2", "--size", "64", "--steps", "300"]
    assert run_cli(bench.main, [*flags, "--minutes", "3", "--out", str(tmp_path / "auto")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    # Of 18 defects 6 train, of which 4 train inside; 2 x (4 x 5 views + 2 + 10) + 4 pairs x 5 views and 0.75 are 87 s,
    # 4 normals x 5 views 20.
    assert "--minutes 3 is too few by what was measured here on 4 images: one nested split (real def" in said.err
    assert (
        "alone and transplant) takes about 1.8 minutes, the pairs of the end 0.1 minutes, the final segmenter 1.9 "
        "minutes with 100 steps and 5.3" in said.err
    )
    assert "; give --minutes 5 at least, and 7 for two nested splits" in said.err  # 226 s and 313 s, a quarter more
    assert "nested split 0" not in said.out
    assert not (tmp_path / "auto").exists()


def test_a_folder_that_another_run_writes_to_is_refused_before_its_trials_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(module_auto, "Job", lambda *_: pytest.fail("it begins"))
    flags = ["--dataset", str(dataset(tmp_path)), "--auto", "--out", str(tmp_path / "auto")]
    with sole(tmp_path / "auto" / "report.html", "--out"):
        assert run_cli(bench.main, flags) == 2
    assert "is being written by another process" in capsys.readouterr().err


def test_the_page_does_not_speak_of_pairs_that_were_not_tried() -> None:
    sides, choice = SimpleNamespace(train=[1, 2]), Choice(None, [], {}, [], 30.0)
    found: Any = SimpleNamespace(choice=choice, sides=sides, final=SimpleNamespace(made=[]))
    assert _sentence(found).startswith("No pairs were tried: ")
    assert _sentence(found).endswith("trained on the 2 real defects alone.")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "5"], "--minutes is for --auto"),
        (["--auto", "--method", "fast"], "--method is not for --auto"),
        (["--auto", "--minutes", "0"], "--minutes 0.0"),
        (["--auto", "--count", "0"], "--count 0"),
        (["--auto", "--looks", "pit"], "--looks pit"),
        pytest.param(["--auto", "--device", "cuda"], "--device cuda", marks=needs_no_card),
        (["--auto", "pairs.per_type=3"], "pairs.per_type=3"),
    ],
)
def test_bad_flags_end_in_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(bench.main, ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_final_training_draws_as_many_real_defects_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("fast.bench.few.merged", lambda *rest: asked.append(rest[3]) or [])
    judge = SimpleNamespace(fit=lambda samples: None, test=lambda *_: {"miou": 0.5, "miou_types": 0.5})
    monkeypatch.setattr(module_auto, "_network", lambda *_: judge)
    made: Any = [SimpleNamespace(sample=None)]
    for share, pairs in ((0.75, made), (None, made), (0.75, [])):
        sides = SimpleNamespace(
            train=[Sample(Path("a.png"), None, "part", "crack", "a")], test=[], index=SimpleNamespace(normals=[])
        )
        seconds = SimpleNamespace(ending=0.0, least=0.0)
        job: Any = SimpleNamespace(
            plan=module_auto.Plan(real_share=share), sides=sides, report=print,
            budget=SimpleNamespace(left=9.0), foreseen=seconds,
        )  # fmt: skip
        module_auto._final(job, pairs)
    assert asked == [0.75, None, None]


def test_a_device_decides_figures_and_the_final_training() -> None:
    plan = module_auto.Plan(device="cuda")
    assert module_auto._network(plan).seen["device"] == "cuda"
    assert QuickJudge(device="cuda").settings() == {"size": 256, "augment": "classical", "device": "cuda"}
    assert QuickJudge(None, "upright").settings() == {"size": None, "augment": "upright"}


def test_a_split_file_is_obeyed(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    Split(["a.png"], ["b.png"], 0, 0.5).save(tmp_path / "split.json")
    flags = ["--dataset", str(data), "--auto", "--split", str(tmp_path / "split.json"), "--out", str(tmp_path / "out")]
    assert run_cli(bench.main, flags) == 2
    assert not (tmp_path / "out").exists()
