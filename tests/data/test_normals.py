"""Normal images of parts that are tested on are neither trained on nor made into pairs, and what becomes of them is
told."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fast.bench.few import ALONE, Few, Shares, save_few
from fast.bench.few import measure as measure_few
from fast.bench.nested import nested_sides, sides_of, training_side
from fast.bench.plan import plan
from fast.bench.protocol import parse
from fast.bench.provenance import made_besides, seen_besides
from fast.bench.rows import Row, RowPairs
from fast.bench.work import _flags
from fast.cli import bench, bench_auto, few_defects, pairs, prepare_data, segment, segment_data, studio
from fast.cli.synthesis_job import _normals
from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.data.images import read_mask, write_image, write_mask
from fast.data.index import DatasetIndex
from fast.data.layouts import open_dataset
from fast.data.module import DefectData
from fast.data.normals import apart, normals_notes, normals_of_test
from fast.data.split import Split, make_split, nested_splits
from fast.generators.adaptation import AdaptationData
from fast.generators.latent import FASTGenerator
from fast.generators.procedural import Procedural
from fast.runtime.command import run_cli
from fast.segmentation.data import from_output
from fast.studio import app, workbench
from fast.studio.workbench import Workbench
from fast.synthesis.normals import HeldOut, ask_split
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.sources import MaskSource, find_masks, find_normals
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError

PARTS = 6  # each with two defects and two normals; a normal that no list names comes beside them


def dataset(root: Path, listed: bool = True, seed: int = 0) -> Path:
    """A category of six parts at 32 px, whose normals `groups.csv` lists, or does not."""
    rng, rows = np.random.default_rng(seed), []
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
        f"8 of 13 normal images show parts that are tested on (train/good/{first.image.name} the first): left out"
    )
    alone = replace(index, normals=tested)
    assert apart(alone, split).normals == tested
    (note,) = normals_notes(alone, tested)
    assert note.startswith("8 of 8 normal images show parts that are tested on (")
    assert note.endswith(", and there are no others: scores come out too good; add normal images of other parts")
    (note,) = normals_notes(index, tested[:1])
    assert note.startswith("1 of 13 normal images shows a part that is tested on (")
    assert normals_notes(index, []) == []


def test_preparing_tells_it_also_of_parts_that_are_joined(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(prepare_data.main, [str(parts), "--out", str(tmp_path / "s.json")]) == 0
    assert "note: 8 of 13 normal images show parts that are tested on (" in capsys.readouterr().out
    split = Split.load(tmp_path / "s.json")
    tested, trained = (next(Path(n).stem[0] for n in side) for side in (split.test, split.train))
    for i in range(2):  # one part under two names: its pictures are the same
        for folder in ("test/crack", "train/good"):
            shutil.copy(parts / folder / f"{trained}-{i}.png", parts / folder / f"{tested}-{i}.png")
    assert run_cli(prepare_data.main, [str(parts), "--join_alike", "--out", str(tmp_path / "j.json")]) == 0
    said = capsys.readouterr().out
    index = open_dataset(parts)  # as it is read from then on
    left_out = normals_of_test(index, Split.load(tmp_path / "j.json"))
    assert f"note: {len(left_out)} of 13 normal images show parts" in said


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
        return {"miou": 0.5, "miou_types": 0.5, "ap": 0.5, "auroc": 0.5, "types": {}, "parts": []}


def test_few_defects_shows_the_others(parts: Path, tmp_path: Path) -> None:
    index, judge = open_dataset(parts), Counting()
    split = make_split(index)
    few = Few((None,), (0,), {}, 1, shares=Shares(0.3))
    measure_few(index, split, few, judge, tmp_path / "r.json", lambda _: None)  # type: ignore[arg-type]
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
        assert (sources_of(out) <= expected(split)) == (used == expected(split))
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
        argv = ["--train", str(parts), str(out), "--test", str(parts), "--out", str(tmp_path / "r")]
        segment_data.gather(segment.parser().parse_args(argv))
        assert "8 of 13" not in capsys.readouterr().out  # none is shown
        argv += ["--normals", "0.3"]
        data = segment_data.gather(segment.parser().parse_args(argv))
        assert data.counts["normals"] == 5
        assert data.counts["synthetic"] == 16
        told.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")])
    split = make_split(open_dataset(parts))
    standing = sum(not {p.name for p in pair.sources} <= expected(split) for pair in from_output(tmp_path / "any")[0])
    assert 0 < standing < 16
    assert len([line for line in told[0] if f" {standing} of 16 pairs stand on normal images of parts" in line]) == 1
    assert not [line for line in told[1] if "pairs stand" in line]
    assert [line for line in told[0] if "8 of 13 normal images show parts that are tested on" in line]


def test_copies_of_defects_among_other_normals_are_not_filled(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normals = tmp_path / "normal"
    normals.mkdir()
    for file in (parts / "train/good/0-0.png", parts / "test/crack/1-0.png"):
        shutil.copy(file, normals)
    for number, split in enumerate(("third", "all")):
        out = tmp_path / str(number)
        argv = ["--method", "procedural", "--data_root", str(normals), "--defects", str(parts), "--split", split]
        assert run_cli(pairs.main, [*argv, "--anomaly_name", "pit", "--sample_name", str(out), "--count", "3"]) == 0
        told = "note: in " + str(parts) + " 1 of 2 normal images is a copy of a defect's image (1-0.png of 1-0.png"
        assert told in capsys.readouterr().out
        assert sources_of(out) == {"0-0.png"}


def test_no_mask_of_any_test_side_is_given(parts: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted((parts / "ground_truth/crack").iterdir())):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:14, 2 : 6 + number] = 1
        write_mask(file, mask)
    index = open_dataset(parts)
    outer = make_split(index, fraction=2 / 3)
    nested_splits(index, outer, 1)[0].save(tmp_path / "inner.json")
    inner = Split.load(tmp_path / "inner.json")

    def kept(split: str) -> set[str]:
        masks = find_masks(str(parts / "ground_truth"))[0]
        found, notes = HeldOut(str(parts), split).masks(masks, "masks")
        assert len(notes) == 1
        return {m.path.parent.name if m.path.name.startswith("part") else m.path.stem[:3] for m in found}

    assert kept(str(tmp_path / "inner.json")) == {Path(name).stem for name in inner.train}
    for sample in index.defects:  # a mask in two parts, in a folder of its own
        assert sample.mask is not None
        whole = read_mask(sample.mask)
        sample.mask.unlink()
        for part, rows in enumerate((slice(0, 11), slice(11, 32))):
            half = np.zeros_like(whole)
            half[rows] = whole[rows]
            write_mask(sample.mask.parent / sample.image.stem / f"part{part}.png", half)
    masks = [MaskSource(p, "crack") for p in sorted((parts / "ground_truth/crack").rglob("*.png"))]
    found, _ = HeldOut(str(parts), str(tmp_path / "inner.json")).masks(masks, "masks")
    assert {m.path.parent.name for m in found} == {Path(name).stem for name in inner.train}


def test_normals_that_are_all_copies_of_defects_are_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normals = shutil.copytree(parts / "test/crack", tmp_path / "normal")
    argv = ["--method", "procedural", "--data_root", str(normals), "--defects", str(parts), "--split", "all"]
    assert run_cli(pairs.main, [*argv, "--anomaly_name", "pit", "--sample_name", str(tmp_path / "out")]) == 2
    assert "every normal image is a copy of a defect's image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_segment_would_read_twice_or_replace_is_refused(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tmp_path / "s.json"
    make_split(open_dataset(parts)).save(split)
    content = split.read_bytes()
    same = shutil.copytree(parts, tmp_path / "copy")
    for name in Split.load(split).train:  # what is tested on alone is left
        (same / name).unlink()
        (same / "ground_truth/crack" / f"{Path(name).stem}_mask.png").unlink()
    data = ["--train", str(parts), "--test", str(parts)]
    for argv, said in (
        ([*data, "--out", str(parts / "train/good/0-0.png")], "which ends in .json"),
        ([*data, "--out", str(parts / "train/good/x.json")], f"lies in {parts}, which is read"),
        ([*data, "--split", str(split), "--out", str(split)], f"would replace {split}, which is read"),
        ([*data, "--weights", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "w.json")], "which is read"),
        (["--train", str(parts), str(parts / "../parts"), *data[2:]], "twice, and what is in it would count double"),
        (["--train", str(parts), "--test", str(parts / "test/crack")], "are of one dataset"),
        (["--train", str(same), *data[2:]], "real defects are copies of what is tested on"),
    ):
        out = [] if "--out" in argv else ["--out", str(tmp_path / "m.json")]
        assert run_cli(segment.main, [*argv, *out, "--segmenter", "mini", "--steps", "1", "--size", "32"]) == 2, argv
        error = capsys.readouterr().err
        assert said in error, error
        assert error.count("\n") == 1
    assert split.read_bytes() == content
    assert not (tmp_path / "m.json").exists()


def test_masks_of_tested_defects_are_not_filled(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, file in enumerate(sorted((parts / "ground_truth/crack").iterdir())):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:14, 2 : 6 + number] = 1  # each a shape of its own
        write_mask(file, mask)
    split = make_split(open_dataset(parts))
    split.save(tmp_path / "s.json")
    argv = ["--method", "procedural", "--data_root", str(parts), "--mask_path", str(parts / "ground_truth")]
    argv += ["--anomaly_name", "crack", "--split", str(tmp_path / "s.json"), "--sample_name", str(tmp_path / "out")]
    assert run_cli(pairs.main, [*argv, "--count", "6"]) == 0
    assert "note: 8 of 12 masks in" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert {Path(row["mask_source"]).stem.removesuffix("_mask") for row in rows} == {
        Path(name).stem for name in split.train
    }
    tested = tmp_path / "masks"
    write_mask(tested / "a.png", read_mask(parts / "ground_truth/crack" / f"{Path(split.test[0]).stem}_mask.png"))
    argv[argv.index("--mask_path") + 1] = str(tested)
    assert run_cli(pairs.main, [*argv[:-1], str(tmp_path / "none")]) == 2
    assert "every mask in it is of a defect that --split" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_studio_tells_of_normals_that_it_leaves_out(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "served", lambda *_: nullcontext("http://here"))
    monkeypatch.setattr(studio, "wait", lambda: None)
    split = make_split(open_dataset(parts))
    split.save(tmp_path / "s.json")
    left = 13 - len(expected(split))
    argv = ["--data_root", str(parts), "--split", str(tmp_path / "s.json"), "--kept", str(tmp_path / "kept")]
    assert run_cli(studio.main, argv) == 0
    told, address = capsys.readouterr().out.splitlines()
    assert told.startswith(f"note: {left} of 13 normal images show parts that are tested on")
    assert address.startswith("FAST studio: http://here")


def two(root: Path) -> Path:
    """Two categories of those parts in one folder."""
    dataset(root / "a")
    dataset(root / "b", seed=1)
    return root


def test_a_category_of_its_own_without_others_keeps_them(tmp_path: Path) -> None:
    index = open_dataset(two(tmp_path / "both"))
    split = make_split(index)
    tested = normals_of_test(index, split)
    alone = replace(index, normals=[s for s in index.normals if s.category == "a" or s in tested])
    kept = [s for s in apart(alone, split).normals if s.category == "b"]
    assert kept == [s for s in tested if s.category == "b"] != []
    assert {s.image.name for s in apart(alone, split).normals if s.category == "a"} == {
        s.image.name for s in index.normals if s.category == "a" and s not in tested
    }
    assert len(normals_notes(alone, tested)) == 2


def test_the_bench_makes_pairs_of_each_category_of_many(tmp_path: Path) -> None:
    found = plan(parse(PROTOCOL, "p"), two(tmp_path / "both"), tmp_path / "out")
    for number, cell in enumerate(cell for cell in found.cells if cell.kind == "pairs"):
        category = cell.use["of"]
        category.split.save(category.split_file)
        out = tmp_path / f"pairs{number}"
        assert run_cli(pairs.main, _flags(cell, category, category.types[0], 0, out)) == 0
        assert sources_of(out) <= expected(category.split)
    assert number == 3


def several(parts: Path) -> None:
    """Turn the defects of three parts into another type."""
    for folder, mask in (("test", ""), ("ground_truth", "_mask")):
        (parts / folder / "hole").mkdir()
        for part in range(3):
            for i in range(2):
                name = f"{part}-{i}{mask}.png"
                (parts / folder / "crack" / name).rename(parts / folder / "hole" / name)
    text = (parts / "groups.csv").read_text()
    for part in range(3):
        text = text.replace(f"test/crack/{part}-", f"test/hole/{part}-")
    (parts / "groups.csv").write_text(text)


def test_parts_may_have_defects_of_several_types(parts: Path, tmp_path: Path) -> None:
    several(parts)
    split = make_split(open_dataset(parts))
    split.save(tmp_path / "s.json")
    narrow = DefectData(str(parts), anomaly="crack", split=str(tmp_path / "s.json"), use="both", size=32)
    assert names(narrow.index) == expected(split)
    argv = ["--method", "procedural", "--anomaly_name", "crack", "--count", "24", "--sample_name", str(tmp_path / "o")]
    argv += ["--data_root", str(parts / "train/good"), "--defects", str(parts / "test/crack")]
    assert run_cli(pairs.main, [*argv, "--split", str(tmp_path / "s.json")]) == 0
    assert sources_of(tmp_path / "o") <= expected(split)


def test_copies_of_normals_are_known(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "train/good", tmp_path / "copies")
    argv = ["--method", "procedural", "--anomaly_name", "crack", "--count", "24", "--sample_name", str(tmp_path / "o")]
    argv += ["--data_root", str(tmp_path / "copies"), "--defects", str(parts), "--split", "third"]
    assert run_cli(pairs.main, argv) == 0
    assert sources_of(tmp_path / "o") <= expected(make_split(open_dataset(parts)))


def test_a_split_is_read_also_where_no_normal_shares_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = dataset(tmp_path / "parts", listed=False)
    Split(["x/0.png"], ["x/1.png"], 0, 1 / 3).save(tmp_path / "foreign.json")
    argv = ["--method", "procedural", "--anomaly_name", "crack", "--count", "1", "--sample_name", str(tmp_path / "o")]
    for file, says in (("nosuch.json", "no file"), ("foreign.json", "the split does not know 12 of 12 defects")):
        assert run_cli(pairs.main, [*argv, "--data_root", str(parts), "--split", str(tmp_path / file)]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_method_without_normal_images_takes_no_split(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Procedural, "takes_image", False)
    argv = [
        "--method",
        "procedural",
        "--data_root",
        str(parts),
        "--split",
        "third",
        "--sample_name",
        str(tmp_path / "o"),
    ]
    assert run_cli(pairs.main, argv) == 2
    assert "--split third is not for procedural, which takes no normal image" in capsys.readouterr().err


def test_a_training_of_normals_alone_leaves_out_those_that_the_third_tests_on(parts: Path) -> None:
    split = make_split(open_dataset(parts))
    data = DefectData(str(parts), use="normals", size=32)
    assert names(data.index) == expected(split)
    assert data.split_hash == split.hash
    assert DefectData(str(parts), use="normals", split="all", size=32).split_hash == "all"


def test_weights_of_normals_alone_are_refused_where_they_saw_those_of_tested_parts(parts: Path, tmp_path: Path) -> None:
    split = make_split(open_dataset(parts))
    config = json.dumps({"data": {"params": {"use": "normals"}}})
    for recorded in (split.hash, "all"):
        save_safetensors(
            {"x": torch.zeros(1)}, tmp_path / f"{recorded[:3]}.safetensors", {"split": recorded, "config": config}
        )
    own, every = tmp_path / f"{split.hash[:3]}.safetensors", tmp_path / "all.safetensors"
    assert seen_besides(own, FASTGenerator, split.hash, parted=True) == ""
    assert seen_besides(every, FASTGenerator, split.hash, parted=False) == ""
    assert seen_besides(every, FASTGenerator, split.hash, parted=True) == "normal images of all parts"


def test_weights_of_a_split_ask_which_normals_may_be_used(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(place: Path) -> None:
        ask_split(tmp_path / "fast-1.safetensors", str(place), find_normals(str(place)))

    with pytest.raises(UserError, match=f"say with --defects {parts} and --split FILE, third or all which"):
        asked(parts)
    (tmp_path / "link").symlink_to(parts / "train/good")
    for place in (parts / "train/good", tmp_path / "link"):
        with pytest.raises(UserError, match=f"say with --defects {parts} and --split FILE, third or all which"):
            asked(place)
    asked(dataset(tmp_path / "unlisted", listed=False))
    shutil.copytree(parts / "train/good", tmp_path / "loose/good")
    (tmp_path / "loose/groups.csv").write_text("of,another,kind\n")
    asked(tmp_path / "loose/good")
    # The command asks for weights that record a split, and the studio does.
    options = SynthesisOptions(method="realnet", data_root=str(parts), sample_name="out")
    for split, asks in (("0" * 64, True), ("all", False)):
        weights = tmp_path / "fast-1.safetensors"
        save_safetensors({"x": torch.zeros(1)}, weights, {"split": split})
        with pytest.raises(UserError, match="say with") if asks else nullcontext():
            assert len(_normals(options, weights, None, say=False)) == 13
    artifacts = {"fast": SimpleNamespace(path=weights)}
    monkeypatch.setattr(workbench, "_artifacts", lambda _: artifacts)
    for split, asks in (("0" * 64, True), ("all", False)):
        save_safetensors({"x": torch.zeros(1)}, weights, {"split": split})
        with pytest.raises(UserError, match="say with") if asks else nullcontext():
            assert len(Workbench(str(parts / "train/good")).normals) == 13


def test_finished_pairs_of_tested_parts_are_left_out_of_a_row(parts: Path, tmp_path: Path) -> None:
    argv = ["--method", "procedural", "--data_root", str(parts), "--anomaly_name", "crack", "--count", "16"]
    assert run_cli(pairs.main, [*argv, "--sample_name", str(tmp_path / "made")]) == 0
    index = open_dataset(parts)
    sides = sides_of(index, make_split(index))
    kept = RowPairs({"made": Row(folder=str(tmp_path / "made"))}, 16).of("made", sides, sides.train, None, 0)
    assert 0 < len(kept) < 16
    assert {path.name for pair in kept for path in pair.sources} <= expected(sides.split)


def test_a_few_defects_of_a_split_inside_keep_their_own_parts(parts: Path, tmp_path: Path) -> None:
    index = open_dataset(parts)
    (file,) = save_few(index, make_split(index, fraction=2 / 3), [1], [0], tmp_path, nested=True)
    few = Split.load(file)
    assert few.nested_in
    assert names(apart(index, few)) == expected(few)  # others of the training side are no longer known as such
    (own,) = (Path(name).stem for name in few.train)
    assert len([name for name in names(apart(index, few)) if name.startswith(own[0])]) == 2


def test_rows_of_other_normals_are_not_gone_on_with(parts: Path, tmp_path: Path) -> None:
    index, few = open_dataset(parts), Few((None,), (0, 1), {}, 1, nested=True, shares=Shares(0.3))
    split = make_split(index, fraction=2 / 3)

    def run(index: DatasetIndex) -> None:
        measure_few(index, split, few, Counting(), tmp_path / "r.json", lambda _: None)  # type: ignore[arg-type]

    run(index)
    run(index)
    text = (parts / "groups.csv").read_text().splitlines()
    (parts / "groups.csv").write_text("\n".join(line for line in text if "good" not in line) + "\n")
    with pytest.raises(UserError, match="other pictures, masks or parts than are there now"):
        run(open_dataset(parts))


def test_normals_that_share_a_part_with_those_to_test_on(parts: Path) -> None:
    write_image(parts / "test/good/held.png", np.full((32, 32, 3), 99, np.uint8))
    with open(parts / "groups.csv", "a") as file:
        file.write("test/good/held.png,partH\ntrain/good/unlisted.png,partH\n")
    index = open_dataset(parts)
    assert names(apart(index, make_split(index))) == expected(make_split(index)) - {"unlisted.png"}


def test_the_studio_shows_the_others(parts: Path, tmp_path: Path) -> None:
    bench = Workbench(str(parts))
    assert {n.path.name for n in bench.normals} == expected(make_split(open_dataset(parts)))
    assert bench.notes[0].startswith("8 of 13 normal images show parts that are tested on (")
    assert len(Workbench(str(parts), split="all").normals) == 13


def test_splits_inside_forbid_the_normals_of_either_test_side(parts: Path, tmp_path: Path) -> None:
    split = make_split(open_dataset(parts), fraction=2 / 3)
    split.save(tmp_path / "s.json")
    argv = ["--dataset", str(parts), "--split", str(tmp_path / "s.json"), "--nested", "2", "--out", str(tmp_path)]
    index, _ = few_defects.opened(few_defects.parser().parse_args(argv))
    for own in nested_sides(index, split, 2):
        forbidden = {path.name for path in own.forbidden.files if "good" in path.parts}
        assert forbidden == names(open_dataset(parts)) - expected(own.split)


def test_auto_leaves_out_normals_of_parts_with_normals_to_test_on(parts: Path, tmp_path: Path) -> None:
    write_image(parts / "test/good/held.png", np.full((32, 32, 3), 99, np.uint8))
    with open(parts / "groups.csv", "a") as file:
        file.write("test/good/held.png,partH\ntrain/good/unlisted.png,partH\n")
    argv = ["--dataset", str(parts), "--auto", "--out", str(tmp_path / "a")]
    index, split = bench_auto.opened(bench.parser().parse_args(argv))
    assert names(sides_of(index, split).index) == expected(split) - {"unlisted.png"}


def test_a_training_of_normals_alone_refuses_a_split_of_another_root(tmp_path: Path) -> None:
    root = two(tmp_path / "both")
    make_split(open_dataset(root)).save(tmp_path / "s.json")
    with pytest.raises(UserError, match="the split does not know 12 of 12 defects"):
        DefectData(str(root / "a"), use="normals", split=str(tmp_path / "s.json"), size=32)


def test_a_training_of_normals_alone_needs_no_defects(tmp_path: Path) -> None:
    for name in ("train/good/0.png", "train/good/1.png", "test/good/2.png"):
        write_image(tmp_path / "p" / name, np.full((32, 32, 3), 99, np.uint8))
    (tmp_path / "p/groups.csv").write_text("image,group\ntrain/good/0.png,a\ntest/good/2.png,a\n")
    assert names(DefectData(str(tmp_path / "p"), use="normals", size=32).index) == {"1.png"}


def test_notes_of_a_category_count_its_own(tmp_path: Path) -> None:
    root = two(tmp_path / "both")
    make_split(open_dataset(root)).save(tmp_path / "s.json")
    data = DefectData(str(root), category="a", use="both", split=str(tmp_path / "s.json"), size=32)
    assert data.notes[0].startswith("8 of 13 normal images show parts")


def test_moved_defects_of_a_type_and_normals_go_by_one_third(parts: Path, tmp_path: Path) -> None:
    several(parts)
    split = make_split(open_dataset(parts / "test/crack"))
    argv = ["--method", "transplant", "--data_root", str(parts), "--defects", str(parts / "test/crack")]
    assert run_cli(pairs.main, [*argv, "--count", "24", "--sample_name", str(tmp_path / "o")]) == 0
    tested = {Path(name).stem[0] for name in split.test}
    assert not {name for name in sources_of(tmp_path / "o") if name[0] in tested}


def test_finished_pairs_of_weights_that_saw_all_normals_are_refused(parts: Path, tmp_path: Path) -> None:
    make = ["--method", "procedural", "--data_root", str(parts), "--anomaly_name", "crack", "--count", "2"]
    assert run_cli(pairs.main, [*make, "--split", "third", "--sample_name", str(tmp_path / "o")]) == 0
    settings = json.loads((tmp_path / "o/settings.json").read_text())
    settings |= {"method": "realnet", "training": {"use": "normals", "split": "all"}}
    (tmp_path / "o/settings.json").write_text(json.dumps(settings))
    split = make_split(open_dataset(parts)).hash
    assert made_besides(tmp_path / "o", split, parted=True) == "normal images of all parts"
    assert made_besides(tmp_path / "o", split, parted=False) == ""
