"""FAST's loss, what trains and what stays frozen, its artifact and its resume point."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fast.artifact import find_artifact, load_model, read_artifact
from fast.data.tensors import latent_mask
from fast.latent.prompted import SamplingInputs
from fast.model import FAST
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import PairNoise, generator
from support.batches import batch
from support.tiny import TYPES, randomize


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


def configured(base: Path, section: dict[str, Any], **options: Any) -> FAST:
    """A FAST with random FARM and prompts, as `tiny_fast`, and options beside."""
    model = FAST(types=TYPES, ckpt_path=str(base), **{**section["params"], **options})
    randomize(model.farm, 2)
    randomize(model.prompts, 2)
    return model


def numpy_error(found: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, share: float) -> float:
    """Per sample the means of the squared error inside and outside the mask, in the share given; averaged."""
    squares, own = (found - target).detach().double().numpy() ** 2, mask.bool().numpy()
    rows = zip(squares, own, strict=True)
    return float(np.mean([share * s[:, m[0]].mean() + (1 - share) * s[:, ~m[0]].mean() for s, m in rows]))


def test_the_loss_by_real_share_objective_and_defect_share(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    options = {"real_share": 0.5, "objective": "network", "defect_share": 0.75, "parameterization": "v"}
    model, given = configured(tiny_base, tiny_fast_config, **options), batch()
    # One sample keeps the real defect, in the other FARM's stands in: found by their draws.
    given["seed"] = torch.tensor([next(s for s in range(99) if (draw(s) < 0.5) == kept) for kept in (True, False)])
    _, parts = model.loss(given)
    x0 = model.scale_factor * given["latent"]
    t, eps = model.draw(given, x0)
    m = torch.nn.functional.max_pool2d(given["mask"], 4)
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    cond = model.prompts(model.cond_stage_model, given["type"])
    anomaly = model.farm(bar.sqrt() * x0 + (1 - bar).sqrt() * eps, m, t - 1, cond)
    clean = torch.stack([x0[0], torch.where(m[1].bool(), anomaly[1], x0[1])])
    velocity = bar.sqrt() * eps - (1 - bar).sqrt() * clean
    found = model.network(bar.sqrt() * clean + (1 - bar).sqrt() * eps, t - 1, cond)
    assert float(parts["loss_eps"]) == pytest.approx(numpy_error(found, velocity, m, 0.75), rel=1e-4)
    assert float(parts["loss_farm"]) == pytest.approx(numpy_error(anomaly, m * x0, m, 0.75), rel=1e-4)


def draw(seed: int) -> float:
    return float(torch.rand((), generator=generator(seed, 7)))


def test_what_is_off_changes_no_bit(tiny_base: Path, tiny_fast_config: dict[str, Any], tiny_fast: FAST) -> None:
    """As published: F.mse_loss of the noise and of FARM's defect, which stands in everywhere; base recipes' mask_weight
    is not FAST's."""
    model, given = configured(tiny_base, tiny_fast_config, mask_weight=10.0), batch()
    x0 = model.scale_factor * given["latent"]
    m, (t, eps) = latent_mask(given["mask"], (16, 16)), model.draw(given, x0)
    x_t, cond = model.schedule.q_sample(x0, t, eps), model.conditioning(given)
    anomaly = model.farm(x_t, m, t - 1, cond)
    seen = (1 - m) * x_t + m * model.schedule.q_sample(anomaly, t, eps)
    mse = torch.nn.functional.mse_loss
    assert torch.equal(model.loss(given)[0], mse(model.apply_model(seen, t - 1, cond), eps) + 5 * mse(anomaly, m * x0))


