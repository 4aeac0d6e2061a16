"""Two processes on the CPU, started as a user starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import artifact, door, losses, recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def flags(tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path) -> list[str]:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=4, views=2)
    return [str(a) for a in ("-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path)]


def two(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "main.py", *flags, "--devices", "2"]
    # A session of its own, so that a signal can go to all of it as a terminal's Ctrl-C does.
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_train_what_one_does_with_twice_the_batch(flags: list[str], tmp_path: Path) -> None:
    with two(*flags, "-n", "two", "--max_steps", "3") as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.count("training ") == out.count("trained to step 3") == 1
    with two("-r", str(tmp_path / "two"), "-t", "--max_steps", "4") as process:
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert door(*flags, "-n", "one", "data.params.batch_size=4") == 0
    one, other = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [row["step"] for row in other] == list("1234")
    for a, b in zip(one, other, strict=True):
        values = [[float(row[k]) for k in a] for row in (a, b)]
        torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)
    a, b = artifact(tmp_path / "one", 4), artifact(tmp_path / "two", 4)
    start = {k: torch.zeros(()) for k in a}
    assert a.keys() == b.keys() == start.keys()
    for name in a:
        # Adam turns the least difference of a near-zero gradient into a part of a step of 1e-3.
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=3e-4)


def test_nan_stops_both(flags: list[str], tmp_path: Path) -> None:
    with two(*flags, "-n", "run", "model.params.lr=1e30", "lightning.checkpoint_every=1") as process:
        out, err = process.communicate()
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert err.startswith("error: the loss is not finite (NaN) at step 2; the last good checkpoint is ")
    assert (tmp_path / "run" / "checkpoints" / "fast-1.safetensors").is_file()


def test_interrupt_of_both(flags: list[str], tmp_path: Path) -> None:
    with two(*flags, "-n", "run", "--max_steps", "400") as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("step 20/400"):
                os.killpg(process.pid, signal.SIGINT)
                break
        process.stdout.read()
        err = process.stderr.read()
    assert (process.returncode, err.count("\n")) == (2, 1)
    step = err.split("at step ")[1].split(";")[0]
    assert err == f"error: interrupted at step {step}; go on with -r {tmp_path / 'run'}\n"
    assert (tmp_path / "run" / "checkpoints" / f"fast-{step}.safetensors").is_file()
