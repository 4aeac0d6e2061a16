"""The one command that trains the shipped base, at a size for toys."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

import fast.data.pool as pool_module
from fast.checkpoint import find_artifact, load_model
from fast.data.pool import PoolRecipe
from ldm.checkpoint import read_state_dict

ROOT = Path(__file__).resolve().parents[1]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_base", ROOT / "scripts" / "train_base.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Path]:
    """The script with recipes of toy networks and a pool of one small shard, in a folder of its own."""
    monkeypatch.setattr(pool_module, "NORMALS", 3)
    monkeypatch.setattr(pool_module, "DEFECTS", 2)
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "tokenizer").symlink_to(ROOT / "configs/mini/tokenizer")
    base = OmegaConf.load(ROOT / "configs/mini/base.yaml")
    unet, first = base.model.params.unet_config.params, base.model.params.first_stage_config.params.ddconfig
    unet.update(model_channels=32, channel_mult=[1, 2], attention_resolutions=[2], context_dim=16)
    first.update(widths=[8, 16], blocks=1)
    base.model.params.cond_stage_config.params.update(n_embed=16, n_layer=1)
    base.data.params.batch_size = 2
    base.lightning.trainer.max_steps = 2
    OmegaConf.save(base, recipes / "base.yaml")
    auto = OmegaConf.load(ROOT / "configs/mini/autoencoder.yaml")
    auto.model.params.ddconfig.update(widths=[8, 16], blocks=1)
    auto.data.params.update(crop=32, batch_size=2)
    OmegaConf.save(auto, recipes / "autoencoder.yaml")
    farm = OmegaConf.load(ROOT / "configs/mini/farm.yaml")
    farm.model.params.farm.base_width = 8
    farm.data.params.batch_size = 2
    OmegaConf.save(farm, recipes / "farm.yaml")
    module = script()
    monkeypatch.setattr(module, "RECIPES", recipes)
    out = tmp_path / "run"
    pool_module._store(0, PoolRecipe(size=64, materials=("leather",)), out / "pool", [])
    return module, out


def test_stages_follow_each_other_and_are_not_done_twice(toy: tuple[ModuleType, Path], tmp_path: Path) -> None:
    module, out = toy
    ship = tmp_path / "ship"
    flags = ["--out", str(out), "--ship", str(ship), "--autoencoder_steps", "2", "--base_steps", "2"]
    flags += ["--farm_steps", "2", "--only"]
    assert module.main([*flags, "base"]) == 2  # nothing is there to train on
    for stage in ("autoencoder", "latents", "base", "farm"):
        assert module.main([*flags, stage]) == 0
    artifact = find_artifact(ship)
    assert artifact.open_types
    assert all(key.startswith("surface/") for key in artifact.types)
    model = load_model(artifact)
    assert model.model.conditioning_key == "hybrid"
    kept = {str(v.dtype) for k, v in read_state_dict(ship / "base.safetensors").items() if k.startswith("model.")}
    assert kept == {"torch.bfloat16"}
    before = (ship / "base.safetensors").read_bytes()
    assert module.main([*flags, "base"]) == 0
    assert (ship / "base.safetensors").read_bytes() == before


def test_an_override_needs_its_stage(toy: tuple[ModuleType, Path], capsys: pytest.CaptureFixture[str]) -> None:
    module, out = toy
    assert module.main(["--out", str(out), "model.params.lr=1"]) == 2
    assert "--only" in capsys.readouterr().err
