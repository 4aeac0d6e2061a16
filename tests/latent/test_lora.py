"""Low-rank adapters: what they change, what they cost once merged, and that an artifact keeps them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fast.artifact import find_artifact, load_model
from fast.latent.lora import Adapters
from fast.model import FAST
from fast.synthesis.engine import Engine
from ldm.checkpoint import read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from support.batches import batch
from support.images import mask, picture
from support.synthesis import plain_recipe
from support.tiny import TYPES, randomize

SIDE = 32


@pytest.fixture
def adapted(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> FAST:
    """FAST whose adapters say something."""
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), lora={"rank": 2}, **tiny_fast_config["params"])
    for part in (model.farm, model.prompts, model.lora):
        randomize(part, 2)
    return model


def test_at_the_start_nothing_changes(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    plain = FAST(types=TYPES, ckpt_path=str(tiny_base), **tiny_fast_config["params"])
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), lora={"rank": 2}, **tiny_fast_config["params"])
    model.farm.load_state_dict(plain.farm.state_dict())
    assert torch.equal(model.loss(batch())[0], plain.loss(batch())[0])


def test_they_sit_on_attention_and_convolutions(adapted: FAST, tiny_fast: FAST) -> None:
    assert adapted.lora is not None
    names = {name.replace("/", ".") for name in adapted.lora.by_layer}
    unet = adapted.model.diffusion_model
    assert {type(unet.get_submodule(n)) for n in names} == {nn.Linear, nn.Conv2d}
    assert {n.rsplit(".", 1)[-1] for n in names} >= {"to_q", "to_k", "to_v", "proj_in", "proj_out"}
    assert not any("emb" in n for n in names)
    only = Adapters(tiny_fast.model.diffusion_model, rank=2, conv=False)
    assert {n.replace("/", ".") for n in only.by_layer} < names
    assert not any("in_layers" in n for n in only.by_layer)
    assert set(adapted.model.state_dict()) == set(tiny_fast.model.state_dict()), "the base's names stay"


def test_they_train_and_the_base_does_not(adapted: FAST) -> None:
    adapted.train()
    before = {k: v.clone() for k, v in adapted.model.state_dict().items()}
    adapted.loss(batch())[0].backward()
    assert adapted.lora is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.lora.parameters())
    assert all(p.grad is None for p in adapted.model.parameters())
    adapted.configure_optimizers().step()
    assert all(torch.equal(v, before[k]) for k, v in adapted.model.state_dict().items())
    ids = {id(p) for p in adapted.trainable()}
    assert ids == {id(p) for p in adapted.parameters() if p.requires_grad}


def test_computed_twice_they_learn_the_same(adapted: FAST) -> None:
    gradients = []
    for twice in (False, True):
        adapted.set_checkpointing(twice)
        adapted.zero_grad()
        adapted.loss(batch())[0].backward()
        assert adapted.lora is not None
        gradients.append([p.grad.clone() for p in adapted.lora.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(map(torch.equal, *gradients))


def test_merged_they_answer_the_same(adapted: FAST, tiny_fast: FAST) -> None:
    randomize(tiny_fast.farm, 2)
    with torch.no_grad():
        apart, plain = adapted.loss(batch())[0], tiny_fast.loss(batch())[0]
        adapted.merge_adapters()
        merged = adapted.loss(batch())[0]
    torch.testing.assert_close(merged, apart)
    assert abs(float(plain - apart)) > 1e-3, "adapters that say nothing would prove nothing"
    assert adapted.lora is None
    assert not any(m._forward_hooks for m in adapted.model.modules())
    adapted.merge_adapters()


@pytest.mark.parametrize("conv", [nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Conv2d(6, 8, 1), nn.Linear(6, 8)])
def test_the_delta_is_what_the_adapter_adds(conv: nn.Module) -> None:
    class Net(UNetModel):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.layer = conv

    net = Net()
    if isinstance(conv, nn.Linear):
        with pytest.raises(UserError, match="leaves no layer"):
            Adapters(net, rank=2)  # a linear layer outside attention
        return
    adapters = Adapters(net, rank=2, alpha=6)
    randomize(adapters, 3)
    x = torch.randn(2, 6, 7, 5)
    delta = adapters.by_layer["layer"].delta()
    expected = nn.functional.conv2d(x, conv.weight + delta, conv.bias, conv.stride, conv.padding)
    torch.testing.assert_close(net.layer(x), expected)
    assert torch.linalg.matrix_rank(delta.flatten(1)) == 2
    assert adapters.by_layer["layer"].scale == 3


def test_a_copy_has_its_own(adapted: FAST) -> None:
    other = copy.deepcopy(adapted)
    with torch.no_grad():
        before = adapted.loss(batch())[0]
        randomize(other.lora, 9)
        assert torch.equal(adapted.loss(batch())[0], before)
        assert not torch.equal(other.loss(batch())[0], before)
        apart = other.loss(batch())[0]
        other.merge_adapters()
        torch.testing.assert_close(other.loss(batch())[0], apart)
        assert torch.equal(adapted.loss(batch())[0], before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_artifact_keeps_them_and_the_engine_merges_them(
    adapted: FAST, tiny_fast_config: dict[str, Any], tmp_path: Path, precision: str
) -> None:
    config = {"model": {**tiny_fast_config, "params": {**tiny_fast_config["params"], "lora": {"rank": 2}}}}
    metadata = {"step": "1", "config": json.dumps(config), "split": "s", **adapted.artifact_metadata()}
    save_safetensors(adapted.adapter_state(), tmp_path / "fast-1.safetensors", metadata)
    assert {k.split(".")[0] for k in read_state_dict(tmp_path / "fast-1.safetensors")} == {"farm", "prompts", "lora"}
    dtype = None if precision == "fp32" else torch.bfloat16
    cache = None if precision == "fp32" else tmp_path / "cache"
    back = load_model(find_artifact(tmp_path), dtype=dtype, cache=cache)
    if dtype is None:
        assert torch.equal(back.loss(batch())[0], adapted.loss(batch())[0])
    else:
        again = load_model(find_artifact(tmp_path), dtype=dtype, cache=cache)
        assert torch.equal(again.loss(batch())[0], back.loss(batch())[0])
    engine = Engine(back, plain_recipe(SIDE, steps=3, precision=precision))
    adapted.merge_adapters()
    expected = Engine(adapted, plain_recipe(SIDE, steps=3, precision=precision))
    made = [e.generate([picture(1)], [mask()], [0], [1])[0].astype(int) for e in (engine, expected)]
    # A base that is in bfloat16 already is rounded before the adapters come to it, and once more after.
    assert abs(made[0] - made[1]).mean() <= (0 if precision == "fp32" else 3)
    assert back.lora is None


def test_frozen_weights_in_bfloat16(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    params = {**tiny_fast_config["params"], "frozen_precision": "bf16", "lora": 2}
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), **params)
    randomize(model.lora, 2)
    with torch.autocast("cpu", torch.bfloat16):
        model.loss(batch())[0].backward()
    assert model.lora is not None
    assert {p.grad.dtype for p in model.lora.parameters() if p.grad is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": {"rank": 2.5}}, r"lora\.rank=2\.5 is not a whole number"),
        ({"lora": -1}, r"lora\.rank=-1 is not a whole number"),
        ({"lora": {"rank": 64}}, r"lora\.rank=64 leaves no layer"),
        ({"lora": {"ranks": 2}}, "unknown config key ranks for model.params.lora"),
        ({"lora": {"rank": 2}, "thaw_unet": True}, "leave lora out, or thaw_unet"),
    ],
)
def test_slips_are_named(tiny_fast_config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FAST(types=TYPES, **{**tiny_fast_config["params"], **change})


@pytest.mark.parametrize("none", [0, None, {}, {"rank": 0}])
def test_none_is_none(tiny_fast_config: dict[str, Any], none: Any) -> None:
    assert FAST(types=TYPES, **{**tiny_fast_config["params"], "lora": none}).lora is None
