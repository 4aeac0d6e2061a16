"""FAST's loss, what trains and what stays frozen, its artifact and its resume point."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TYPES, randomize

from fast.checkpoint import find_artifact, load_model, read_artifact
from fast.masks import latent_mask
from fast.model import FAST
from ldm.checkpoint import file_hash, read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.rng import generator


def batch() -> dict[str, Any]:
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 10:30, 20:41] = 1
    mask[1, :, 5, 5] = 1
    latent = torch.randn(2, 4, 16, 16, generator=generator(9))
    return {"latent": latent, "mask": mask, "type": torch.tensor([0, 5]), "seed": torch.tensor([11, 12])}


def test_the_loss_is_equation_18(tiny_fast: FAST) -> None:
    model, given = tiny_fast, batch()
    loss, parts = model.loss(given)
    x0 = model.scale_factor * given["latent"]
    t, eps = model.draw(given, x0)
    m = torch.nn.functional.max_pool2d(given["mask"], 4)
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    anomaly = model.farm(x_t, m, t - 1, model.prompts(model.cond_stage_model, given["type"]))
    seen = torch.where(m.bool(), bar.sqrt() * anomaly + (1 - bar).sqrt() * eps, x_t)
    predicted = model.apply_model(seen, t - 1, model.prompts(model.cond_stage_model, given["type"]))
    loss_eps, loss_farm = (predicted - eps).square().mean(), (anomaly - m * x0).square().mean()
    torch.testing.assert_close(parts["loss_eps"], loss_eps)
    torch.testing.assert_close(parts["loss_farm"], loss_farm)
    torch.testing.assert_close(loss, 1.0 * loss_eps + 5.0 * loss_farm)
    assert torch.equal(latent_mask(given["mask"], (16, 16)), m)


def test_a_sample_s_loss_does_not_depend_on_its_batch(tiny_fast: FAST) -> None:
    given = batch()
    alone = [tiny_fast.loss({k: v[i : i + 1] for k, v in given.items()})[0] for i in range(2)]
    torch.testing.assert_close(tiny_fast.loss(given)[0], (alone[0] + alone[1]) / 2)


def test_gradients_reach_farm_and_prompts_and_nothing_frozen(tiny_fast: FAST) -> None:
    tiny_fast.train()
    tiny_fast.loss(batch())[0].backward()
    moved = {name for name, p in tiny_fast.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {name for name, _ in tiny_fast.named_parameters() if name.startswith(("farm.", "prompts."))}
    frozen = {n: p for n, p in tiny_fast.named_parameters() if not n.startswith(("farm.", "prompts."))}
    assert frozen
    assert all(p.grad is None and not p.requires_grad for p in frozen.values())


def test_both_terms_teach_their_part(tiny_fast: FAST) -> None:
    _, parts = tiny_fast.loss(batch())
    vectors, first = tiny_fast.prompts.vectors, tiny_fast.farm.enc1[0][0].weight
    by_eps = torch.autograd.grad(parts["loss_eps"], [vectors, first], retain_graph=True)
    assert all(g.abs().sum() > 0 for g in by_eps)
    by_farm = torch.autograd.grad(parts["loss_farm"], [vectors, first])  # FARM reads the prompt
    assert all(g.abs().sum() > 0 for g in by_farm)


def test_frozen_parts_stay_in_evaluation_mode(tiny_fast: FAST) -> None:
    tiny_fast.train()
    assert tiny_fast.farm.training
    assert tiny_fast.prompts.training
    for part in (tiny_fast.model, tiny_fast.first_stage_model, tiny_fast.cond_stage_model):
        assert not any(m.training for m in part.modules())


def test_the_optimizer_gets_what_trains(tiny_fast: FAST) -> None:
    given = {id(p) for group in tiny_fast.configure_optimizers().param_groups for p in group["params"]}
    assert given == {id(p) for p in tiny_fast.parameters() if p.requires_grad}


def test_a_thawed_unet_trains_and_is_saved(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), thaw_unet=True, **tiny_fast_config["params"]).train()
    assert model.model.training
    assert not model.first_stage_model.training
    model.loss(batch())[0].backward()
    assert all(p.grad is not None for p in model.model.parameters())
    assert {name.split(".")[0] for name in model.own_state()} == {"farm", "prompts", "model"}
    ids = {id(p) for p in model.trainable()}
    assert ids == {id(p) for p in model.parameters() if p.requires_grad}


def test_training_leaves_the_base_s_scale_factor_alone(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    """The artifact does not hold it, so synthesis scales by the base's."""
    params = {**tiny_fast_config["params"], "scale_by_std": True}
    model = FAST(types=TYPES, **params)
    model._trainer = SimpleNamespace(datamodule=SimpleNamespace(latent_std=lambda: 0.01), global_step=0)
    model.on_train_start()
    assert float(model.scale_factor) == 0.5
    assert not any("scale_factor" in name for name in model.own_state())


