"""Bad input of the training door: one line on stderr, exit code 2, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fast.data.images import write_image, write_mask
from support.training import FIRST_STAGE, door, recipe

Check = Callable[..., None]


@pytest.fixture
def refused(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Check:
    """`refused(text, *flags)`: training FAST with these flags too fails with one line that holds `text`."""
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)

    def check(text: str, *flags: object) -> None:
        rest = [] if "--actual_resume" in flags else ["--actual_resume", tiny_base]
        assert door("-b", path, "-t", "-l", tmp_path / "logs", "-n", "run", *rest, *flags) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert text in err
        assert not (tmp_path / "logs").exists()

    return check


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("learning_rate=1", "learning_rate=1 is not understood"),
        ("models.params.lr=1", "models.params.lr=1 is not understood"),
        ("model.parameters.lr=1", "unknown config key parameters"),
        ("model.params.learning_rate=1", "unknown config key learning_rate for fast.model.FAST"),
        ("model.params.unet_config.params.chanels=1", "unknown config key chanels"),
        ("model.params.farm.width=1", "unknown config key width"),
        ("model.params.aias.step=1", "unknown config key step"),
        ("data.params.sise=1", "unknown config key sise"),
        ("data.params.augment.flip=1", "unknown config key flip"),
        ("lightning.save_every=1", "unknown config key in lightning: save_every"),
        ("lightning.trainer.steps=1", "unknown config key in lightning.trainer: steps"),
        ("model.target=fast.model.FASTER", "target: fast.model.FASTER does not exist"),
        ("model.params.unet_config.target=nowhere.UNet", "target: nowhere.UNet does not exist"),
        ("data.target=oops", "target: oops is not a dotted path"),
        ("model.params.lr=fast", "model.params.lr=fast must be"),
        ("model.params.lr=0", "model.params.lr=0 must be a number above 0"),
        ("model.params.prompt_tokens=many", "model.params.prompt_tokens=many must be of type int"),
        ("data.params.batch_size=2.5", "data.params.batch_size=2.5 must be of type int"),
        ("data.params.batch_size=0", "batch_size=0"),
        ("data.params=3", "config data.params=3 must be a mapping"),
        ("lightning.trainer.max_steps=ten", "lightning.trainer.max_steps=ten must be a whole number"),
        ("lightning.trainer.precision=8", "lightning.trainer.precision=8 is unknown"),
        ("lightning.trainer.accelerator=abacus", "accelerator=abacus is unknown"),
        ("lightning.trainer.gradient_clip_val=big", "lightning.trainer: "),
        ("lightning.checkpoint_every=0", "lightning.checkpoint_every=0 must be a whole number, 1 or more"),
        ("model.params.lr=${nothing.here}", "config: "),
        ("data.params.split=no_such_file.json", "no_such_file.json: cannot read the split"),
        ("data.params.use=some", "data.params.use=some is unknown"),
    ],
)
def test_config(refused: Check, flag: str, text: str) -> None:
    refused(text, flag)


def test_flags(refused: Check, tmp_path: Path) -> None:
    refused("unrecognized arguments: --steps (did you mean --max_steps?); see --help", "--steps", 3)
    refused("--gpus one: one is not a GPU number", "--gpus", "one")
    refused("--devices -1: give", "--devices", -1)
    refused("-s -1: a seed is", "-s", -1)
    refused("no category 'steel'", "--category", "steel")
    refused("no usable defect of type 'bent'", "--anomaly", "bent")
    refused("has no token", "--init_word", "\u0001")
    refused("does not exist", "--base", tmp_path / "none.yaml")
    refused("there is no such checkpoint", "-r", tmp_path / "none.ckpt")
    refused("give the folder of a run", "-r", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "is not valid YAML"),
        ("- a", "is not a mapping of sections"),
        ("include: recipe2.yaml", "includes itself"),
        ("include: none.yaml", "does not exist"),
        ("models: {}", "unknown config section models"),
        ("model: 3", "no model: section"),
    ],
)
def test_recipes(refused: Check, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "recipe2.yaml").write_text(text)
    refused(says, "--base", tmp_path / "recipe2.yaml")


def test_folders(refused: Check, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused("no such folder", "--mvtec_path", tmp_path / "missing")
    refused("the folder is empty", "--mvtec_path", tmp_path / "empty")


@pytest.mark.parametrize("damage", ["truncated", "size", "empty masks"])
def test_images(refused: Check, tmp_path: Path, drawn_root: Path, damage: str) -> None:
    """Where every sample of the one type is bad, training cannot go on."""
    own = Path(shutil.copytree(drawn_root, tmp_path / "set"))
    for path in (own / "wood" / "test" / "hole").iterdir():
        mask = own / "wood" / "ground_truth" / "hole" / f"{path.stem}_mask.png"
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:200])
        else:
            write_mask(mask, np.full((8, 8), 1) if damage == "size" else np.zeros((64, 64)))
    texts = {"truncated": "cannot read the image", "size": "mask is 8x8, its image 64x64", "empty masks": "empty mask"}
    refused(texts[damage], "--mvtec_path", own / "wood" / "test" / "hole")


def test_a_bad_image_among_good_ones_is_left_out(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(drawn_root, tmp_path / "set"))
    bad = min((own / "wood" / "test" / "hole").iterdir())
    write_image(bad.with_name("extra.png"), np.zeros((64, 64, 3), np.uint8))
    bad.write_bytes(bad.read_bytes()[:200])
    path = recipe(tmp_path, tiny_fast_config, own, steps=1)
    assert door("-b", path, "-l", tmp_path, "-n", "run", "--actual_resume", tiny_base) == 0
    out = capsys.readouterr().out
    assert f"left out: wood/test/hole/{bad.name}: cannot read the image" in out
    assert "left out: wood/test/hole/extra.png: defect without mask" in out
    assert "nothing is trained without -t" in out
    assert not (tmp_path / "run").exists()


def test_checkpoints(refused: Check, tmp_path: Path, tiny_base: Path) -> None:
    code, other, text = tmp_path / "code.ckpt", tmp_path / "other.ckpt", tmp_path / "text.ckpt"
    torch.save({"state_dict": {}, "net": torch.nn.Linear(1, 1)}, code)
    torch.save({"state_dict": {"model.diffusion_model.weight": torch.zeros(1)}}, other)
    text.write_text("weights")
    refused("holds pickled code", "--actual_resume", code)
    refused("does not fit FAST", "--actual_resume", other)
    refused("text.ckpt", "--actual_resume", text)
    refused("does not exist; check --actual_resume", "--actual_resume", tmp_path / "none.ckpt")


def test_fast_needs_a_base(
    tiny_fast_config: Any, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door("-b", recipe(tmp_path, tiny_fast_config, drawn_root), "-t", "-l", tmp_path, "-n", "run") == 2
    assert capsys.readouterr().err == "error: fast.model.FAST needs a trained base; give --actual_resume CKPT\n"


def test_runs_do_not_mix(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["-b", recipe(tmp_path, FIRST_STAGE, drawn_root, steps=1, cache=False, crop=32), "-t", "-l", tmp_path]
    assert door(*flags, "-n", "run") == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    for name, text in (("run", "holds another run"), ("recipe.yaml", "is a file"), ("other", "holds other files")):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "notes.txt").touch()
        assert door(*flags, "-n", name, "-s", 4) == 2
        assert text in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    assert door("-t", "-r", tmp_path / "run", "--max_steps", 2, "model.params.embed_dim=3") == 2
    assert "does not fit the model that the config describes" in capsys.readouterr().err
