"""FAST on a base that sees the defect's place: what its network is given, in training and in every way of sampling."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fast.synthesis.prepared
from fast.artifact import find_artifact, load_model
from fast.model import FAST
from fast.synthesis.engine import Engine
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.modules.packed import can_pack, has_int8
from support.batches import batch
from support.images import mask, picture
from support.synthesis import plain_recipe
from support.tiny import TYPES, randomize

SIDE = 32


@pytest.fixture
def section(tiny_fast_config: dict[str, Any]) -> dict[str, Any]:
    """`model:` of FAST on a tiny hybrid base that predicts v."""
    params = tiny_fast_config["params"]
    params |= {"conditioning_key": "hybrid", "parameterization": "v"}
    params["unet_config"]["params"]["in_channels"] = 4 + 1 + 4
    return tiny_fast_config


@pytest.fixture
def model(section: dict[str, Any], tmp_path: Path) -> FAST:
    own = ("farm", "prompt_tokens", "aias")
    base = LatentDiffusion(**{k: v for k, v in section["params"].items() if k not in own})
    randomize(base, 1)
    save_safetensors(base.artifact()[1], tmp_path / "base.safetensors", {})
    section["params"] |= {"types": TYPES, "ckpt_path": str(tmp_path / "base.safetensors")}
    made = FAST(**section["params"])
    randomize(made.farm, 2)
    randomize(made.prompts, 2)
    return made


def seen_by(model: FAST) -> list[Tensor]:
    """What the U-Net is given from now on, call by call: (B,9,h,w), the place behind the latent."""
    seen: list[Tensor] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda m, given: seen.append(given[0].detach().clone()))
    return seen


def test_training_shows_the_place_and_what_lies_around(model: FAST) -> None:
    seen, given = seen_by(model), batch()
    model.loss(given)[0].backward()
    m = torch.nn.functional.max_pool2d(given["mask"], 4)
    assert torch.equal(seen[0][:, 4:5], m)
    assert torch.equal(seen[0][:, 5:], (1 - m) * model.scale_factor * given["latent"])
    assert model.prompts.vectors.grad is not None
    assert (model.prompts.vectors.grad[[0, 5]].abs().sum(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_a_known_twin_is_shown_unless_hidden(model: FAST, hidden: float) -> None:
    model.hide_known = hidden
    seen, given = seen_by(model), batch()
    given["normal_latent"] = given["latent"] + 1
    model.loss(given)
    m, twin = seen[0][:, 4:5], model.scale_factor * given["normal_latent"]
    assert torch.equal(seen[0][:, 5:], (1 - hidden * m) * twin)


def test_the_sample_grid_is_made(model: FAST) -> None:
    seen = seen_by(model)
    rows = model.log_images(batch(), steps=3)
    assert rows["synthetic"].shape == (2, 3, 64, 64)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("known", "sampler"), [("full", "aias"), ("around", "aias"), ("full", "ddim"), ("full", "plms")]
)
def test_the_engine_shows_the_normal_picture(model: FAST, known: str, sampler: str) -> None:
    model.known = known
    seen = seen_by(model)
    engine = Engine(model, plain_recipe(SIDE, steps=3, sampler=sampler))
    seen.clear()
    normals = [picture(1), picture(2)]
    engine.generate(normals, [mask(), mask()], [0, 5], [1, 2])
    background = engine._background(normals, [None, None])
    cells = torch.nn.functional.max_pool2d(torch.from_numpy(mask())[None, None].float(), 4).expand(2, -1, -1, -1)
    assert len(seen) >= 3
    for x in seen:
        assert torch.equal(x[:, 4:5], cells)
        assert torch.equal(x[:, 5:], background * (1 - cells) if known == "around" else background)


def test_the_place_decides(model: FAST) -> None:
    """The same noise and FARM; only what is known under the mask differs."""
    engine = Engine(model, plain_recipe(SIDE, steps=3))
    full = engine.generate([picture(1)], [mask()], [0], [1])[0]
    engine.model.known = "around"
    around = engine.generate([picture(1)], [mask()], [0], [1])[0]
    assert (full != around).any()


@pytest.mark.parametrize("reuse", [1, 2])
def test_each_tile_sees_its_own_part_of_the_place(model: FAST, reuse: int) -> None:
    engine = Engine(model, plain_recipe(None, steps=2, max_window=16, reuse=reuse))
    seen: list[Tensor] = []
    engine.unet.register_forward_pre_hook(lambda m, given: seen.append(given[0].clone()))
    engine.generate([picture(1)], [mask()], [0], [1])
    background = engine._background([picture(1)], [None])
    cells = torch.nn.functional.max_pool2d(torch.from_numpy(mask())[None, None].float(), 4)
    place = torch.cat([cells, background], dim=1)
    parts = [place[..., y : y + 4, x : x + 4] for y in (0, 2, 4) for x in (0, 2, 4)]
    assert len(seen) == 2 * len(parts)
    assert all(torch.equal(x[:, 4:], part) for x, part in zip(seen, parts * 2, strict=True))


def test_prompts_are_projected_once(model: FAST) -> None:
    engine = Engine(model, plain_recipe(SIDE, steps=2))
    assert all(keys is not None for keys in engine.prepared.keys)


PRECISIONS = ["fp32", "bf16", pytest.param("int8", marks=pytest.mark.skipif(not has_int8(), reason="needs VNNI"))]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_packed_layers_make_the_same_pictures(model: FAST, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_pack(torch.bfloat16):
        pytest.skip("this CPU has no packed kernels for bfloat16")
    plain = copy.deepcopy(model)
    packed = Engine(model, plain_recipe(SIDE, steps=3, precision=precision))
    assert any("Packed" in type(m).__name__ for m in packed.unet.modules())
    monkeypatch.setattr(fast.synthesis.prepared, "can_pack", lambda dtype: False)
    unpacked = Engine(plain, plain_recipe(SIDE, steps=3, precision="fp32"))
    made = [e.generate([picture(1)], [mask()], [0], [1])[0].astype(int) for e in (packed, unpacked)]
    assert np.abs(made[0] - made[1])[mask() == 1].mean() < {"fp32": 0.1, "bf16": 3, "int8": 5}[precision]


def test_an_artifact_on_it_comes_back(model: FAST, section: dict[str, Any], tmp_path: Path) -> None:
    metadata = {"step": "2", "config": json.dumps({"model": section}), "split": "s", **model.artifact_metadata()}
    save_safetensors(model.adapter_state(), tmp_path / "fast-2.safetensors", metadata)
    back = load_model(find_artifact(tmp_path))
    torch.testing.assert_close(back.loss(batch())[0], model.loss(batch())[0], rtol=0, atol=0)


def test_a_base_without_a_place_is_given_none(tiny_fast: FAST) -> None:
    engine = Engine(tiny_fast, plain_recipe(SIDE, steps=2))
    seen: list[Tensor] = []
    engine.unet.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    engine.generate([picture(1)], [mask()], [0], [1])
    assert {x.shape[1] for x in seen} == {4}


def test_what_is_known_is_one_of_two(section: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="known=half is unknown; use full or around"):
        FAST(**{**section["params"], "types": TYPES, "known": "half"})


@pytest.mark.parametrize("known", ["full", "around"])
def test_farm_sees_what_the_network_sees(section: dict[str, Any], model: FAST, known: str) -> None:
    section["params"]["farm"] = {**section["params"]["farm"], "sees_known": True}
    section["params"]["known"] = known
    sees = FAST(**section["params"])
    randomize(sees.farm, 2)
    shown: list[Tensor] = []
    sees.farm.register_forward_pre_hook(lambda m, given: shown.append(given[4].detach().clone()))
    seen, given = seen_by(sees), batch()
    sees.loss(given)
    assert torch.equal(shown[0], seen[0][:, 5:])
    sees.log_images(given)
    engine = Engine(sees, plain_recipe(steps=2))
    shown.clear()
    engine.generate([picture(0, SIDE, SIDE)], [mask(SIDE, SIDE)], [0], [0])
    background = engine._background([picture(0, SIDE, SIDE)], [None])
    cells = torch.nn.functional.max_pool2d(torch.from_numpy(mask(SIDE, SIDE)).float()[None, None], 4)
    assert shown
    assert torch.allclose(shown[0], background if known == "full" else (1 - cells) * background)


def test_a_farm_that_sees_the_picture_needs_such_a_base(tiny_fast_config: dict[str, Any], tiny_base: Path) -> None:
    params = {**tiny_fast_config["params"], "farm": {"base_width": 8, "sees_known": True}}
    with pytest.raises(UserError, match=r"farm\.sees_known"):
        FAST(types=TYPES, ckpt_path=str(tiny_base), **params)
