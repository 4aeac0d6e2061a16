"""A run that is stopped anywhere and goes on with -r is the unbroken run, bit for bit."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from fast.training.saver import Saver
from support.training import EMA_BASE, FIRST_STAGE, artifact, assert_same_run, door, losses, recipe


class Killed(BaseException):
    """Stands for a SIGKILL: nothing gets a chance to save."""


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`at_step(n, act)`: do `act` once, when n steps are done and what belongs to them is saved."""
    original = Saver.on_train_batch_start

    def plan(step: int, act: Any) -> None:
        waiting = [act]

        def hook(self: Saver, trainer: Any, *args: Any) -> None:
            original(self, trainer, *args)
            if trainer.global_step == step and waiting:
                waiting.pop()()

        monkeypatch.setattr(Saver, "on_train_batch_start", hook)

    return plan


def kill() -> None:
    raise Killed


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # a cluster's way; tests/test_training_stop.py has Ctrl-C


def break_and_go_on(run: Path, flags: list[object], at_step: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed at steps 2 and 5, ended in the step after the 3rd, then to the end; checkpoints at every third step."""
    at_step(2, kill)
    with pytest.raises(Killed):
        door(*flags, "-t", "-n", run.name, "-l", run.parent)
    assert not (run / "checkpoints").exists()
    at_step(3, interrupt)
    capsys.readouterr()
    assert door("-r", run, "-t") == 2
    *warnings, last = capsys.readouterr().err.splitlines()
    assert last == f"error: interrupted at step 4; go on with -t -r {run}"
    assert all(line.startswith("warning: lightning.trainer.precision bf16: ") for line in warnings)  # where it is slow
    assert len(warnings) == len(set(warnings)) <= 1
    at_step(5, kill)
    with pytest.raises(Killed):
        door("-r", run, "-t")
    at_step(-1, kill)
    assert door("-r", run / "checkpoints" / "last.ckpt", "-t") == 0


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_fast(
    precision: str, tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, at_step: Any, capsys: Any
) -> None:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, views=2)
    flags = ["-b", path, "--actual_resume", tiny_base, "--precision", precision, "--init_word", "hole"]
    assert door(*flags, "-t", "-n", "whole", "-l", tmp_path) == 0
    assert [row["step"] for row in losses(tmp_path / "whole")] == list("1234567")
    break_and_go_on(tmp_path / "cut", flags, at_step, capsys)
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 7)
    assert len(list((tmp_path / "cut" / "cache").iterdir())) == 1


def test_base_with_averaged_weights_and_a_schedule(
    tiny_model_config: Any, drawn_root: Path, tmp_path: Path, at_step: Any, capsys: Any
) -> None:
    tiny_model_config["params"] |= EMA_BASE
    flags = ["-b", recipe(tmp_path, tiny_model_config, drawn_root), "lightning.trainer.accumulate_grad_batches=2"]
    assert door(*flags, "-t", "-n", "whole", "-l", tmp_path) == 0
    break_and_go_on(tmp_path / "cut", flags, at_step, capsys)
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 7)
    rates = [float(row["lr"]) for row in losses(tmp_path / "cut")]
    assert rates[:4] == pytest.approx([1e-4, 4e-4, 7e-4, 6.625e-4])


def test_first_stage_with_discriminator(drawn_root: Path, tmp_path: Path, at_step: Any, capsys: Any) -> None:
    path = recipe(tmp_path, FIRST_STAGE, drawn_root, cache=False, crop=32, use="both")
    assert door("-b", path, "-t", "-n", "whole", "-l", tmp_path) == 0
    break_and_go_on(tmp_path / "cut", ["-b", path], at_step, capsys)
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 7)


@pytest.mark.parametrize("first", [4, 6])
def test_a_finished_run_goes_on_with_more_steps(
    first: int, tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: Any
) -> None:
    flags = ["-b", recipe(tmp_path, tiny_fast_config, drawn_root), "--actual_resume", tiny_base, "-t", "-l", tmp_path]
    flags += ["lightning.trainer.log_every_n_steps=3"]
    assert door(*flags, "-n", "long", "--max_steps", first) == 0
    assert losses(tmp_path / "long")[-1]["step"] == str(first)
    assert door("-r", tmp_path / "long", "-t") == 0
    assert f"trained to step {first}; give a larger --max_steps" in capsys.readouterr().out
    assert door("-r", tmp_path / "long", "-t", "--max_steps", 7) == 0
    assert door(*flags, "-n", "whole") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "long", 7)


def test_seed_decides_the_run(tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=2)
    flags = ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert door(*flags, "-n", name, "-s", seed) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b", 2)
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_the_rate_of_the_config_counts_after_resuming(tiny_model_config: Any, drawn_root: Path, tmp_path: Path) -> None:
    tiny_model_config["params"] |= EMA_BASE
    path = recipe(tmp_path, tiny_model_config, drawn_root, steps=3)
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "run") == 0
    assert door("-r", tmp_path / "run", "-t", "--max_steps", 4, "model.params.lr=2e-3") == 0
    assert float(losses(tmp_path / "run")[-1]["lr"]) == pytest.approx(2 * 6.625e-4)


def test_artifact_tells_what_made_it(tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    assert door("-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "-n", "run") == 0
    with safe_open(tmp_path / "run" / "checkpoints" / "fast-1.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["step"] == "1"
    assert len(metadata["base_sha256"]) == 64
    assert '"lr": 0.001' in metadata["config"]
    vectors = artifact(tmp_path / "run", 1)["prompts.vectors"]
    assert vectors.shape == (8, 8, 32)  # 8 types, 8 vectors each


def test_another_base_is_refused(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: Any
) -> None:
    own = tmp_path / "base.safetensors"
    own.write_bytes(tiny_base.read_bytes())
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    assert door("-b", path, "--actual_resume", own, "-t", "-l", tmp_path, "-n", "run") == 0
    own.write_bytes(tiny_base.read_bytes()[:-4] + b"\0\0\0\0")
    assert door("-r", tmp_path / "run", "-t", "--max_steps", 2) == 2
    assert "is not the base that" in capsys.readouterr().err