def test_a_resume_point_holds_no_frozen_weight(tiny_fast: FAST, tiny_base: Path) -> None:
    checkpoint: dict[str, Any] = {"state_dict": tiny_fast.state_dict()}
    tiny_fast.on_save_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"farm", "prompts"}
    saved = {k: v.clone() for k, v in checkpoint["state_dict"].items()}
    randomize(tiny_fast.farm, 77)
    loaded = {"state_dict": dict(saved)}
    tiny_fast.on_load_checkpoint(loaded)
    tiny_fast.load_state_dict(loaded["state_dict"], strict=True)
    for name, value in tiny_fast.own_state().items():
        assert torch.equal(value, saved[name])
    base = read_state_dict(tiny_base)
    for name, value in tiny_fast.model.state_dict().items():
        assert torch.equal(value, base[f"model.{name}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"farm": {"width": 3}}, "unknown config key width for model.params.farm"),
        ({"aias": {"step": 3}}, "unknown config key step for model.params.aias"),
        ({"aias": {"steps": 0}}, "aias.steps=0"),
        ({"prompt_tokens": 0}, "prompt_tokens=0"),
        ({"prompt_tokens": 22}, "prompt_tokens=22 does not fit"),
        ({"types": []}, "no defect types"),
        ({"cond_stage_config": "__is_unconditional__"}, "needs a text encoder"),
    ],
)
def test_a_recipe_s_slips_are_named(tiny_fast_config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FAST(**{"types": TYPES, **tiny_fast_config["params"], **change})


# the artifact


def test_an_artifact_comes_back_as_it_was(tiny_fast: FAST, tiny_artifact: Path, tmp_path: Path) -> None:
    old = find_artifact(tiny_artifact)
    metadata = {"step": "9", "config": json.dumps(old.config), "split": "s", **tiny_fast.artifact_metadata()}
    save_safetensors(tiny_fast.own_state(), tmp_path / "fast-9.safetensors", metadata)
    artifact = find_artifact(tmp_path)
    assert (artifact.step, artifact.types) == (9, TYPES)
    back = load_model(artifact)
    given = batch()
    torch.testing.assert_close(back.loss(given)[0], tiny_fast.loss(given)[0], rtol=0, atol=0)
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())


def test_the_artifact_asked_for_or_the_last(tiny_artifact: Path, tmp_path: Path) -> None:
    assert find_artifact(tiny_artifact).step == 7
    assert find_artifact(tiny_artifact / "checkpoints", 3).step == 3
    assert find_artifact(tiny_artifact / "checkpoints" / "fast-3.safetensors", 3).step == 3
    with pytest.raises(UserError, match=r"--weight_idx 10000: .* has the steps 3, 7"):
        find_artifact(tiny_artifact, 10000)
    with pytest.raises(UserError, match="--weight_idx 7"):
        find_artifact(tiny_artifact / "checkpoints" / "fast-3.safetensors", 7)
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no fast-<step>"):
            find_artifact(place)


def rewrite(path: Path, **changes: str | None) -> None:
    """Change the metadata of an artifact; None removes an entry."""
    metadata = {k: v for k, v in {**read_metadata(path), **changes}.items() if v is not None}
    save_safetensors({k: v.clone() for k, v in read_state_dict(path).items()}, path, metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": "x"},
        {"config": "{"},
        {"config": "[]"},
        {"config": '{"model": {"target": "fast.model.FAST"}}'},
        {"types": "[]"},
        {"types": "[3]"},
        {"types": '["scratch"]'},
        {"base": None},
        {"base_sha256": None},
    ],
)
def test_broken_metadata_is_told(own_artifact: Path, change: dict[str, str | None]) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    rewrite(path, **change)
    with pytest.raises(UserError, match="is not an artifact of main"):
        read_artifact(path)


@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("model", "subprocess.run", "no class of this project"),
        ("model", "ldm.checkpoint.file_hash", "no class of this project"),
        ("model", "ldm.models.diffusion.ddpm.LatentDiffusion", "no method on a latent base"),
        ("unet", "os.system", "no class of this project"),
    ],
)
def test_an_artifact_cannot_name_code_to_run(own_artifact: Path, place: str, target: str, message: str) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    config = read_artifact(path).config
    section = config["model"] if place == "model" else config["model"]["params"]["unet_config"]
    section["target"] = target
    rewrite(path, config=json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_model(read_artifact(path))


def test_a_base_that_moved_or_changed(own_artifact: Path, tiny_base: Path, tmp_path: Path) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    moved = tmp_path / "elsewhere.safetensors"
    rewrite(path, base=str(tmp_path / "gone.safetensors"))
    with pytest.raises(UserError, match=r"gone\.safetensors .* give its place with --actual_resume"):
        load_model(read_artifact(path))
    moved.write_bytes(tiny_base.read_bytes())
    assert load_model(read_artifact(path), str(moved)).base_hash == file_hash(tiny_base)
    moved.write_bytes(tiny_base.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"elsewhere\.safetensors is not the base"):
        load_model(read_artifact(path), str(moved))


def test_weights_of_another_shape_are_refused(own_artifact: Path) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    config = read_artifact(path).config
    config["model"]["params"]["farm"] = {"base_width": 16}
    rewrite(path, config=json.dumps(config))
    with pytest.raises(UserError, match=r"does not fit .* of another shape"):
        load_model(read_artifact(path))
