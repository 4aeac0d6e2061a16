"""Normal images of parts that are tested on are neither trained on nor made into pairs, and what becomes of them is
told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fast.bench.few import ALONE, Few
from fast.bench.few import measure as measure_few
from fast.bench.nested import nested_sides, sides_of, training_side
from fast.bench.plan import plan
from fast.bench.protocol import parse
from fast.bench.rows import Row, RowPairs
from fast.bench.work import _flags
from fast.cli import bench, bench_auto, few_defects, pairs, prepare_data, segment
from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.data.images import write_image, write_mask
from fast.data.index import DatasetIndex
from fast.data.layouts import open_dataset
from fast.data.module import DefectData
from fast.data.normals import apart, normals_notes, normals_of_test
from fast.data.split import Split, make_split
from fast.generators.adaptation import AdaptationData
from fast.runtime.command import run_cli
from fast.segmentation.data import from_output

PARTS = 6  # each with two defects and two normals; a normal that no list names comes beside them


def dataset(root: Path, listed: bool = True) -> Path:
    """A category of six parts at 32 px, whose normals `groups.csv` lists, or does not."""
    rng, rows = np.random.default_rng(0), []
    for part in range(PARTS):
        for i in range(2):
            for name in (f"test/crack/{part}-{i}.png", f"train/good/{part}-{i}.png"):
                write_image(root / name, rng.integers(90, 110, (32, 32, 3)).astype(np.uint8))
                rows += [f"{name},part{part}"] if listed or "crack" in name else []
            mask = np.zeros((32, 32), np.uint8)
            mask[8:14, 6 : 20 + i] = 1
            write_mask(root / f"ground_truth/crack/{part}-{i}_mask.png", mask)
    write_image(root / "train/good/unlisted.png", rng.integers(90, 110, (32, 32, 3)).astype(np.uint8))
    (root / "groups.csv").write_text("\n".join(["image,group", *rows]) + "\n")
    return root


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return dataset(tmp_path / "parts")


def part_of(path: Path) -> str:
    return path.stem.split("-")[0]


def expected(split: Split) -> set[str]:
    """File names of the normals that may be used: of the parts whose defects train, and the one of no part."""
    trained = {Path(name).stem.split("-")[0] for name in split.train}
    return {"unlisted.png", *(f"{part}-{i}.png" for part in trained for i in range(2))}


def names(index: DatasetIndex) -> set[str]:
    return {s.image.name for s in index.normals}


def test_normals_of_tested_parts_are_left_out(parts: Path) -> None:
    index = open_dataset(parts)
    split = make_split(index)
    assert len(split.train) == 4
    assert names(apart(index, split)) == names(sides_of(index, split).index) == expected(split)
    assert names(training_side(index, split)) == expected(split)
    assert {s.image.name for s in normals_of_test(index, split)} == names(index) - expected(split)


def test_of_normals_that_no_list_names_all_are_used(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path / "parts", listed=False))
    assert normals_of_test(index, make_split(index)) == []
    assert apart(index, make_split(index)) == index


def test_splits_inside_leave_out_those_of_either_test_side(parts: Path, tmp_path: Path) -> None:
    index = open_dataset(parts)
    split = make_split(index, fraction=2 / 3)
    for number, sides in enumerate(nested_sides(index, split, 3)):
        assert names(sides.index) == expected(sides.split) < expected(split)
        sides.split.save(tmp_path / f"{number}.json")
        inner = Split.load(tmp_path / f"{number}.json")  # as training reads it, beside the whole dataset
        assert names(apart(index, inner)) == expected(inner)
    # A choice of a few real defects leaves others of the training side out, whose parts are not tested on.
    few = replace(split, train=split.train[:2], excluded=split.train[2:])
    assert names(apart(index, few)) == expected(split)


def test_a_category_without_others_keeps_them_and_it_is_told(parts: Path, tmp_path: Path) -> None:
    index = open_dataset(parts)
    split = make_split(index)
    tested = normals_of_test(index, split)
    (note,) = normals_notes(index, tested)
    first = tested[0]
    assert note == (
        f"8 of 13 normal images show parts that are tested on (train/good/{first.image.name}, of part {first.group}, "
        "the first); nothing is trained on them or made of them"
    )
    assert normals_notes(apart(index, split), tested) == [note]
    alone = replace(index, normals=tested)
    assert apart(alone, split).normals == tested
    (note,) = normals_notes(alone, tested)
    assert note.startswith("8 of 8 normal images show parts that are tested on (")
    assert note.endswith(", and there are no others: scores come out too good; add normal images of other parts")
    (note,) = normals_notes(replace(index, normals=[*index.normals, tested[0]]), tested[:1])
    assert note.startswith("1 of 13 normal images shows a part that is tested on (")
    assert normals_notes(index, []) == []


def test_preparing_tells_it_and_so_do_parts_that_are_joined(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(prepare_data.main, [str(parts), "--out", str(tmp_path / "s.json")]) == 0
    assert "note: 8 of 13 normal images show parts that are tested on (" in capsys.readouterr().out


@pytest.mark.parametrize("use", ["both", "normals"])
def test_training_leaves_them_out(use: str, parts: Path, tmp_path: Path) -> None:
    split = make_split(open_dataset(parts))
    split.save(tmp_path / "s.json")
    data = DefectData(str(parts), split=str(tmp_path / "s.json"), use=use, size=32)
    assert names(data.index) == expected(split)
    assert {s.image.name for s in data.pictures.samples if s.anomaly == "good"} == expected(split)
    assert [line for line in data.describe() if "8 of 13 normal images show parts that are tested on" in line]
    assert names(DefectData(str(parts), split="all", use="both", size=32).index) == names(open_dataset(parts))


def test_a_training_on_defects_alone_tells_nothing_of_normals(parts: Path) -> None:
    assert not [line for line in DefectData(str(parts), use="defects", size=32).describe() if "normal" in line]


def test_adaptation_leaves_them_out(parts: Path) -> None:
    split = make_split(open_dataset(parts))
    data = AdaptationData(str(parts), use="defects", size=32, native=False, normal_share=0.25, drawn_share=0.25)
    assert {s.image.name for s in data.normals} == expected(split)
    assert [line for line in data.describe() if "8 of 13 normal images show parts that are tested on" in line]


def test_rows_are_made_of_the_others(parts: Path) -> None:
    index = open_dataset(parts)
    sides = nested_sides(index, make_split(index, fraction=2 / 3), 4)
    assert len({frozenset(names(s.index)) for s in sides}) > 1
    rows = RowPairs({"drawn": Row("procedural", {"looks": {"crack": ["crack"]}})}, per_type=12)
    for number, own in enumerate(sides):  # what a method that learns nothing made for one split is not another's
        made = rows.made("drawn", own, own.train, None, number)
        sources = {Path(pair.record["normal_source"]).name for pair in made}
        assert sources <= expected(own.split)
        assert len(sources) > 1


class Counting:
    """A judge that keeps the normals it was shown."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def fit(self, samples: object, seed: int = 0) -> None:
        self.seen |= {Path(str(s.image)).name for s in samples if s.mask is None}  # type: ignore[attr-defined]

    def test(self, network: object, samples: object) -> dict[str, object]:
        return {"miou": 0.5, "miou_types": 0.5, "ap": 0.5, "auroc": 0.5, "types": {}}


