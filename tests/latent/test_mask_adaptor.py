"""The mask adaptor of FAST's release: its layers, where it is asked, and that it comes back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fast.artifact import find_artifact, load_model
from fast.data.tensors import latent_mask
from fast.latent.adaptor import FAST_WIDTHS, MGA
from fast.latent.prompted import SamplingInputs
from fast.model import FAST
from fast.synthesis.engine import Engine
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.rng import PairNoise, generator
from support.batches import batch
from support.synthesis import plain_recipe
from support.tiny import TYPES, randomize


class Watched(nn.Module):
    """An adaptor that notes what it is given and answers with a multiple of the prediction, less inside the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, prediction: Tensor, mask: Tensor) -> Tensor:
        self.calls.append((prediction.detach().clone(), mask.clone()))
        return prediction * (0.9 - 0.2 * mask)


def made(base: Path, section: dict[str, Any], adaptor: Any, **options: Any) -> FAST:
    model = FAST(types=TYPES, ckpt_path=str(base), **{**section["params"], "mask_adaptor": adaptor, **options})
    for part in (model.farm, model.prompts):
        randomize(part, 2)
    return model


def test_the_layers_are_the_releases(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    adaptor = made(tiny_base, tiny_fast_config, True).mask_adaptor
    assert adaptor is not None
    assert sum(p.numel() for p in adaptor.parameters()) == 1_113_092
    kernels = [tuple(p.shape) for p in adaptor.parameters() if p.dim() == 4]
    assert kernels == [
        (64, 8, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (256, 256, 3, 3), (64, 256, 3, 3), (4, 64, 1, 1),
    ]  # fmt: skip
    assert sum(isinstance(m, nn.BatchNorm2d) for m in adaptor.modules()) == 5
    x = torch.randn(2, 4, 7, 5, generator=generator(1))
    mask = torch.zeros(2, 1, 7, 5)
    adaptor.eval()
    assert adaptor(x, mask).shape == x.shape
    assert not torch.equal(adaptor(x, mask), adaptor(x, mask + 1))
    torch.testing.assert_close(adaptor(x, mask)[:1], adaptor(x[:1], mask[:1]))


def test_it_is_off_by_default(tiny_fast: FAST) -> None:
    assert tiny_fast.mask_adaptor is None
    assert not any("adaptor" in name for name in tiny_fast.adapter_state())


@pytest.mark.parametrize(("parameterization", "objective"), [("eps", "eps"), ("v", "eps"), ("v", "network")])
def test_the_loss_is_of_what_it_answers(
    tiny_base: Path, tiny_fast_config: dict[str, Any], parameterization: str, objective: str
) -> None:
    options = {"parameterization": parameterization, "objective": objective, "real_share": 1.0}
    model, given = made(tiny_base, tiny_fast_config, True, **options), batch()
    model.mask_adaptor = watched = Watched()  # type: ignore[assignment]
    loss = model.loss(given)[1]["loss_eps"]
    x0 = model.scale_factor * given["latent"]
    t, eps = model.draw(given, x0)
    m = latent_mask(given["mask"], (16, 16)).float()
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    x_t = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    said = model.network(x_t, t - 1, model.prompts(model.cond_stage_model, given["type"]))
    answer = said * (0.9 - 0.2 * m)
    v = bar.sqrt() * eps - (1 - bar).sqrt() * x0
    found, target = answer, (eps if parameterization == "eps" else v)
    if (parameterization, objective) == ("v", "eps"):
        found, target = bar.sqrt() * answer + (1 - bar).sqrt() * x_t, eps
    torch.testing.assert_close(loss, (found - target).square().mean(), rtol=1e-4, atol=1e-5)
    ((seen, mask),) = watched.calls
    torch.testing.assert_close(seen, said, rtol=1e-4, atol=1e-4)
    assert torch.equal(mask, m)


def test_it_is_asked_at_every_evaluation(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    model = made(tiny_base, tiny_fast_config, True)
    model.mask_adaptor = watched = Watched()  # type: ignore[assignment]
    answers: list[Tensor] = []

    def denoise(x: Tensor, t: Tensor, **_: Any) -> Tensor:
        answers.append(0.3 * x + t[:, None, None, None] / 1000)
        return answers[-1]

    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 3:9, 4:12] = 1
    background = torch.randn(1, 4, 16, 16, generator=generator(2))
    prompts = model.prompts(model.cond_stage_model, torch.tensor([0]))
    noise = PairNoise([generator(3)])
    model.fill(SamplingInputs(mask, background, prompts, background, noise, "aias", 5, denoise, {}))
    assert len(watched.calls) == len(answers) == 5
    for (seen, shown), eps in zip(watched.calls, answers, strict=True):
        assert torch.equal(seen, eps)
        assert torch.equal(shown, mask)


def test_an_artifact_keeps_it(tiny_base: Path, tiny_fast_config: dict[str, Any], tmp_path: Path) -> None:
    params = {**tiny_fast_config["params"], "mask_adaptor": {"widths": [8, 8]}}
    model = made(tiny_base, tiny_fast_config, {"widths": [8, 8]})
    assert isinstance(model.mask_adaptor, MGA)
    randomize(model.mask_adaptor, 3)
    model.train()
    model.loss(batch())[0].backward()  # its running statistics move
    assert all(p.grad is not None and p.grad.any() for p in model.mask_adaptor.parameters() if p.dim() == 4)
    model.eval()
    config = {"model": {**tiny_fast_config, "params": params}}
    metadata = {"step": "1", "config": json.dumps(config), "split": "s", **model.artifact_metadata()}
    save_safetensors(model.adapter_state(), tmp_path / "fast-1.safetensors", metadata)
    back = load_model(find_artifact(tmp_path))
    assert isinstance(back, FAST)
    assert back.mask_adaptor is not None
    own, other = model.mask_adaptor.state_dict(), back.mask_adaptor.state_dict()
    assert list(own) == list(other)
    assert any(own[k].any() for k in own if k.endswith("running_mean"))
    assert all(torch.equal(own[k], other[k]) for k in own)
    assert len(model.auxiliary_modules()) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_asks_it_too(tiny_base: Path, tiny_fast_config: dict[str, Any], precision: str) -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 16:50] = 1
    pictures = []
    for adaptor, answer in ((False, 0.0), ({"widths": [8], "residual": True}, 0.0), ({"widths": [8]}, 1.0)):
        model = made(tiny_base, tiny_fast_config, adaptor)
        if model.mask_adaptor is not None:
            model.mask_adaptor.out.weight.data.fill_(answer)
        engine = Engine(model, plain_recipe(64, steps=3, precision=precision))
        pictures.append(engine.generate([image], [mask], [0], [1])[0].astype(int))
    plain, identity, other = pictures
    assert abs(identity - plain).max() <= (0 if precision == "fp32" else 6)
    assert abs(other - plain).mean() > 1


def test_counterfeits_go_the_same_path(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    image = np.random.default_rng(0).integers(90, 160, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 16:50] = 1
    model = made(tiny_base, tiny_fast_config, {"widths": [8]})
    assert model.mask_adaptor is not None
    model.mask_adaptor.out.weight.data.fill_(1.0)
    engine = Engine(model, plain_recipe(64, steps=3))
    watched: list[Tensor] = []
    model.mask_adaptor.register_forward_pre_hook(lambda _, given: watched.append(given[1]))
    evaluations: list[int] = []
    model.model.register_forward_pre_hook(lambda *_: evaluations.append(1))
    made_so = engine.counterfeit([image], [mask], [1], strength=0.5)[0]
    assert len(watched) == len(evaluations) > 0
    assert all(torch.equal(seen, watched[0]) for seen in watched)
    plain = Engine(made(tiny_base, tiny_fast_config, False), plain_recipe(64, steps=3))
    assert (made_so != plain.counterfeit([image], [mask], [1], strength=0.5)[0]).any()


def test_slips_are_named(tiny_fast_config: dict[str, Any]) -> None:
    for given, message in ((3, "mask_adaptor=3: give true, false"), ({"width": [8]}, "unknown config key width")):
        with pytest.raises(UserError, match=message):
            FAST(types=TYPES, **{**tiny_fast_config["params"], "mask_adaptor": given})
    assert FAST_WIDTHS == (64, 128, 256, 256, 64)
