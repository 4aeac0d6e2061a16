"""Two processes on the CPU, started as a user starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fast.training.saver import LAST
from support.paths import ROOT
from support.training import artifact, door, losses, recipe

EACH_STEP = ["lightning.checkpoint_every=1"]


@pytest.fixture
def flags(tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path) -> list[str]:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=4, views=2)
    return [str(a) for a in ("-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path)]


def start(*flags: str) -> subprocess.Popen[str]:
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


def assert_close_losses(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    assert [row.keys() for row in one] == [row.keys() for row in other]
    values = [[[float(v) for v in row.values()] for row in rows] for rows in (one, other)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)


def momentum(run: Path) -> list[torch.Tensor]:
    """Adam's running mean of the gradients; after one step a tenth of the first gradient."""
    (state,) = torch.load(run / LAST, weights_only=True)["optimizer_states"]
    return [entry["exp_avg"] for entry in state["state"].values()]


def test_two_processes_train_what_one_does_with_twice_the_batch(flags: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with start(*flags, "-n", "two", "--max_steps", "1") as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.count("training ") == out.count("trained to step 1") == 1
    assert door(*flags, "-n", "one", "data.params.batch_size=4", "--max_steps", 1) == 0
    torch.testing.assert_close(momentum(one), momentum(two), rtol=1e-4, atol=1e-7)

    with start("-r", str(two), "-t", "--max_steps", "4") as process:
        _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert door("-r", one, "-t", "--max_steps", 4) == 0
    assert_close_losses(losses(one), losses(two))
    mine, other = artifact(one, 4), artifact(two, 4)
    torch.testing.assert_close(mine["prompts.vectors"], other["prompts.vectors"], rtol=1e-3, atol=1e-4)
    for name in mine:
        # A bias before a norm has no gradient but rounding, of which Adam makes whole steps.
        if not name.endswith("bias"):
            torch.testing.assert_close(mine[name], other[name], rtol=1e-2, atol=4e-3)

    # The same run goes on: one good step more, then a learning rate that breaks it, on both ranks.
    with start("-r", str(two), "-t", "--max_steps", "9", "model.params.lr=1e30", *EACH_STEP) as process:
        _, err = process.communicate()
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: the loss is not finite (NaN) at step 6; the last good checkpoint is {two / LAST}: ")
    assert [row["step"] for row in losses(two)] == list("12345")


def test_interrupt_of_both(flags: list[str], tmp_path: Path) -> None:
    with start(*flags, "-n", "run", "--max_steps", "200") as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("step 10/200"):
                os.killpg(process.pid, signal.SIGINT)
                break
        process.stdout.read()
        err = process.stderr.read()
    assert (process.returncode, err.count("\n")) == (2, 1)
    step = err.split("at step ")[1].split(";")[0]
    assert err == f"error: interrupted at step {step}; go on with -t -r {tmp_path / 'run'}\n"
    assert (tmp_path / "run" / "checkpoints" / f"fast-{step}.safetensors").is_file()