def test_few_defects_shows_the_others(parts: Path, tmp_path: Path) -> None:
    index, judge = open_dataset(parts), Counting()
    split = make_split(index)
    measure_few(index, split, Few((None,), (0,), {}, 1, normals=0.3), judge, tmp_path / "r.json", lambda _: None)  # type: ignore[arg-type]
    assert judge.seen == expected(split)
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert row["label"] == ALONE


PROTOCOL = {
    "title": "Small", "name": "small", "dataset": "", "pairs": {"per_type": 2, "size": 32},
    "entries": [{"label": "drawn", "method": "procedural"}, {"label": "moved", "method": "transplant"}],
    "segmentation": {"networks": ["quick"], "steps": 1, "normals": 0.3},
}  # fmt: skip


def test_the_bench_uses_the_others(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(parse(PROTOCOL, "p"), parts, tmp_path / "out")
    (category,) = found.categories
    assert names(category.index) == expected(category.split)
    for cell in (cell for cell in found.cells if cell.kind == "pairs"):
        options, _ = parse_synthesis(_flags(cell, category, category.types[0], 0, tmp_path / "o"))
        check_options(options)
        assert (options.defects, options.split) == (str(parts), str(category.split_file))
    argv = ["--dataset", str(parts), "--plan", "--out", str(tmp_path / "out")]
    assert run_cli(bench.main, argv) == 0
    assert f"note: in {parts} 8 of 13 normal images show parts that are tested on (" in capsys.readouterr().out


def test_auto_and_few_tell_it(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_auto.opened(bench.parser().parse_args(["--dataset", str(parts), "--auto", "--out", str(tmp_path / "a")]))
    few_defects.opened(few_defects.parser().parse_args(["--dataset", str(parts), "--out", str(tmp_path / "f")]))
    make_split(open_dataset(parts)).save(tmp_path / "s.json")
    inside = ["--dataset", str(parts), "--split", str(tmp_path / "s.json"), "--nested", "2", "--out", str(tmp_path)]
    index, _ = few_defects.opened(few_defects.parser().parse_args(inside))
    assert len(index.normals) == 5
    assert capsys.readouterr().out.count("8 of 13 normal images show parts that are tested on (") == 3


def sources_of(folder: Path) -> set[str]:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return {Path(json.loads(line)["normal_source"]).name for line in lines}


def test_pairs_are_made_of_the_others(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = make_split(open_dataset(parts))
    split.save(tmp_path / "s.json")
    common = ["--method", "procedural", "--data_root", str(parts), "--anomaly_name", "crack", "--count", "24"]
    for flags, used in (
        ([], names(open_dataset(parts))),
        (["--split", "all"], names(open_dataset(parts))),
        (["--split", "third"], expected(split)),
        (["--split", str(tmp_path / "s.json")], expected(split)),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert run_cli(pairs.main, [*common, *flags, "--sample_name", str(out)]) == 0
        assert sources_of(out) <= used
        assert (len(sources_of(out)) > 5) == (len(used) > 5)
        assert ("8 of 13 normal images" in capsys.readouterr().out) == (len(used) == 5)
    moved = ["--method", "transplant", "--data_root", str(parts / "train/good"), "--defects", str(parts)]
    assert run_cli(pairs.main, [*moved, "--count", "12", "--sample_name", str(tmp_path / "moved")]) == 0
    assert sources_of(tmp_path / "moved") <= expected(split)


def test_a_split_of_no_real_defects_is_refused(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--method", "procedural", "--anomaly_name", "crack", "--sample_name", str(tmp_path / "out")]
    assert run_cli(pairs.main, [*drawn, "--data_root", str(parts / "train/good"), "--split", "third"]) == 2
    assert "--split third is of real defects, and " in capsys.readouterr().err
    assert run_cli(pairs.main, [*drawn, "--data_root", str(parts), "--defects", str(parts)]) == 2
    assert "--defects is for --method transplant" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_segmenter_tells_of_pairs_that_show_tested_parts(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = ["--method", "procedural", "--data_root", str(parts), "--anomaly_name", "crack", "--count", "16"]
    told = []
    for name, flags in (("any", []), ("apart", ["--split", "third"])):
        out = tmp_path / name
        assert run_cli(pairs.main, [*make, *flags, "--sample_name", str(out)]) == 0
        capsys.readouterr()
        argv = ["--train", str(parts), str(out), "--test", str(parts), "--normals", "0.3", "--out", str(tmp_path / "r")]
        data = segment.gather(segment.parser().parse_args(argv))
        assert data.counts["normals"] == 5
        assert data.counts["synthetic"] == 16
        told.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")])
    split = make_split(open_dataset(parts))
    standing = sum(not {p.name for p in pair.sources} <= expected(split) for pair in from_output(tmp_path / "any")[0])
    assert 0 < standing < 16
    assert len([line for line in told[0] if f" {standing} of 16 pairs stand on normal images of parts" in line]) == 1
    assert not [line for line in told[1] if "pairs stand" in line]
    assert [line for line in told[0] if "8 of 13 normal images show parts that are tested on" in line]
