"""The bench from the command line: a grid, its tables, and what goes wrong in one line."""

import json
import multiprocessing
import os
import subprocess
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

import generate_with_mask
from fast.bench import answer, work
from fast.bench.grid import Cell
from fast.bench.protocol import Entry
from fast.bench.verdict import BOTH, REAL
from fast.cli import bench
from fast.data.images import read_image, write_image
from fast.data.layouts import check, open_dataset
from fast.data.split import Split, make_split
from fast.generators import FREE, LATENT
from fast.runtime.command import run_cli
from fast.synthesis.records import read_records
from ldm.checkpoint import save_safetensors
from support.page import Page
from support.paths import ROOT
from support.tiny import SIZE

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
    assert run_cli(bench.main, flags) == 0
    folder = tmp_path / "out/tiny-leather"
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
    assert "| CutPaste |" in table
    assert (
        f"split {json.loads(next((tmp_path / 'out').glob('leather-*/split.json')).read_text())['hash'][:12]}" in table
    )
    assert "| made for | masks | background |" in table
    assert {"table.csv", "table.tex", "protocol.json", "gallery-leather.png"} <= {p.name for p in folder.iterdir()}
    assert list(folder.glob("figure-mini*.svg"))

    calls = len(in_process)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("cell.json")}
    assert run_cli(bench.main, flags) == 0
    assert len(in_process) == calls
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("cell.json")}


