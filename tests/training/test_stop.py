"""NaN, a full disk, Ctrl-C: the run stops with one line and what was saved before stays good."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fast.training.saver as saver
from fast.model import FAST
from support.paths import ROOT
from support.tiny import fast_section
from support.training import FIRST_STAGE, assert_same_run, door, recipe


@pytest.fixture
def flags(tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path) -> list[object]:
    path = recipe(tmp_path, tiny_fast_config, drawn_root)
    return ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "-n", "run"]


@pytest.fixture(scope="module")
def whole(tiny_base: Path, drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `flags` that nothing stopped. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    path = recipe(folder, fast_section(), drawn_root)
    assert door("-b", path, "--actual_resume", tiny_base, "-t", "-l", folder, "-n", "run") == 0
    return folder / "run"


def kept(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def test_nan_loss(
    flags: list[object], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original = FAST.loss

    def loss(self: FAST, batch: Any) -> Any:
        value, parts = original(self, batch)
        return (value * float("nan") if self.global_step == 4 else value), parts

    monkeypatch.setattr(FAST, "loss", loss)
    assert door(*flags) == 2
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err == (
        f"error: the loss is not finite (NaN) at step 5; the last good checkpoint is {last}: "
        f"go on with -t -r {tmp_path / 'run'} and a lower model.params.lr\n"
    )
    assert kept(tmp_path / "run") == ["fast-3.safetensors", "last.ckpt"]
    monkeypatch.undo()
    assert door("-r", tmp_path / "run", "-t") == 0
    assert_same_run(whole, tmp_path / "run", 7)


def test_nan_weights_are_never_saved(
    flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(self: FAST, *args: Any) -> None:
        if self.global_step == 6:
            self.prompts.vectors.data.fill_(torch.nan)

    monkeypatch.setattr(FAST, "on_train_batch_end", spoil)
    assert door(*flags) == 2
    assert "the weights are not finite (NaN) after step 6" in capsys.readouterr().err
    assert kept(tmp_path / "run") == ["fast-3.safetensors", "last.ckpt"]


@pytest.mark.parametrize("part", ["checkpoint", "artifact", "table"])
def test_full_disk(
    part: str, flags: list[object], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {
        "checkpoint": (saver.torch, "save"),
        "artifact": (saver, "save_safetensors"),
        "table": (saver.os, "replace"),
    }
    owner, name = places[part]
    original = getattr(owner, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail)
    assert door(*flags) == 2
    assert capsys.readouterr().err == (
        f"error: step 6 was not saved in {tmp_path / 'run' / 'checkpoints'} (cannot write disk: No space left on "
        f"device); free space there and go on with -t -r {tmp_path / 'run'}\n"
    )
    assert not list((tmp_path / "run").rglob("*.part"))
    monkeypatch.undo()
    assert door("-r", tmp_path / "run", "-t") == 0
    assert_same_run(whole, tmp_path / "run", 7)


@pytest.mark.parametrize(("limit", "text"), [(60_000, "/cache/latents-"), (300_000, "step 3 was not saved in")])
def test_real_writes_that_fail(
    limit: int, text: str, flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The libraries that write from Rust and C++ report a refusal in their own ways."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert door(*flags) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "run").rglob("*.part"))
    assert not list((tmp_path / "run").rglob("last.ckpt"))


def test_one_process_per_run(flags: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert door(*flags) == 2
    assert "another process trains there" in capsys.readouterr().err
    assert door(*flags, "--max_steps", 1) == 0


def test_interrupt(drawn_root: Path, tmp_path: Path) -> None:
    """Ctrl-C to the program as a user starts it; then -r to the end is the unbroken run."""
    path = recipe(tmp_path, FIRST_STAGE, drawn_root, steps=20, cache=False, crop=32, use="both", workers=1)
    flags = ["-b", path, "-t", "-l", tmp_path, "lightning.checkpoint_every=50"]
    command = [sys.executable, "main.py", *map(str, flags), "-n", "run"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("step 3/20"):
                process.send_signal(signal.SIGINT)
                break
        rest, err = process.stdout.read(), process.stderr.read()
    step = int(err.split("at step ")[1].split(";")[0])
    assert err == f"error: interrupted at step {step}; go on with -t -r {tmp_path / 'run'}\n"
    assert (process.returncode, "Traceback" in rest) == (2, False)
    assert kept(tmp_path / "run") == [f"autoencoder-{step}.safetensors", "last.ckpt"]
    assert door("-r", tmp_path / "run", "-t") == 0
    assert door(*flags, "-n", "whole") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run", 20)


@pytest.mark.parametrize("where", ["fast.data.module.check", "fast.data.module.DefectData._encode"])
def test_interrupt_before_the_first_step(
    where: str, flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(where, lambda *args: os.kill(os.getpid(), signal.SIGINT))
    assert door(*flags) == 2
    err = capsys.readouterr().err
    assert err.startswith(
        ("interrupted; run the same command", f"error: interrupted; go on with -t -r {tmp_path / 'run'}")
    )
    monkeypatch.undo()
    assert door(*flags) == 0  # the same command starts where nothing was made


def test_a_kill_before_the_first_rename_is_as_if_nothing_had_been(flags: list[object], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "config.yaml.part", ".DS_Store", "metrics.csv.part"):
        (run / name).touch()
    assert door(*flags, "--max_steps", "1") == 0
    assert kept(run) == ["fast-1.safetensors", "last.ckpt"]
    assert not list(run.rglob("*.part"))