def test_without_farm_the_network_learns_from_the_real_defect_alone(
    tiny_base: Path, tiny_fast_config: dict[str, Any]
) -> None:
    model, given = configured(tiny_base, tiny_fast_config, use_farm=False), batch()
    assert {name.split(".")[0] for name in model.adapter_state()} == {"prompts"}
    assert not any(p.requires_grad for p in model.farm.parameters())
    assert model.auxiliary_modules() == []
    loss, parts = model.loss(given)
    x0 = model.scale_factor * given["latent"]
    t, eps = model.draw(given, x0)
    predicted = model.apply_model(model.schedule.q_sample(x0, t, eps), t - 1, model.conditioning(given))
    torch.testing.assert_close(loss, (predicted - eps).square().mean())
    assert set(parts) == {"loss_eps"}
    made = model.log_images(given, steps=3)["synthetic"]
    assert torch.isfinite(made).all()


def test_without_farm_the_artifact_makes_what_use_farm_false_makes(
    tiny_base: Path, tiny_fast_config: dict[str, Any], tiny_fast: FAST
) -> None:
    """Sampling is that of a FAST with FARM whose FARM is left out."""
    model, given = configured(tiny_base, tiny_fast_config, use_farm=False), batch()
    filled = []
    for each, options in ((model, {}), (tiny_fast, {"use_farm": False}), (tiny_fast, {})):
        x0, prompts = given["latent"], each.prompts(each.cond_stage_model, given["type"])
        mask, noise = latent_mask(given["mask"], (16, 16)), PairNoise([generator(i) for i in range(2)])

        def denoise(x: torch.Tensor, t: torch.Tensor, each: FAST = each, prompts: Any = prompts) -> torch.Tensor:
            return each.apply_model(x, t, prompts)

        place = SamplingInputs(mask, x0, prompts, x0, noise, "aias", 4, denoise, options)  # type: ignore[arg-type]
        with torch.no_grad():
            filled.append(each.fill(place))
    assert torch.equal(filled[0], filled[1])
    assert not torch.equal(filled[0], filled[2])


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
    assert {name.split(".")[0] for name in model.adapter_state()} == {"farm", "prompts", "model"}
    ids = {id(p) for p in model.trainable()}
    assert ids == {id(p) for p in model.parameters() if p.requires_grad}


def test_training_leaves_the_base_s_scale_factor_alone(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    """The artifact does not hold it, so synthesis scales by the base's."""
    params = {**tiny_fast_config["params"], "scale_by_std": True}
    model = FAST(types=TYPES, **params)
    model._trainer = SimpleNamespace(datamodule=SimpleNamespace(latent_std=lambda: 0.01), global_step=0)
    model.on_train_start()
    assert float(model.scale_factor) == 0.5
    assert not any("scale_factor" in name for name in model.adapter_state())


def test_a_resume_point_holds_no_frozen_weight(tiny_fast: FAST, tiny_base: Path) -> None:
    checkpoint: dict[str, Any] = {"state_dict": tiny_fast.state_dict()}
    tiny_fast.on_save_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"farm", "prompts"}
    saved = {k: v.clone() for k, v in checkpoint["state_dict"].items()}
    randomize(tiny_fast.farm, 77)
    loaded = {"state_dict": dict(saved)}
    tiny_fast.on_load_checkpoint(loaded)
    tiny_fast.load_state_dict(loaded["state_dict"], strict=True)
    for name, value in tiny_fast.adapter_state().items():
        assert torch.equal(value, saved[name])
    base = read_state_dict(tiny_base)
    for name, value in tiny_fast.model.state_dict().items():
        assert torch.equal(value, base[f"model.{name}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"farm": {"width": 3}}, "unknown config key width for model.params.farm"),
        ({"objective": "x0"}, "model.params.objective=x0 is unknown"),
        ({"real_share": 1.5}, "model.params.real_share=1.5 is no share"),
        ({"defect_share": -1}, "model.params.defect_share=-1 is no share"),
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
    save_safetensors(tiny_fast.adapter_state(), tmp_path / "fast-9.safetensors", metadata)
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
    for place, said in ((tmp_path, "no fast-<step>"), (tmp_path / "nowhere", "is not there; give the run")):
        with pytest.raises(UserError, match=said):
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