def test_a_method_that_fails_leaves_the_rest_and_the_exit_says_so(
    drawn_root: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = PROTOCOL.replace("cutpaste, real: none}", "cutpaste, real: none, options: [method.variant=nonsense]}")
    flags = ["--protocol", protocol(tmp_path, text), "--dataset", str(drawn_root), "--out", str(tmp_path / "out")]
    assert run_cli(bench.main, flags) == 2
    told = capsys.readouterr()
    assert "cells failed" in told.err
    assert "variant" in told.err
    assert [r["label"] for r in json.loads((tmp_path / "out/tiny-leather/results.json").read_text())] == [
        "no synthesis",
        "DRAEM",
    ]


def test_a_plan_does_nothing(
    drawn_root: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--protocol", protocol(tmp_path), "--dataset", str(drawn_root), "--out", str(tmp_path / "out"), "--plan"]
    assert run_cli(bench.main, flags) == 0
    assert "0 of 7 cells are done" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_imagenet_weights_in_place_of_a_start_are_told_once(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PROTOCOL.replace("networks: [mini]", "networks: [mini, stdc, segformer], start: {steps: 1}")
    flags = ["--protocol", protocol(tmp_path, text), "--dataset", str(drawn_root), "--out", str(tmp_path / "out")]
    file = tmp_path / "weights.safetensors"
    save_safetensors({"x": torch.zeros(1)}, file, {})
    given = [f for name in ("stdc", "segformer") for f in ("--imagenet", f"{name}={file}")]
    assert run_cli(bench.main, [*flags, *given, "--plan"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert told == [
        "note: stdc, segformer: --imagenet takes the place of the drawn defects to begin with (segmentation.start)"
    ]
    assert run_cli(bench.main, [*flags, "--plan"]) == 0
    assert "note" not in capsys.readouterr().out


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
    assert run_cli(bench.main, [*(stand_in.get(f, f) for f in flags), "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_the_dataset_itself_is_no_place_to_write_to(drawn_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = sorted(drawn_root.iterdir())
    there = str(drawn_root / ".." / drawn_root.name)
    assert run_cli(bench.main, ["--dataset", str(drawn_root), "--out", there]) == 2
    assert f"--out {there} is the dataset" in capsys.readouterr().err
    assert sorted(drawn_root.iterdir()) == inside


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
    with pytest.raises(UserError, match=r"main\.py ended with 2: .*unrecognized arguments: --nothing"):
        work._run(cell, "main.py", "--nothing")


def test_a_dataset_alone_is_answered_with_a_page(
    drawn_root: Path, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "SHARDS", 1)
    monkeypatch.setattr(answer, "START_STEPS", 1)
    monkeypatch.setattr(work, "SHEETS", 1)  # of a shard
    flags = ["--dataset", str(drawn_root), "--category", "wood", "--out", str(tmp_path / "out"), "--method", "cutpaste"]
    flags += ["--count", "4", "--segmenter", "mini", "--seeds", "2", "--steps", "2", "--size", "64"]
    assert run_cli(bench.main, flags) == 0
    folder = tmp_path / "out/answer-cutpaste-mini-wood"
    found = json.loads((folder / "results.json").read_text())
    assert {r["label"] for r in found} == {"real only", "synthetic only", "real + synthetic", "1", "2"}
    by_label = {r["label"]: r["pairs"] for r in found}
    kinds = len({d.name for d in (tmp_path / "out").glob("wood-*/pairs/*/*") if d.is_dir()})
    assert by_label["real only"]["synthetic"] == by_label["synthetic only"]["real"] == 0
    assert [by_label[label]["synthetic"] for label in ("1", "2", "real + synthetic")] == [kinds, 2 * kinds, 4 * kinds]
    assert len({by_label[label]["normals"] for label in by_label}) == 1  # one provenance
    shown = Page((folder / "report.html").read_text())
    before, after = (
        100 * np.array([r["metrics"]["miou"] for r in found if r["label"] == label]) for label in (REAL, BOTH)
    )
    change = after - before  # of each seed
    assert len(change) == 2
    interval = (
        change.mean() + np.array([-1, 1]) * 12.706 * change.std(ddof=1) / 2**0.5
    )  # Student's t of one degree of freedom
    expected = "No" if interval[1] < 1 else "Yes" if interval[0] > 0 else "Cannot tell"
    assert any(words.endswith(f"wood? {expected}.") for words in shown.words)
    assert {f"{values.mean():.1f} %" for values in (before, after)} <= set(shown.words)
    measured = json.loads(next((tmp_path / "out").glob("wood-*/pictures/*/cell.json")).read_text())["result"]
    assert measured["pairs"] == 4 * kinds
    assert measured["real"]["seam"] > 0


def test_an_answer_of_pictures_at_their_own_size(
    drawn_root: Path, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(answer, "SHARDS", 1)
    monkeypatch.setattr(answer, "START_STEPS", 1)
    monkeypatch.setattr(work, "SHEETS", 1)  # of a shard
    split, root = tmp_path / "wood.json", tmp_path / "set"
    copytree(drawn_root / "wood", root / "wood")
    wide = read_image(sorted((root / "wood/train/good").iterdir())[0])
    write_image(root / "wood/train/good/wide.png", np.concatenate([wide, wide[:, ::-1]], axis=1))
    make_split(check(open_dataset(root)).usable, seed=5).save(split)
    flags = ["--dataset", str(root), "--out", str(tmp_path / "out"), "--split", str(split)]
    flags += [
        "--method",
        "procedural",
        "--count",
        "12",
        "--seeds",
        "1",
        "--native",
        "--upright",
        "--looks",
        "crack=stain",
    ]
    assert run_cli(bench.main, [*flags, "--segmenter", "mini", "--steps", "1", "--size", "32"]) == 0
    cells = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("wood-*/segments/*/cell.json")]
    assert {(c["key"]["size"], c["key"]["native"], c["key"]["augment"]) for c in cells} == {(32, True, "upright")}
    assert {c["key"]["split"] for c in cells} == {Split.load(split).hash}
    (folder,) = (tmp_path / "out").glob("wood-*/pairs/*/crack")
    made = {r["normal_source"].endswith("wide.png"): r["image"] for r in read_records(folder)}
    shapes = {wide: read_image(folder / image).shape for wide, image in made.items()}
    assert shapes == {False: (SIZE, SIZE, 3), True: (SIZE, 2 * SIZE, 3)}  # the pictures' own, not the windows'
    assert json.loads((folder / "settings.json").read_text())["options"]["looks"] == {"crack": ["stain"]}
    shown = Page((tmp_path / "out/answer-procedural-mini-wood/report.html").read_text())
    assert "windows of pictures at their own size" in " ".join(shown.words)
    assert run_cli(bench.main, [*flags, "--segmenter", "quick", "--count", "1"]) == 0
    shown = Page((tmp_path / "out/answer-procedural-quick-wood/report.html").read_text())
    words = " ".join(shown.words)
    assert "windows of pictures" not in words  # it sees them whole
    assert "steps of each training" not in words  # nor has it those
    capsys.readouterr()
    assert run_cli(bench.main, [*flags, "--looks", "crack=none"]) == 2
    assert "--looks crack=none says that crack is not drawn" in capsys.readouterr().err
    assert run_cli(bench.main, [*flags, "--method", "cutpaste"]) == 2
    assert "--looks says how defects are drawn, and cutpaste draws none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--method", "dfmgan", "--native"], "dfmgan makes pairs of a size of its own"),
        (["--minutes", "5"], "--minutes is for --auto"),
        (["--looks", "pit"], "--looks pit is not TYPE=A,B"),
        (["--split", "nowhere.json"], "nowhere.json"),
        (["--seeds", "0"], "--seeds 0 must be above 0"),
        (["--count", "-3"], "--count -3 must be above 0"),
        (["--segmenter", "resnet"], "resnet"),
        (["--method", "gan"], "gan"),
        (["--size", "8"], "size"),
        (["--steps", "-4"], "steps"),
        (["--segmenter", "quick", "--steps", "7"], "--steps is not for --segmenter quick, whose training is fixed"),
        (["--segmenter", "quick", "--native", "--size", "64"], "--size is not for --segmenter quick with --native"),
        (["--segmenter", "quick", "--precision", "fp32", "--method", "transplant"], "nor for transplant's pairs"),
        (["--imagenet", "stdc=F"], "--imagenet stdc=F: segmenters are fpn; leave it out"),
        (["--segmenter", "quick", "--imagenet", "quick=F"], "--imagenet quick=F: quick has an encoder of its own"),
        (["--method", "cutpaste", "--weights", "fast=F"], "--weights fast=F: no entry makes pairs with fast"),
        (["--method", "cutpaste", "--base", "F"], "--base F: none of fast, stage, anomalydiffusion is trained here"),
        (["--method", "cutpaste", "--tokenizer", "F"], "--tokenizer F: none of fast"),
        (["--method", "cutpaste", "--textures", "F"], "--textures F: no entry makes pairs with draem or glass"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_at_once(
    flags: list[str], told: str, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("F").touch()
    assert run_cli(bench.main, ["--dataset", str(drawn_root), "--out", str(tmp_path / "out"), *flags]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_corrected_mask_is_another_dataset(drawn_root: Path, tmp_path: Path) -> None:
    from fast.bench.plan import plan
    from fast.bench.protocol import load_protocol
    from fast.data.images import read_mask, write_mask

    root = copytree(drawn_root, tmp_path / "data")
    tiny = load_protocol(protocol(tmp_path))
    before, again = (plan(tiny, root, tmp_path / "out").cells for _ in range(2))
    assert [c.folder for c in before] == [c.folder for c in again]
    mask = next((root / "leather/ground_truth").rglob("*.png"))
    write_mask(mask, 1 - read_mask(mask))
    after = plan(tiny, root, tmp_path / "out").cells
    assert not {c.digest for c in before} & {c.digest for c in after}


def _prepare(root: Path, out: Path, file: Path) -> None:
    from fast.bench.plan import plan
    from fast.bench.protocol import load_protocol

    work._prepared(plan(load_protocol(file), root, out).categories[0])


def test_two_processes_may_begin_together(drawn_root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    file = Path(protocol(tmp_path))
    crew = [context.Process(target=_prepare, args=(drawn_root, tmp_path / "out", file)) for _ in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0, 0, 0]


def test_an_interrupt_reaches_the_program_and_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n    pathlib.Path('saved').touch()\n    sys.exit(2)\n"
        "signal.signal(signal.SIGINT, stop)\npathlib.Path('ready').touch()\nsignal.pause()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "PROJECT", tmp_path)
    monkeypatch.setitem(work.PROGRAMS, "slow.py", "slow")
    cell = Cell("fit", "x", {}, tmp_path)
    cell.folder.mkdir(parents=True)

    class Impatient(subprocess.Popen):  # type: ignore[type-arg]
        asked = False

        def wait(self, timeout: float | None = None) -> int:
            if not self.asked:
                self.asked = True
                while not Path("ready").exists():
                    os.sched_yield()
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(work.subprocess, "Popen", Impatient)
    with pytest.raises(KeyboardInterrupt):
        work._run(cell, "slow.py")
    assert Path("saved").exists()


PROTOCOLS = sorted((ROOT / "protocols").glob("*.yaml"))


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda p: p.stem)
def test_every_protocol_can_be_planned_and_its_trainings_are_commands_of_main(
    path: Path, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from fast.bench.plan import Given, plan
    from fast.bench.protocol import load_protocol
    from fast.runtime.options import parse_training
    from fast.training.config import merge

    base = tmp_path / "base.ckpt"
    base.write_bytes(b"weights")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(work, "_run", lambda cell, script, *flags: calls.append((script, *flags)))
    monkeypatch.setattr(work, "_artifact", lambda method, place: {})
    protocol = replace(load_protocol(path), categories=("leather",))
    latent = any(entry.method in LATENT for entry in protocol.entries)
    given = Given(base=base, tokenizer=tmp_path) if latent else Given()
    found = plan(protocol, drawn_root, tmp_path / "out", given)
    fits = [cell for cell in found.cells if cell.kind == "fit"]
    for cell in fits:
        work.fit(cell)
    assert len(calls) == len(fits) == len({cell.folder for cell in fits})
    learns = [entry for entry in protocol.entries if entry.method and entry.method not in FREE]
    assert bool(fits) == bool(learns)
    for cell, (script, *argv) in zip(fits, calls, strict=True):
        options = parse_training(argv)
        config = merge(options.base, options.overrides)
        latent = cell.key["method"] in LATENT
        assert script == "main.py"
        assert options.train
        assert config.data.params.layout == "auto"
        assert (options.actual_resume == str(base)) == latent
        if latent:
            assert config.data.params.size == protocol.pairs.size


@pytest.mark.parametrize("kind", ["warm", "segment"])
def test_every_training_draws_what_the_protocol_says(
    kind: str, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `draw: parts` a type with one real defect is seen as often as one with two, from the first step on."""
    from collections import Counter

    from fast.bench.plan import plan
    from fast.bench.protocol import parse
    from fast.bench.trial import NetworkJudge
    from fast.segmentation.data import SegmentationSample

    root = copytree(drawn_root, tmp_path / "data")
    first, *_ = sorted((root / "leather/test").iterdir())
    for image in sorted(first.glob("*.png"))[1:]:
        image.unlink()
        (root / "leather/ground_truth" / first.name / f"{image.stem}_mask.png").unlink()
    seen: list[list[SegmentationSample]] = []

    def fit(self: NetworkJudge, samples: list[SegmentationSample], seed: int) -> None:
        seen.append(samples)
        raise KeyboardInterrupt

    monkeypatch.setattr(NetworkJudge, "fit", fit)
    content = {
        "name": "t", "title": "t", "categories": ["leather"],
        "split": {"fraction": 0.6}, "entries": [{"label": "real"}],
        "segmentation": {"networks": ["mini"], "draw": "parts", "start": {"shards": 1, "real_steps": 1}},
    }  # fmt: skip
    for draw, even in (("parts", True), ("images", False)):
        content["segmentation"]["draw"] = draw  # type: ignore[index]
        found = plan(parse(content, "t"), root, tmp_path / draw)
        cell = next(c for c in found.cells if c.kind == kind)
        with pytest.raises(KeyboardInterrupt):
            getattr(work, kind)(cell)
        numbers = Counter(sample.kind for sample in seen[-1])
        weights = [sum(s.weight for s in seen[-1] if s.kind == name) for name in numbers]
        assert len(set(numbers.values())) > 1
        assert (max(weights) - min(weights) < 1e-6) == even


def test_a_protocol_says_what_types_are_drawn_as(capsys: pytest.CaptureFixture[str]) -> None:
    said = Entry("b", "procedural", options=("method.looks.scratch_head=[dent]",))
    bench.tell_drawn([Entry("real"), Entry("a", "transplant"), said], ["nut/scratch_head"])
    assert capsys.readouterr().out == ""
    drawn = [Entry("real"), Entry("a", "procedural"), Entry("c", "procedural")]
    bench.tell_drawn(drawn, ["nut/scratch_head", "nut/pit"])
    change = "method.looks.scratch_head=[scratch] in an entry's options"
    assert capsys.readouterr().out == (
        f"note: scratch_head is drawn as scratch; if it looks otherwise, say how: {change}\n"
    )
