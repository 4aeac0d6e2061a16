"""What pairs are worth: nested choices of real defects, tables, and the number that pairs replace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fast.bench import rows as module_rows
from fast.bench.few import ALONE, Few, Shares, choose, enough, measure, save_few
from fast.bench.few_table import table, worth
from fast.bench.nested import nested_sides, sides_of, told_again
from fast.bench.provenance import check_finished, check_weights
from fast.bench.rows import Row, RowPairs, generator_of
from fast.cli import few_defects, few_rows
from fast.data import layouts as module_layouts
from fast.data.content import dataset_content
from fast.data.images import read_image, read_mask, write_image, write_mask
from fast.data.index import DatasetIndex, Sample
from fast.data.layouts import check, open_dataset
from fast.data.split import Split, make_split, nested_splits
from fast.generators import create
from fast.runtime.command import run_cli
from fast.segmentation import quick
from fast.segmentation.data import is_normal
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError


def sample(anomaly: str, number: int, group: str) -> Sample:
    return Sample(Path(f"{anomaly}-{number}.png"), Path(f"{anomaly}-{number}-mask.png"), "part", anomaly, group)


SAMPLES = [sample(kind, i, f"{kind}{i // 3}") for kind in ("crack", "hole") for i in range(9)]


def dataset(root: Path) -> DatasetIndex:
    """Two defect types of six parts with three images each, and four normals, at 32 px."""
    rng = np.random.default_rng(0)
    names = [f"test/{kind}/{i}.png" for kind in ("crack", "hole") for i in range(18)]
    for name in [*names, *(f"train/good/{i}.png" for i in range(4))]:
        write_image(root / "part" / name, rng.integers(90, 110, (32, 32, 3)).astype(np.uint8))
        if name in names:
            mask = np.zeros((32, 32), np.uint8)
            mask[8:14, 6:20] = 1
            write_mask(root / "part" / name.replace("test", "ground_truth").replace(".png", "_mask.png"), mask)
    lines = [f"{name},{name.split('/')[1]}{number // 3}" for number, name in enumerate(names)]
    (root / "part" / "groups.csv").write_text("\n".join(["image,group", *lines]) + "\n")
    return check(open_dataset(root / "part")).usable


def rows(values: dict[tuple[str, int | None], list[float]]) -> list[dict[str, Any]]:
    return [
        {"label": label, "count": count, "seed": seed, "miou": value}
        for (label, count), own in values.items()
        for seed, value in enumerate(own)
    ]


def test_choices_are_nested_and_take_different_parts_first() -> None:
    three, six = choose(SAMPLES, 3, 5), choose(SAMPLES, 6, 5)
    assert len(three) == 6
    assert len(six) == 12
    assert {s.image for s in three} < {s.image for s in six}
    for kind in ("crack", "hole"):
        assert len({s.group for s in three if s.anomaly == kind}) == 3
    assert {s.image for s in choose(SAMPLES, None, 5)} == {s.image for s in SAMPLES}
    assert [s.image for s in three] == [s.image for s in choose(SAMPLES, 3, 5)]
    assert {s.image for s in choose(SAMPLES, 3, 6)} != {s.image for s in three}


def test_a_table_by_hand() -> None:
    found = rows({(ALONE, 3): [0.2, 0.3], (ALONE, None): [0.5, 0.5], ("moved", 3): [0.4, 0.4]})
    lines = table(found).splitlines()
    assert lines[0] == "| real defects of each type | 3 | all |"
    assert lines[2] == "| real alone | 25.0 ± 7.1 | 50.0 ± 0.0 |"
    assert lines[3].startswith("| moved | 40.0 ± 0.0 (+15.0 ± ")  # of the differences 20 and 10
    assert lines[3].endswith("| - |")


def test_one_training_has_no_spread() -> None:
    lines = table(rows({(ALONE, 3): [0.2], ("moved", 3): [0.4]})).splitlines()
    assert lines[2:] == ["| real alone | 20.0 |", "| moved | 40.0 (+20.0) |"]


def test_more_defects_than_there_are_is_all_of_them(tmp_path: Path) -> None:
    def side(**numbers: int) -> Any:
        return SimpleNamespace(train=[sample(kind, i, str(i)) for kind, count in numbers.items() for i in range(count)])

    one, other = side(crack=4, hole=12), side(crack=3, hole=10)
    assert enough((0, 3, None), [one, other]) == ([0, 3, None], [])
    kept, notes = enough((0, 3, 5, 12, 50, None), [one, other])
    assert kept == [0, 3, 5, None]
    assert notes == [
        "note: no type has more than 12 real defects to train on: 12, 50 of each are all of them, and are left out",
        "note: of part/crack there are 3 real defects to train on: it has no more in rows of 5 of each type",
    ]
    with pytest.raises(UserError, match="--counts 12: no type has more than 12 real defects to train on, so that is"):
        enough((12,), [one, other])
    index = dataset(tmp_path)
    split = make_split(index)
    with pytest.raises(UserError, match="--counts 50: no type has more than 6 real defects to train on"):
        save_few(index, split, [1, 50], [0], tmp_path / "few", nested=False)
    assert not (tmp_path / "few").exists()


def test_what_pairs_are_worth_lies_on_the_line_between_two_numbers() -> None:
    found = rows({
        (ALONE, 5): [0.2], (ALONE, 10): [0.4], (ALONE, None): [0.5],
        ("moved", 5): [0.3], ("moved", 10): [0.45], ("moved", None): [0.6],
    })  # fmt: skip
    assert worth(found, "moved", 5, 20.0) == pytest.approx(7.5)
    assert worth(found, "moved", 10, 20.0) == pytest.approx(15.0)
    assert worth(found, "moved", None, 20.0) is None
    assert worth(found, "drawn", 5, 20.0) is None


@pytest.mark.parametrize(
    "flags",
    [
        ["--counts", "few"],
        ["--counts", ""],
        ["--looks", "pit"],
        ["--seeds", "-1"],
        ["--pairs", "0"],
        ["--nested", "0"],
        ["--steps", "0"],
        ["--steps", "5"],
        ["--prior", "drawn"],
        ["--normals", "1"],
        ["--write_splits", "there"],
        ["--nested", "2", "--write_splits", "there", "--counts", "0,all"],
        ["--row", "new"],
        ["--mix", "half=transplant:fast"],
        ["--nested", "2", "--folder", "made=run"],
        ["--nested", "2", "--write_splits", "there", "--seeds", "0"],
        ["--nested", "2", "--write_splits", "there", "--normals", "0.3"],
        ["--nested", "2", "--write_splits", "there", "--real_share", "merge"],
        ["--nested", "2", "--write_splits", "there", "--native"],
        ["--at_all", "half"],
        ["--methods", "--looks", "crack=pit"],
        ["--methods", "--real_share", "0.75"],
    ],
    ids=" ".join,
)
def test_bad_flags_end_in_one_line(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(few_defects.main, ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert " ".join(flags[-2:] if flags[-1] != "--native" else flags[-1:]) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["row", "folder", "mix"])
def test_each_label_is_of_one_row(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"row": "transplant", "folder": "run", "mix": "transplant:procedural"}[flag]
    for labels in (["new", "new"], ["procedural"]):
        given = [text for label in labels for text in (f"--{flag}", f"{label}={value}")]
        assert run_cli(few_defects.main, ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), *given]) == 2
        assert f"--{flag} {labels[0]}=... is the label of another row too" in capsys.readouterr().err


def test_of_a_finished_run_the_first_pairs_of_each_type_count(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    write_output(tmp_path / "run", [s.image for s in sides.train], sides.split.hash)
    made = RowPairs({"made": Row(folder=str(tmp_path / "run"))}, 3).of("made", sides, sides.train, None, 0)
    assert [pair.sources for pair in made] == [{s.image.resolve()} for s in sides.train[:3]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("new=wand", "'wand'"),
        ("new=transplant,blend=none", "blend='none'"),
        ("new=fast,weights=mini,draft=mixed,draft_options.max_distance=0", "max_distance=0 is no distance"),
        ("new=fast,weights=mini,draft_options.turn=9", "draft_options.turn is an option of drafts; add draft=mixed"),
        ("new=transplant,draft_options.turn=9", "transplant has no drafts, leave draft_options. out"),
        ("new=fast,weights=mini,draft=mixed,draft_options.split=all", "draft_options.split is settled by --dataset"),
        ("new=fast,weights=mini,draft=mixed,draft_options.looks.fray=chip", "for all rows, by --looks fray=A,B"),
    ],
)
def test_bad_rows_end_in_one_line(row: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(few_defects.main, ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), "--row", row]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def write_output(folder: Path, sources: list[Path], split: str) -> None:
    """A finished run of two pairs a source."""
    rows = []
    for number, source in enumerate(sources):
        for part in ("image", "mask"):
            write_image(
                folder / part / f"{number}.png", np.zeros((32, 32, 3) if part == "image" else (32, 32), np.uint8)
            )
        files = {part: f"{part}/{number}.png" for part in ("image", "mask")}
        rows.append({**files, "type": "part/crack", "normal_source": str(source), "mask_source": str(source)})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "settings.json").write_text(json.dumps({"training": {"split": split}}))


def test_pairs_that_were_made_from_what_is_tested_on_are_left_out(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    outer = make_split(index).apply(index)[1][0]
    write_output(tmp_path / "run0", [sides.train[0].image, sides.test[0].image, outer.image], sides.split.hash)
    pairs = RowPairs({"made": Row(folder=str(tmp_path / "run{seed}")), "half": Row(mix=("made", "made"))}, 1)
    assert [p.sources for p in pairs.of("made", sides, sides.train, None, 0)] == [{sides.train[0].image.resolve()}]
    assert pairs.needs_all("made")
    assert pairs.needs_all("half")
    settings = tmp_path / "run0" / "settings.json"
    settings.write_text(json.dumps({"training": {"split": make_split(index).hash}}))
    with pytest.raises(UserError, match=r"may have seen what is\s+tested on"):
        RowPairs(pairs.rows, 1).of("made", sides, sides.train, None, 0)


def test_a_damaged_picture_of_a_finished_run_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    index, judge = dataset(tmp_path), Recorder()
    split = make_split(index)
    write_output(tmp_path / "run", [split.apply(index)[0][0].image], split.hash)
    bad = sorted((tmp_path / "run" / "image").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:30])
    few = Few((None,), (0,), {"made": Row(folder=str(tmp_path / "run"))}, 2)
    with pytest.raises(UserError, match=f"{bad.name}.*run the set's command again"):
        measure(index, split, few, judge, tmp_path / "rows.json", report=lambda _: None)
    assert judge.asked == []


@pytest.mark.parametrize("way", ["options", "draft_settings", "mixed", "scores"])
def test_real_defects_of_another_split_are_refused_as_pairs_and_as_drafts(tmp_path: Path, way: str) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    for split, fits in ((sides.split, True), (make_split(index), False)):
        write_output(tmp_path / "run", [sides.train[0].image], sides.split.hash)
        own = {"split": split.hash}
        told = {"draft_settings": {"transplant": own, "procedural": {}}} if way == "mixed" else {way: own}
        note = "scores.json" if way == "scores" else "settings.json"
        (tmp_path / "run" / note).write_text(json.dumps(own if way == "scores" else told))
        pairs = RowPairs({"made": Row(folder=str(tmp_path / "run"))}, 1)
        if fits:
            assert len(pairs.of("made", sides, sides.train, None, 0)) == 1
            continue
        with pytest.raises(UserError, match="was made for the split"):
            pairs.of("made", sides, sides.train, None, 0)


def test_methods_see_the_inner_training_side_alone(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 2)
    pairs = RowPairs({"moved": Row("transplant", {"on_object": "off"}), "pasted": Row("cutpaste")}, 4)
    for seed, own in enumerate(sides):
        made = pairs.of("moved", own, own.train, None, seed)
        assert [p.kind for p in made] == ["part/crack"] * 4 + ["part/hole"] * 4
        assert {path for p in made for path in p.sources} <= {s.image.resolve() for s in own.train}
    assert not pairs.needs_all("moved")
    assert pairs.of("moved", sides[0], [], 0, 0) == []


def test_a_mixture_takes_every_other_pair_of_each(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    rows = {"a": Row("cutpaste"), "b": Row("draem"), "half": Row(mix=("a", "b"))}
    pairs = RowPairs(rows, 5)
    first, second, half = (pairs.of(name, sides, sides.train, None, 0) for name in rows)
    cracks = [p for p in half if p.kind == "part/crack"]
    assert [id(p.image) for p in cracks[:3]] == [id(p.image) for p in first[:5:2]]
    assert [id(p.image) for p in cracks[3:]] == [id(p.image) for p in second[1:5:2]]
    assert len(half) == len(first) == 10


def test_trained_weights_are_of_the_split_and_shipped_ones_take_its_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(module_rows, "create", lambda name, **options: asked.append(options))
    module_rows.generator_of(Row("fast", {"weights": "mini"}), sides, sides.train, "0")
    assert asked == [{"weights": "mini", "types": ["part/crack", "part/hole"]}]
    for split in (sides.split, make_split(index)):
        save_safetensors({"a": torch.zeros(1)}, tmp_path / "run0" / "fast-1.safetensors", {"split": split.hash})
        row = Row("fast", {"weights": str(tmp_path / "run{seed}")})
        if split is sides.split:
            module_rows.generator_of(row, sides, sides.train, "0")
            assert asked[-1] == {"weights": str(tmp_path / "run0")}
        else:
            with pytest.raises(UserError, match="was made for the split"):
                module_rows.generator_of(row, sides, sides.train, "0")
    with pytest.raises(UserError, match="needs weights"):
        module_rows.generator_of(Row("fast"), sides, sides.train, "0")


@pytest.mark.parametrize(("told", "said"), [({"split": "all"}, "all real defects"), ({}, "a split that they do not")])
def test_weights_that_may_have_seen_everything_are_refused(tmp_path: Path, told: dict[str, str], said: str) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    for name in ("fast", "sdas"):
        save_safetensors({"a": torch.zeros(1)}, tmp_path / "run" / f"{name}-1.safetensors", told)
    with pytest.raises(UserError, match=f"was made for {said}"):
        check_weights("fast", {"weights": str(tmp_path / "run")}, sides)
    check_weights("realnet", {"weights": str(tmp_path / "run")}, sides)  # it learns from normal images alone
    for fits in ({"split": "drawn"}, {**told, "config": json.dumps({"data": {"params": {"use": "normals"}}})}):
        save_safetensors({"a": torch.zeros(1)}, tmp_path / "run" / "fast-1.safetensors", fits)
        check_weights("fast", {"weights": str(tmp_path / "run")}, sides)
    for config in ("nonsense", "[]", json.dumps({"data": None}), json.dumps({"data": {"params": None}})):
        save_safetensors({"a": torch.zeros(1)}, tmp_path / "run" / "fast-1.safetensors", {**told, "config": config})
        with pytest.raises(UserError, match=f"was made for {said}"):
            check_weights("fast", {"weights": str(tmp_path / "run")}, sides)


@pytest.mark.parametrize(
    ("method", "training", "said"),
    [
        ("fast", {"split": "all"}, "all real defects"),
        ("fast", {"split": "0" * 64}, "the split 000000000000"),
        ("fast", {"split": None}, "a split that they do not name"),
        ("realnet", {"split": "all"}, ""),  # it learns from normal images alone
        ("fast", {"split": "all", "use": "normals"}, ""),
        ("fast", {"split": "drawn"}, ""),
    ],
)
def test_a_finished_run_of_weights_that_may_have_seen_everything_is_refused(
    tmp_path: Path, method: str, training: dict[str, Any], said: str
) -> None:
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 1)[0]
    write_output(tmp_path / "run", [sides.train[0].image], sides.split.hash)
    (tmp_path / "run" / "settings.json").write_text(json.dumps({"method": method, "training": training}))
    if not said:
        check_finished(tmp_path / "run", sides)
        return
    with pytest.raises(UserError, match=f"was made for {said}"):
        check_finished(tmp_path / "run", sides)


def test_rows_of_pictures_that_have_changed_are_refused(tmp_path: Path) -> None:
    """The names are the same, and so is the split; the masks to test on are not."""
    index = dataset(tmp_path)
    split, few, out = make_split(index), Few((None,), (0,), {}, 2), tmp_path / "rows.json"
    measure(index, split, few, Recorder(), out)
    before, sample = out.read_bytes(), split.apply(index)[1][0]
    assert sample.mask is not None
    write_mask(sample.mask, 1 - read_mask(sample.mask))
    with pytest.raises(UserError, match=r"rows\.json holds rows of other pictures, masks or parts than are"):
        measure(index, split, few, Recorder(), out)
    assert out.read_bytes() == before
    inside = Few((None,), (0,), {}, 2, nested=True)
    measure(index, split, inside, Recorder(), tmp_path / "nested.json")
    write_mask(sample.mask, 1 - read_mask(sample.mask))  # of the test side, which is nothing to it
    measure(index, split, inside, Recorder(), tmp_path / "nested.json")


@pytest.mark.parametrize("of", ["weights", "folder"])
def test_rows_of_other_weights_or_pairs_of_the_same_name_are_refused(of: str, tmp_path: Path) -> None:
    index = dataset(tmp_path)
    split = make_split(index)
    place = tmp_path / "run0"
    row = Row("realnet", {"weights": str(tmp_path / "run{seed}")}) if of == "weights" else Row(folder=str(place))

    def store(number: int) -> None:
        if of == "weights":
            save_safetensors({"a": torch.full((1,), float(number))}, place / "sdas-1.safetensors", {})
        else:
            write_output(place, [split.apply(index)[0][number].image], split.hash)

    store(0)
    same = row.files("0")
    assert row.files("0") == same
    store(1)
    assert row.files("0") != same
    known = [{"label": "a", "count": None, "seed": 0, "split": split.hash, "judged": {"draw": "parts"},
              "data": dataset_content(index), "how": {**row.describe(), **same, "per_type": 2}}]  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(known))
    with pytest.raises(UserError, match="holds 'a' with other options"):
        measure(index, split, Few((None,), (0,), {"a": row}, 2), Recorder(), tmp_path / "rows.json")


def test_pairs_of_methods_that_learn_nothing_do_not_depend_on_who_asks_first(tmp_path: Path) -> None:
    """A row that goes on after a stop has the pairs that it had before it."""
    index = dataset(tmp_path)
    sides = nested_sides(index, make_split(index), 3)
    pictures = []
    for first in (0, 2):
        pairs = RowPairs({"pasted": Row("cutpaste")}, 2)
        made = pairs.of("pasted", sides[first], sides[first].train, None, first)
        pictures.append(np.stack([p.read()[0] for p in made]))
    np.testing.assert_array_equal(*pictures)


class Recorder:
    """A judge that notes what it is given."""

    def __init__(self) -> None:
        self.asked: list[tuple[set[Any], set[Any]]] = []

    def fit(self, samples: Sequence[Any], seed: int = 0) -> set[Any]:
        return {s.image for s in samples if not s.synthetic}

    def test(self, network: set[Any], samples: Sequence[Any]) -> dict[str, Any]:
        self.asked.append((network, {s.image for s in samples}))
        return {
            "miou": 0.5,
            "miou_types": 0.5,
            "ap": 0.5,
            "auroc": 0.5,
            "types": {"part/crack": {"iou": 0.5}},
            "parts": [],
        }


def test_nested_rows_are_trained_and_tested_inside_the_training_side(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    split = make_split(index)
    train, test = split.apply(index)
    for sample in test:
        sample.image.unlink()  # nothing of the test side is read
    few = Few((None,), (0, 1), {"pasted": Row("cutpaste")}, 2, nested=True)
    judge, out = Recorder(), tmp_path / "out" / "rows.json"
    rows = measure(index, split, few, judge, out, report=lambda _: None)
    assert [(r["label"], r["seed"]) for r in rows] == [(ALONE, 0), ("pasted", 0), (ALONE, 1), ("pasted", 1)]
    inside = {s.image for s in train}
    for fitted, tested in judge.asked:
        assert fitted | tested == inside
        assert not fitted & tested
    assert judge.asked[0] == judge.asked[1] != judge.asked[2]
    measure(index, split, few, judge, out, report=lambda _: None)
    assert len(judge.asked) == 4  # those there are not measured again
    for sample in test:
        sample.image.touch()
    with pytest.raises(UserError, match="another split"):
        measure(index, split, Few((None,), (0,), few.rows, 2), judge, out)
    with pytest.raises(UserError, match="other options"):
        measure(index, split, Few((None,), (0,), few.rows, 3, nested=True), judge, out)


@pytest.mark.parametrize(
    "changed",
    [
        ["--size", "48"],
        ["--normals", "0.3"],
        ["--native"],
        ["--upright"],
        ["--segmenter", "mini"],
        ["--draw", "images"],
    ],
    ids=" ".join,
)
def test_rows_that_were_judged_otherwise_are_refused_in_one_line(
    changed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, own = Recorder(), quick.QuickJudge

    def stand_in(size: int | None, augment: str, **_: Any) -> Recorder:
        judge.settings = own(size, augment).settings
        return judge

    monkeypatch.setattr(quick, "QuickJudge", stand_in)
    dataset(tmp_path)
    flags = ["--dataset", str(tmp_path / "part"), "--out", str(tmp_path / "out"), "--methods", "--counts", "all",
             "--seeds", "0", "--size", "32"]  # fmt: skip
    assert run_cli(few_defects.main, flags) == 0
    assert run_cli(few_defects.main, flags) == 0
    assert len(judge.asked) == 1
    before = (tmp_path / "out" / "rows.json").read_bytes()
    capsys.readouterr()
    assert run_cli(few_defects.main, [*flags, *changed]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "judged otherwise (size=32 augment=classical draw=parts, now " in error
    assert error.count("\n") == 1
    assert len(judge.asked) == 1
    assert (tmp_path / "out" / "rows.json").read_bytes() == before


def test_rows_are_measured_by_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset(tmp_path)
    flags = ["--dataset", str(tmp_path / "part"), "--out", str(tmp_path / "out"), "--methods", "transplant",
             "--counts", "all", "--seeds", "0", "--size", "32", "--segmenter", "mini", "--steps", "2",
             "--pairs", "2"]  # fmt: skip
    assert run_cli(few_defects.main, flags) == 0
    alone, with_pairs = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert alone["judged"] == {"segmenter": "mini", "steps": 2, "augment": "classical", "prior": "real",
                               "size": 32, "native": False,
                               "device": "cpu", "bf16": alone["judged"]["bf16"], "draw": "parts"}  # fmt: skip
    assert (alone["label"], alone["pairs"]) == ("real alone", 0)
    assert with_pairs["pairs"] > 0
    # The same weights, trained on other samples.
    assert alone["ap"] != with_pairs["ap"]
    assert not (tmp_path / "out" / "features").exists()


def test_rows_of_the_command_line() -> None:
    flags = ["--dataset", "d", "--methods", "--row", "feather=transplant,blend=feather,scale=[0.5,2],turn=9",
             "--folder", "fast=runs/{seed}", "--mix", "half=feather:fast"]  # fmt: skip
    rows = few_rows.rows_of(few_defects.parser().parse_args(flags))
    options = {"on_object": "off", "blend": "feather", "scale": [0.5, 2], "turn": 9}
    assert rows == {
        "feather": Row("transplant", options), "fast": Row(folder="runs/{seed}"), "half": Row(mix=("feather", "fast"))
    }  # fmt: skip
    flags = ["--dataset", "d", "--methods", "--looks", "fray=chip", "--row",
             "new=fast,weights=mini,draft=mixed,strength=0.3,draft_options.max_distance=null"]  # fmt: skip
    (made,) = few_rows.rows_of(few_defects.parser().parse_args(flags)).values()
    own = {"on_object": "off", "looks": {"fray": ["chip"]}, "max_distance": None}
    assert made == Row("fast", {"weights": "mini", "draft": "mixed", "strength": 0.3, "draft_options": own})
    assert made.describe()["max_distance"] == 1  # what was measured before there was a distance is another row
    flags[-1] = "new=fast,weights=mini,draft=mixed,draft_options={turn: 9},draft_options.max_distance=2"
    (made,) = few_rows.rows_of(few_defects.parser().parse_args(flags)).values()
    assert made.options["draft_options"] == {**own, "turn": 9, "max_distance": 2}
    flags[-1] = "new=fast,weights=mini,draft=mixed,draft_options=null"
    (made,) = few_rows.rows_of(few_defects.parser().parse_args(flags)).values()
    assert made.options["draft_options"] == {"on_object": "off", "looks": {"fray": ["chip"]}}
    assert Row("fast", {"weights": "runs/{seed}", "steps": 5}).options_for("2") == {"weights": "runs/2", "steps": 5}


def test_pairs_of_a_row_on_pictures_of_a_grey_camera_are_grey(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    grey = tmp_path / "grey"
    shutil.copytree(drawn_root, grey)
    for file in grey.rglob("*.png"):
        write_image(file, read_image(file)[:, :, 0])
    index = check(open_dataset(grey)).usable
    sides = sides_of(index, make_split(index))
    options = {"weights": str(tiny_artifact), "steps": 2, "scale": 1.0}
    rows = {"noise": Row("fast", options), "drawn": Row("fast", {**options, "draft": "procedural", "strength": 0.5})}
    for label, row in rows.items():
        generator = generator_of(row, sides, sides.train, "0")
        normal, rng = read_image(sides.index.normals[0].image), np.random.default_rng(0)
        made = RowPairs(rows, 1).of(label, sides, sides.train, None, 0)
        mask = None if row.drafted else made[0].read()[1]
        bare = generator.pair(normal, mask, rng, made[0].kind)
        assert np.ptp(bare.image, axis=2).any()  # networks of colours
        for pair in made:
            assert not np.ptp(pair.read()[0], axis=2).any()


def test_counterfeits_of_a_row_are_normals_in_the_masks_of_its_pairs(drawn_root: Path, tiny_artifact: Path) -> None:
    index = check(open_dataset(drawn_root)).usable
    sides = sides_of(index, make_split(index))
    options = {"weights": str(tiny_artifact), "draft": "procedural", "strength": 0.5, "steps": 2, "scale": 1.0}
    row = Row("fast", options, counterfeits=0.5)
    assert row.describe()["counterfeits"] == 0.5
    assert row.describe()["keep_grey"]  # what was measured on coloured pairs is another row
    made = RowPairs({"a": row}, 2).made("a", sides, sides.train, None, 0)
    kinds = sorted({f"{s.category}/{s.anomaly}" for s in sides.train})
    assert [m.record["type"] for m in made] == [
        name for kind in kinds for name in (kind, kind, f"{kind.split('/')[0]}/good")
    ]
    for pair, fake in zip(made[::3], made[2::3], strict=True):
        assert fake.record["counterfeit"] is True
        assert is_normal(fake.sample)
        assert fake.record["normal_source"] == pair.record["normal_source"]
        (image, mask), (filled, empty) = pair.sample.read(), fake.sample.read()
        assert not empty.any()
        assert mask.any()
        outside = mask == 0
        assert np.array_equal(filled[outside], image[outside])
        assert not np.array_equal(filled, image)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"method": "procedural", "counterfeits": 0.5}, "of methods on a latent base, not of procedural"),
        ({"method": "fast", "counterfeits": 1.5}, "counterfeits=1.5 lies outside 0..1"),
        ({"method": "fast", "counterfeits": "half"}, "counterfeits=half lies outside 0..1"),
    ],
)
def test_counterfeits_that_no_row_can_have_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Row(**row)


def test_pairs_and_weights_that_are_not_there_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    index, judge = dataset(tmp_path), Recorder()
    split = make_split(index)
    for row in (Row(folder=str(tmp_path / "gone{seed}")), Row("fast", {"weights": str(tmp_path / "gone")})):
        few = Few((None,), (0,), {"pasted": Row("cutpaste"), "made": row, "half": Row(mix=("pasted", "made"))}, 2)
        with pytest.raises(UserError, match="gone"):
            measure(index, split, few, judge, tmp_path / "rows.json", report=lambda _: None)
    assert judge.asked == []
    assert not (tmp_path / "rows.json").exists()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("procedural", {"looks": {"crak": ["scratch"]}}),
        ("fast", {"weights": "mini", "draft": "procedural", "draft_options": {"looks": {"crak": ["scratch"]}}}),
    ],
)
def test_types_that_cannot_be_drawn_are_told_before_anything_is_trained(
    method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    index, judge = dataset(tmp_path), Recorder()
    index.defects = [replace(s, anomaly="crakc") if s.anomaly == "crack" else s for s in index.defects]
    few = Few((None,), (0,), {"pasted": Row("cutpaste"), "drawn": Row(method, options)}, 2)
    says = (
        r"^drawn: nothing that can be drawn is called crakc; say what it looks like, as in --looks crakc=scratch,pit$"
    )
    with pytest.raises(UserError, match=says):
        measure(index, make_split(index), few, judge, tmp_path / "rows.json", report=lambda _: None)
    assert judge.asked == []


def test_rows_that_are_not_measured_beside_a_few_defects_are_told(tmp_path: Path) -> None:
    index, lines = dataset(tmp_path), list[str]()
    made = Row(folder=str(tmp_path / "made"))
    asked = Few((0, 1), (0,), {"pasted": Row("cutpaste"), "made": made, "kept": made}, 2, only_all=("kept",))
    measure(index, make_split(index), asked, Recorder(), tmp_path / "rows.json", report=lines.append)
    notes = [line for line in lines if line.startswith("note:")]
    assert len(notes) == 1
    assert notes[0].startswith("note: made is measured beside all real defects alone, not beside 0, 1:")


@pytest.mark.parametrize(("counts", "fewer"), [((1, 6, None), ["1"]), ((6, None), [])])
def test_no_row_is_said_to_lack_a_number_that_is_left_out_for_all_rows(
    counts: tuple[int | None, ...], fewer: list[str], tmp_path: Path
) -> None:
    index, lines = dataset(tmp_path), list[str]()
    asked = Few(counts, (0,), {"made": Row(folder=str(tmp_path / "made"))}, 2)
    with pytest.raises(UserError, match="made"):  # which is not there: the notes come first
        measure(index, make_split(index), asked, Recorder(), tmp_path / "rows.json", report=lines.append)
    assert any(line.endswith(": 6 of each are all of them, and are left out") for line in lines)
    told = [line.split("not beside ")[1].split(":")[0] for line in lines if line.startswith("note: made is measured")]
    assert told == fewer


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--row", "new=fast"], "new=fast fast needs weights; add weights=RUN"),
        (["--row", "new=fast,weights=mini,draft=procedural,strength=3"], "--strength 3 lies outside 0..1"),
        (["--row", "new=fast,weights=mini,draft=procedural", "--looks", "blowhole=ditch"], "looks.blowhole=['ditch']"),
        (["--row", "new=fast,weights=mini,draft=both"], "--draft both is unknown"),
        (["--split", "nowhere.json"], "nowhere.json"),
    ],
)
def test_options_are_refused_before_the_images_are_read(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_layouts, "open_dataset", lambda *_: pytest.fail("the dataset is opened"))
    argv = ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), "--methods", *flags]
    assert run_cli(few_defects.main, argv) == 2
    assert said in capsys.readouterr().err


def test_what_names_are_drawn_as_is_told_once() -> None:
    kinds = ["part/colour", "part/crack"]
    for flags, told in (([], 1), (["--looks", "colour=oil"], 0)):
        rows = few_rows.rows_of(few_defects.parser().parse_args(["--dataset", "d", *flags]))
        notes = few_rows.notes_of([*rows.values(), *rows.values()], kinds)
        assert len(notes) == told
        assert all("colour is drawn as stain or fade" in n and "--looks colour=scratch,pit" in n for n in notes)
    assert few_rows.notes_of([Row("transplant")], kinds) == []
    rows = few_rows.rows_of(few_defects.parser().parse_args(["--dataset", "d", "--looks", "unevn=oil"]))
    (_, unused) = few_rows.notes_of(rows.values(), kinds)
    assert unused == "note: looks of unevn are not used: no type here has that name (colour, crack)"


def test_nested_splits_are_written_for_other_programs(tmp_path: Path) -> None:
    index = dataset(tmp_path / "data")
    make_split(index).save(tmp_path / "split.json")
    flags = ["--dataset", str(index.root), "--split", str(tmp_path / "split.json"), "--nested", "2"]
    assert run_cli(few_defects.main, [*flags, "--write_splits", str(tmp_path / "inner")]) == 0
    for seed in range(2):
        assert Split.load(tmp_path / f"inner/{seed}.json") == nested_splits(index, make_split(index), 2)[seed]


def test_nested_splits_that_repeat_are_told(tmp_path: Path) -> None:
    index = dataset(tmp_path / "data")
    two = sorted({s.group for s in index.defects if s.anomaly == index.defects[0].anomaly})[:2]
    names = [index.relative(s.image) for s in index.defects]
    few = [index.relative(s.image) for s in index.defects if s.group in two]
    outer = Split(few, [name for name in names if name not in few], 0, 1 / 3)
    (told,) = told_again(nested_sides(index, outer, 4))
    assert told.startswith("note: of 4 nested splits 2 differ")
    assert told_again(nested_sides(index, outer, 2)) == []
    assert told_again([sides_of(index, outer)] * 3) == []  # seeds of one split are not nested splits


def test_splits_of_a_few_defects_are_written_and_their_weights_measured_beside_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = dataset(tmp_path / "data")
    split = make_split(index)
    split.save(tmp_path / "split.json")
    flags = ["--dataset", str(index.root), "--split", str(tmp_path / "split.json"), "--counts", "0,2,all"]
    assert run_cli(few_defects.main, [*flags, "--seeds", "0", "1", "--write_splits", str(tmp_path / "few")]) == 0
    assert sorted(file.name for file in (tmp_path / "few").iterdir()) == ["2-0.json", "2-1.json"]
    for seed in range(2):
        few = Split.load(tmp_path / f"few/2-{seed}.json")
        chosen = choose(split.apply(index)[0], 2, seed)
        assert (few.apply(index)[0], few.test) == (sorted(chosen, key=lambda s: s.image), split.test)
        assert {*few.train, *few.excluded} == {*split.train, *split.excluded}  # nothing is merely forgotten
        save_safetensors({"a": torch.zeros(1)}, tmp_path / f"run-2-{seed}/fast-1.safetensors", {"split": few.hash})
    asked: list[dict[str, Any]] = []

    def made(name: str, **options: Any) -> Any:
        asked.append(options)
        return create("cutpaste")

    monkeypatch.setattr(module_rows, "create", made)
    row = Row("fast", {"weights": str(tmp_path / "run-{count}-{seed}")})
    measured = Few((0, 2), (0, 1), {"FAST": row}, 1)
    found = measure(index, split, measured, Recorder(), tmp_path / "out" / "rows.json", report=lambda _: None)
    assert [(r["label"], r["count"], r["seed"], r["real"]) for r in found if r["label"] != ALONE] == [
        ("FAST", 2, 0, 4), ("FAST", 2, 1, 4)
    ]  # fmt: skip
    assert [Path(a["weights"]).name for a in asked] == ["run-2-0", "run-2-1"]
    save_safetensors({"a": torch.zeros(1)}, tmp_path / "run-3-0/fast-1.safetensors", {"split": split.hash})
    again = replace(measured, counts=(3,), seeds=(0,))
    with pytest.raises(UserError, match=r"was made for the split .* \{count\}"):  # weights that saw all of them
        measure(index, split, again, Recorder(), tmp_path / "more" / "rows.json", report=lambda _: None)


def test_a_share_of_real_defects_is_of_rows_with_pairs(tmp_path: Path) -> None:
    index, judge, out = dataset(tmp_path), Recorder(), tmp_path / "rows.json"
    half = Few((None,), (0,), {}, 2)
    measure(index, make_split(index), half, judge, out, report=lambda _: None)
    more = replace(half, rows={"pasted": Row("cutpaste")}, shares=Shares(real_share=0.75))
    found = measure(index, make_split(index), more, judge, out, report=lambda _: None)
    assert [row["label"] for row in found] == [ALONE, "pasted"]
    assert len(judge.asked) == 2  # real defects alone are what they were
    assert found[1]["how"]["real_share"] == 0.75
    with pytest.raises(UserError, match="holds 'pasted' with other options"):
        measure(index, make_split(index), replace(more, shares=Shares()), judge, out, report=lambda _: None)


def test_every_row_sees_the_same_share_of_normal_images(tmp_path: Path) -> None:
    index = dataset(tmp_path)
    seen: list[dict[str, float]] = []

    class Weigher(Recorder):
        def fit(self, samples: Sequence[Any], seed: int = 0) -> set[Any]:
            of = [("synthetic" if s.synthetic else "normal" if is_normal(s) else "real", s.weight) for s in samples]
            total = sum(weight for _, weight in of)
            seen.append({kind: sum(w for k, w in of if k == kind) / total for kind, _ in of})
            return set()

    asked = Few((None,), (0,), {"pasted": Row("cutpaste")}, 2, shares=Shares(0.3))
    measure(index, make_split(index), asked, Weigher(), tmp_path / "rows.json", report=lambda _: None)
    assert seen == [pytest.approx({"real": 0.7, "normal": 0.3}),
                    pytest.approx({"real": 0.35, "synthetic": 0.35, "normal": 0.3})]  # fmt: skip
    for share, real in ((0.9, 0.9), (None, 12 / 16)):  # none: twelve real and four synthetic ones alike
        shares = Shares(0.3, real_share=share)
        measure(index, make_split(index), replace(asked, shares=shares), Weigher(), tmp_path / f"{share}.json",
                report=lambda _: None)  # fmt: skip
        assert seen[-1] == pytest.approx({"real": 0.7 * real, "synthetic": 0.7 * (1 - real), "normal": 0.3})
    bare = replace(index, normals=[])
    with pytest.raises(UserError, match=r"--normals 0.3: .* has no normal images"):
        measure(bare, make_split(bare), asked, Weigher(), tmp_path / "none.json")
    with pytest.raises(UserError, match=r"judged otherwise \(normals=0.3 draw=parts, now draw=parts\)"):
        measure(index, make_split(index), replace(asked, shares=Shares()), Weigher(), tmp_path / "rows.json")


def test_normal_images_beyond_a_number_are_left_out_evenly(tmp_path: Path) -> None:
    normals = dataset(tmp_path).normals
    assert [s.image for s in Shares(0.3, most=2).flawless(normals)] == [normals[0].image, normals[2].image]
    for most in (4, 9, None):
        assert [s.image for s in Shares(0.3, most=most).flawless(normals)] == [s.image for s in normals]
    assert Shares(0.0).flawless(normals) == Shares(0.3).flawless([]) == []
    assert Shares(0.3, most=2).describe() == {"normals": 0.3, "most_normals": 2, "draw": "parts"}
