"""The flags, the recipes and what the door makes of errors."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fast.runtime.command import run_cli, write_failure
from fast.runtime.options import TrainingOptions, gpu_numbers, parse_training
from fast.training.config import check_config, merge, resolved
from fast.training.trainer import devices
from ldm.errors import UserError
from support.paths import ROOT
from support.training import FIRST_STAGE, artifact, door, recipe


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from fast.runtime.command import run_cli; from main import main; "
        "code = run_cli(main, ['--help']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--mvtec_path" in done.stdout


def test_a_line_and_a_code_for_each_end(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> Any:
        def main(argv: list[str]) -> None:
            raise error

        return main

    for error, text in (
        (UserError("size=3\n is too small"), "error: size=3 is too small\n"),
        (KeyboardInterrupt(), "interrupted; run the same command again to go on\n"),
        (SystemExit(1), "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "x"), "error: cannot write x: No space left; free space or choose"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: cannot open x: Permission denied"),
    ):
        assert run_cli(raising(error), []) == 2
        assert capsys.readouterr().err.startswith(text)
    assert run_cli(raising(SystemExit(0)), []) == 0
    for bug in (ValueError("bug"), FileNotFoundError(errno.ENOENT, "gone", "x"), RuntimeError("shape")):
        assert write_failure(bug) is None
        with pytest.raises(type(bug)):
            run_cli(raising(bug), [])


def test_a_second_process_is_silent_about_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run_cli(main, []) == 2
    assert capsys.readouterr().err == ""


def test_bad_flags_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--bogus"], ["-s", "x"], ["--max_steps"], ["-t", "perhaps"], ["--precision", "8"]):
        assert door(*flags) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_flags_in_any_order() -> None:
    o = parse_training(
        ["-t", "model.params.lr=1e-4", "--base", "a.yaml", "b.yaml", "data.params.size=8", "-b", "c.yaml"]
    )
    assert (o.train, o.base) == (True, ["a.yaml", "b.yaml", "c.yaml"])
    assert o.overrides == ["model.params.lr=1e-4", "data.params.size=8"]
    o = parse_training(["-t", "false", "--log_folder", "l", "--mvtec_path=d", "-n", "x", "-s", "3", "--gpus", "0"])
    assert (o.train, o.logdir, o.data, o.name, o.seed, o.gpus) == (False, "l", "d", "x", 3, "0")
    assert parse_training(["-t", "true"]).train is True
    assert parse_training([]).train is False


@pytest.mark.parametrize(("text", "numbers"), [("0", [0]), ("0,2", [0, 2]), ("0,1,..,7", list(range(8))), ("1,", [1])])
def test_gpu_numbers(text: str, numbers: list[int]) -> None:
    assert gpu_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "0,0", "..,3", "0,..", "-1"])
def test_wrong_gpu_numbers(text: str) -> None:
    with pytest.raises(UserError, match="write --gpus 0"):
        gpu_numbers(text)


def test_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    def where(gpus: str | None = None, accelerator: str | None = None, count: int | None = None) -> dict[str, Any]:
        return devices(TrainingOptions(gpus=gpus, accelerator=accelerator, devices=count), {})

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert where("0,1") == {"accelerator": "cpu", "devices": 1}
    assert capsys.readouterr().out == "--gpus 0,1: no GPU here, training on the CPU\n"
    assert where(count=2) == {"accelerator": "cpu", "devices": 2}
    with pytest.raises(UserError, match="there is no GPU here"):
        where(accelerator="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert where("0,1") == {"accelerator": "gpu", "devices": [0, 1]}
    assert where() == {"accelerator": "gpu", "devices": 1}
    assert where("0", accelerator="cpu") == {"accelerator": "cpu", "devices": 1}
    for wrong in ({"gpus": "0,2"}, {"count": 3}):
        with pytest.raises(UserError, match="this machine has 2"):
            where(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("fast_*.yaml")), ids=lambda p: p.stem)
def test_recipes_of_the_paper_resolve(path: Path) -> None:
    config = resolved(merge([path], ["model.params.ckpt_path=base.ckpt", "data.params.path=data"]))
    check_config(config)
    assert config["model"]["params"]["unet_config"]["params"]["model_channels"] == 320
    assert (config["model"]["params"]["lr"], config["lightning"]["trainer"]["max_steps"]) == (1.5e-4, 80000)
    assert config["data"]["params"]["layout"] == path.stem.removeprefix("fast_").removesuffix("_12gb")
    head = path.read_text().split("include:")[0]
    assert all(word in head for word in ("python main.py --base", "Hardware", "Run time", "Score"))


def test_recipes_merge_from_left_to_right(tmp_path: Path) -> None:
    for name, text in (
        ("a", "model: {target: x.y, params: {lr: 1, k: 1}}"),
        ("b", "include: a.yaml\nmodel: {params: {lr: 2}}"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "c.yaml").write_text("data: {target: z.w}")
    config = merge([tmp_path / "b.yaml", tmp_path / "c.yaml"], ["model.params.lr=3e-4"])
    assert config["model"]["params"] == {"lr": 3e-4, "k": 1}
    assert resolved(config)["data"] == {"target": "z.w", "params": {}}


def test_logs_and_pictures(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`base_learning_rate` is the rate; losses reach TensorBoard; pictures are made at intervals."""
    model = {"base_learning_rate": 2e-3, **FIRST_STAGE, "params": {**FIRST_STAGE["params"]}}
    del model["params"]["lr"]
    path = recipe(tmp_path, model, drawn_root, steps=4, cache=False, crop=32)
    settings = ["lightning.images_every=2", "lightning.tensorboard=true", "lightning.keep_artifacts=1"]
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "run", *settings) == 0
    run = tmp_path / "run"
    assert sorted(p.name for p in (run / "images").iterdir()) == ["0000002.png", "0000004.png"]
    assert (run / "metrics.csv").read_text().splitlines()[1].startswith("1,0.002,")
    assert [p.name for p in (run / "checkpoints").glob("*.safetensors")] == ["autoencoder-4.safetensors"]
    assert len(list((run / "tensorboard").glob("events*"))) == 1
    assert artifact(run, 4)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [line.split()[0] for line in captured.out.splitlines() if not line.startswith(" ")] == [
        "data:", "training", "step", "step", "step", "step", "trained",
    ]  # fmt: skip
