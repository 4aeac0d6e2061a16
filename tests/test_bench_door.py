"""The bench from the command line: a grid, its tables, and what goes wrong in one line."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import bench

import generate_with_mask
from fast.bench import work
from fast.bench.grid import Cell
from fast.door import open_door
from fast.output import read_records

PROTOCOL = """
name: tiny
title: Tiny
paper: [fast_table1_mvtec_segformer]
categories: [leather]
metrics: [mIoU, Acc, PRO]
pairs: {per_type: 2, size: 64}
segmentation: {networks: [mini], seeds: [0], steps: 2, batch_size: 2, size: 64, test_normals: true}
entries:
  - {label: no synthesis}
  - {label: CutPaste, method: cutpaste, real: none}
  - {label: DRAEM, method: draem, real: none}
"""


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs the programs of a cell in this process, and lists them."""
    calls: list[str] = []

    def run(cell: Cell, script: str, *flags: str) -> None:
        calls.append(script)
        assert script == "generate_with_mask.py"
        generate_with_mask.main(list(flags))

    monkeypatch.setattr(work, "_run", run)
    return calls


def protocol(folder: Path, text: str = PROTOCOL) -> str:
    file = folder / "tiny.yaml"
    file.write_text(text)
    return str(file)


def test_a_grid_from_a_dataset_to_its_tables(drawn_root: Path, tmp_path: Path, in_process: list[str]) -> None:
    flags = ["--protocol", protocol(tmp_path), "--dataset", str(drawn_root), "--out", str(tmp_path / "out")]
    assert open_door(bench.main, flags) == 0
    folder = tmp_path / "out/tiny"
    results = json.loads((folder / "results.json").read_text())
    assert {(r["label"], r["backbone"], r["seed"]) for r in results} == {
        ("no synthesis", "mini", 0),
        ("CutPaste", "mini", 0),
        ("DRAEM", "mini", 0),
    }
    by_label = {r["label"]: r for r in results}
    assert by_label["no synthesis"]["pairs"]["synthetic"] == 0
    one, two = ([r for file in sorted(tmp_path.glob(f"out/*/pairs/{m}-*/*/manifest.jsonl"))
                 for r in read_records(file.parent)] for m in ("cutpaste", "draem"))  # fmt: skip
    assert by_label["CutPaste"]["pairs"] == {"synthetic": len(one), "real": 0, "normals": 0}
    assert [(r["normal_source"], r["mask_source"]) for r in one] == [
        (r["normal_source"], r["mask_source"]) for r in two
    ]
    table = (folder / "table.md").read_text()
    assert "CutPaste" in table
    assert "split" in table
    assert {"table.csv", "table.tex", "protocol.json", "gallery-leather.png"} <= {p.name for p in folder.iterdir()}
    assert list(folder.glob("figure-mini*.svg"))

    calls = len(in_process)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("cell.json")}
    assert open_door(bench.main, flags) == 0
    assert len(in_process) == calls
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("cell.json")}


def test_a_method_that_fails_leaves_the_rest_and_the_exit_says_so(
    drawn_root: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = PROTOCOL.replace("cutpaste, real: none}", "cutpaste, real: none, options: [method.variant=nonsense]}")
    flags = ["--protocol", protocol(tmp_path, text), "--dataset", str(drawn_root), "--out", str(tmp_path / "out")]
    assert open_door(bench.main, flags) == 2
    told = capsys.readouterr()
    assert "cells failed" in told.err
    assert "variant" in told.err
    assert [r["label"] for r in json.loads((tmp_path / "out/tiny/results.json").read_text())] == [
        "no synthesis",
        "DRAEM",
    ]


def test_a_plan_does_nothing(
    drawn_root: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--protocol", protocol(tmp_path), "--dataset", str(drawn_root), "--out", str(tmp_path / "out"), "--plan"]
    assert open_door(bench.main, flags) == 0
    assert "0 of 7 cells are done" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "give --dataset FOLDER, --protocol FILE, or both"),
        (["--protocol", "P", "--count", "3"], "--count is for a run without --protocol"),
        (["--dataset", "D", "pairs.per_type=3"], "overrides a protocol"),
        (["--protocol", "P", "--colour"], "--colour is not understood"),
        (["--protocol", "P"], "names no dataset"),
        (["--protocol", "P", "--dataset", "nowhere"], "no such folder"),
        (["--protocol", "P", "--dataset", "D", "--weights", "cutpaste=x"], "use one of"),
        (["--protocol", "P", "--dataset", "D", "--weights", "fast=nowhere"], "nowhere does not exist"),
        (["--protocol", "P", "--dataset", "D", "--textures", "nowhere"], "nowhere does not exist"),
        (["--protocol", "P", "--dataset", "D", "--tables"], "nothing of tiny is finished"),
    ],
)
def test_bad_flags_end_in_one_line(
    flags: list[str], told: str, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = {"P": protocol(tmp_path), "D": str(drawn_root)}
    assert open_door(bench.main, [*(stand_in.get(f, f) for f in flags), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_weights_of_another_split_are_refused(tmp_path: Path, drawn_root: Path) -> None:
    import torch

    from fast.bench.plan import Given, plan
    from fast.bench.protocol import parse
    from fast.bench.work import work as do
    from ldm.checkpoint import save_safetensors
    from ldm.errors import UserError

    file = tmp_path / "fast-7.safetensors"
    save_safetensors({"x": torch.zeros(1)}, file, {"split": "0" * 64, "step": "7", "config": "{}"})
    content = {"name": "t", "title": "t", "categories": ["leather"], "entries": [{"label": "FAST", "method": "fast"}]}
    found = plan(parse(content, "t"), drawn_root, tmp_path / "out", Given(weights={"fast": tmp_path}))
    cell = next(c for c in found.cells if c.kind == "given")
    with pytest.raises(UserError, match="it may have seen what is tested on"):
        do(cell)
    whole = found.categories[0].split.hash
    save_safetensors({"x": torch.zeros(1)}, file, {"split": whole, "step": "7", "config": "{}"})
    assert do(cell)["steps"] == 7


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    from ldm.errors import UserError

    cell = Cell("pairs", "x", {}, tmp_path)
    cell.folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"main\.py ended with 2: .*nothing\.yaml does not exist"):
        work._run(cell, "main.py", "--base", "nothing.yaml", "-t")
