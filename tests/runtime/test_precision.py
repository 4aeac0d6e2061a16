"""bfloat16 where the machine has instructions for it, float32 elsewhere; and lines that say how far long work is."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fast.runtime.precision
import fast.runtime.progress
from fast.bench.answer import protocol_of
from fast.bench.plan import Given, plan, with_precision
from fast.bench.protocol import load_protocol, parse
from fast.cli.synthesis_options import parse_synthesis
from fast.runtime.precision import _cpu_flags, has_bf16, settled, slowdown
from fast.runtime.progress import Progress, followed, in_words
from fast.segmentation.networks import precision_of
from fast.training.config import load_recipe
from fast.training.logs import TrainingProgress
from fast.training.trainer import computes_in_bf16, settle_precision
from ldm.errors import UserError
from support.paths import ROOT
from support.training import door, recipe


@pytest.fixture(params=[True, False], ids=["bf16", "plain"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine with instructions for bfloat16, and one without."""
    able = bool(request.param)
    for module in ("fast.runtime.precision", "fast.training.trainer"):
        monkeypatch.setattr(f"{module}.has_bf16", lambda device="cpu": able)
    monkeypatch.setattr("fast.runtime.precision.slowdown", lambda device="cpu": 128.4)
    return able


def test_auto_follows_the_machine(machine: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert settled("auto") == ("bf16" if machine else "fp32")
    assert settled("fp32") == "fp32"
    assert settled("int8") == "int8"
    assert capsys.readouterr().err == ""


def test_who_forces_it_is_warned_in_one_line(
    machine: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settled("bf16") == "bf16"
    said = capsys.readouterr().err
    if machine:
        assert said == ""
    else:
        assert said.startswith("warning: --precision bf16: this processor (")
        assert "takes 128 times as long as float32 here" in said
        assert said.count("\n") == 1
    monkeypatch.setenv("RANK", "1")
    settled("bf16")
    assert capsys.readouterr().err == ""  # one process tells it


@pytest.mark.parametrize("given", [{}, {"precision": "auto"}])
def test_a_training_keeps_what_was_decided(machine: bool, given: dict[str, Any]) -> None:
    settings = dict(given)
    assert computes_in_bf16(settings) is machine
    settle_precision(settings, "cpu")
    assert settings == {"precision": "bf16-mixed" if machine else "32"}
    assert computes_in_bf16(settings) is machine


def test_a_run_s_config_names_its_precision(machine: bool, tmp_path: Path, drawn_root: Path, tiny_base: Path,
                                            tiny_fast_config: dict[str, Any]) -> None:  # fmt: skip
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    argv = ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "-n", "run", "--precision", "auto"]
    assert door(*argv) == 0
    kept = load_recipe(tmp_path / "run/config.yaml").lightning.trainer.precision
    assert str(kept) == ("bf16-mixed" if machine else "32")


def test_every_door_asks_the_machine_by_default() -> None:
    assert parse_synthesis(["--sample_name", "x"])[0].precision == "auto"
    for file in [*ROOT.glob("configs/**/*.yaml")]:
        trainer = load_recipe(file).get("lightning", {}).get("trainer", {})
        expected = ("32",) if "dfmgan" in file.name else ("auto",)
        assert str(trainer.get("precision", expected[0])) in expected, file
    for command in ("fast/cli/segment", "fast/cli/bench", "benchmarks/evaluate_base"):
        text = (ROOT / f"{command}.py").read_text()
        assert '"--precision", choices=("auto", "fp32", "bf16")' in text


def test_a_grid_s_pairs_name_their_precision(machine: bool) -> None:
    protocol = with_precision(load_protocol(ROOT / "protocols/mini_table1.yaml"), "cpu")
    assert protocol.pairs.precision == ("bf16" if machine else "fp32")


@pytest.mark.parametrize(("network", "on_cpu"), [("fpn", "fp32"), ("mini", "bf16")])
def test_segmenters_of_a_grid_train_as_those_of_segment(
    network: str, on_cpu: str, machine: bool, monkeypatch: pytest.MonkeyPatch, drawn_root: Path, tmp_path: Path
) -> None:
    start = {"start": {"shards": 1, "real_steps": 1}} if network == "mini" else {}
    rule = {"networks": [network], **start}
    small = {"name": "p", "title": "t", "entries": [{"label": "real"}], "categories": ["wood"]}
    auto = parse({**small, "segmentation": rule}, "p.yaml")
    for cuda, device in ((False, "auto"), (True, "cpu"), (True, "auto")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        gpu = cuda and device == "auto"
        expected = ("bf16" if machine else "fp32") if gpu else (on_cpu if machine else "fp32")
        cells = plan(auto, drawn_root, tmp_path, Given(device=device)).cells
        assert {cell.key["precision"] for cell in cells} == {expected}
        assert precision_of(network, "auto", "cuda" if gpu else "cpu") == expected
    asked = protocol_of(segmenter=network, precision="fp32")
    assert asked.segmentation.precision == "fp32"


def test_the_library_is_told_to_leave_instructions_out() -> None:
    """As on a processor of 2015, which has AVX2 and no more."""
    code = "from fast.runtime.precision import has_bf16; print(has_bf16())"
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_flags_of_x86_and_arm(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor: 0\nflags\t\t: fpu avx2 avx512_bf16 amx_tile\nbugs: x\n")
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert "avx512_bf16" in _cpu_flags(tmp_path / "x86")
    assert "bf16" in _cpu_flags(tmp_path / "arm")
    assert _cpu_flags(tmp_path / "absent") == set()


def test_without_the_library_there_is_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bf16.__wrapped__("cpu")


def test_the_factor_is_a_measurement() -> None:
    assert 0 < slowdown.__wrapped__("cpu") < 10000


def test_an_unknown_precision_is_refused() -> None:
    from fast.training.config import check_config

    trainer = {"max_steps": 1, "precision": "8"}
    config = {"model": {"params": {}}, "data": {}, "lightning": {"trainer": trainer}, "method": {}}
    with pytest.raises(UserError, match=r"precision=8 is unknown; use auto, 32"):
        check_config(config)


# progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_how_far_and_how_long() -> None:
    clock = Clock()
    with Progress(500, "pairs", "pair", initial=100, hidden=True, clock=clock) as progress:
        clock.now = 45.0
        assert progress.line() == "pairs: 100 of 500 pairs after 45 s"
        progress.update(100)
        clock.now = 60.0
        progress.note("loss 0.5")
        assert progress.line() == "pairs: 200 of 500 pairs, loss 0.5, done in about 3 min"
        progress.to(500)
        assert progress.line() == "pairs: 500 of 500 pairs, loss 0.5, done in about 0 s"


def test_lines_come_by_the_clock_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while one piece takes all the time."""
    said = threading.Event()
    monkeypatch.setattr(fast.runtime.progress, "EVERY", 0.001)
    monkeypatch.setattr(Progress, "report", lambda self: (print(self.line()), said.set()))
    with Progress(3, "encoding", "image"):
        assert said.wait(60)
    assert capsys.readouterr().out.startswith("encoding: 0 of 3 images after ")


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(followed([1, 2, 3], "work", "piece")) == [1, 2, 3]
    with Progress(3, "work", "piece", hidden=True) as hidden:
        hidden.report()
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(2, "work", "piece") as progress:
        progress.update(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err


def test_training_s_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TrainingProgress(0, 40)
    for step in range(1, 41):
        progress.show(step, {"train/loss": 1 / step} if step % 10 == 0 else {})
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0] == "step 2/40  loss not logged yet"
    assert lines[-1] == "step 40/40  loss 0.025"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (5400, "1 h 30 min"), (86400, "24 h 0 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_bar_s_flags_name_no_terminal() -> None:
    assert SimpleNamespace(**vars(Progress(1, "a", "b", hidden=True))).bar.disable


def test_a_training_warns_once_by_the_name_of_what_was_given(
    machine: bool, tmp_path: Path, drawn_root: Path, tiny_base: Path, tiny_fast_config: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    argv = ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "-n", "run", "--precision", "bf16"]
    assert door(*argv) == 0
    assert capsys.readouterr().err.count("warning: --precision bf16: ") == (not machine)
    assert door("-r", tmp_path / "run", "-t", "--max_steps", "2") == 0
    err = capsys.readouterr().err
    assert err.count("warning: lightning.trainer.precision bf16") == err.count("warning: ") == (not machine)
