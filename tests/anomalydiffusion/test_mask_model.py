"""AnomalyDiffusion's mask model: what it trains on, how it samples, which masks are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fast.anomalydiffusion.mask_model import LearnedMasks, MaskModel, acceptable
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError
from ldm.models.diffusion.ddpm import LatentDiffusion
from ldm.rng import PairNoise
from support.tiny import TYPES, randomize


@pytest.fixture
def section(tiny_fast_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """`model:` of a mask model on a tiny hybrid base that predicts v."""
    params = {k: v for k, v in tiny_fast_config["params"].items() if k not in ("farm", "aias", "prompt_tokens")}
    params |= {"conditioning_key": "hybrid", "parameterization": "v"}
    params["unet_config"]["params"]["in_channels"] = 4 + 1 + 4
    base = LatentDiffusion(**params)
    randomize(base, 1)
    save_safetensors(base.artifact()[1], tmp_path / "base.safetensors", {})
    params |= {"types": TYPES, "ckpt_path": str(tmp_path / "base.safetensors"), "steps": 2, "lora": {"rank": 2}}
    return {"target": "fast.anomalydiffusion.mask_model.MaskModel", "params": params}


def built(section: dict[str, Any], **more: Any) -> MaskModel:
    model = MaskModel(**section["params"], **more)
    randomize(model.prompts, 2)
    assert model.lora is not None
    randomize(model.lora, 3)
    return model


def batch() -> dict[str, Any]:
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, 4:20, 8:16] = 1
    return {"mask": mask, "type": torch.tensor([0, 5]), "seed": torch.tensor([3, 4])}


def seen_by(model: MaskModel) -> list[tuple[Tensor, Tensor]]:
    """What the U-Net is given from now on: its input, and the prompt."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = lambda m, args, options: seen.append((args[0].detach(), options["context"].detach()))  # noqa: E731
    model.model.diffusion_model.register_forward_pre_hook(hook, with_kwargs=True)
    return seen


def test_it_learns_masks_as_pictures_with_nothing_known(section: dict[str, Any]) -> None:
    model, given = built(section), batch()
    seen = seen_by(model)
    loss, _ = model.loss(given)
    picture = torch.where(given["mask"].bool(), 1.0, -1.0).repeat(1, 3, 1, 1)
    x0 = model.scale_factor * model.first_stage_mean(picture)
    t, eps = model.draw(given, x0)
    assert_close(seen[0][0][:, :4], model.schedule.q_sample(x0, t, eps))
    assert torch.equal(seen[0][0][:, 4:5], torch.ones(2, 1, 8, 8))
    assert torch.equal(seen[0][0][:, 5:], torch.zeros(2, 4, 8, 8))
    bar = torch.tensor([model.schedule.alpha_bar(int(n)) for n in t])[:, None, None, None].float()
    v = bar.sqrt() * eps - (1 - bar).sqrt() * x0
    out = model.network(model.schedule.q_sample(x0, t, eps), t - 1, model.placed({}, model.conditioning(given), x0))
    assert_close(loss, (out - v).square().mean())


def test_the_vectors_and_the_adapters_learn(section: dict[str, Any]) -> None:
    model = built(section).train()
    model.loss(batch())[0].backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"prompts", "lora"}
    assert model.prompts.vectors.shape == (len(TYPES), 16, 32)


def test_some_prompts_are_dropped_by_seed(section: dict[str, Any]) -> None:
    model = built(section, drop_prompt=0.5)
    given = {"type": torch.zeros(32, dtype=torch.long), "seed": torch.arange(32)}
    prompts, empty = model.conditioning(given), model.empty_prompt(1)
    dropped = (prompts == empty).flatten(1).all(dim=1)
    assert 6 < int(dropped.sum()) < 26
    assert torch.equal(prompts[~dropped], super(MaskModel, model).conditioning(given)[~dropped])


def test_guidance_goes_away_from_the_empty_prompt(section: dict[str, Any]) -> None:
    model = built(section, guidance=3.0)
    seen, like, types = seen_by(model), torch.zeros(1, 4, 8, 8), torch.tensor([5])
    noise = [torch.Generator().manual_seed(1)]
    model.sample(types, like, PairNoise(noise))
    x, context = seen[0]
    assert torch.equal(x[0], x[1])
    assert torch.equal(context[:1], model.empty_prompt(1))
    assert torch.equal(context[1:], model.prompts(model.cond_stage_model, types))
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("rows", "columns", "kept"),
    [
        (slice(4, 8), slice(4, 8), True),
        (slice(0, 0), slice(0, 0), False),
        (slice(0, 5), slice(3, 7), True),  # 4 of 12 on the top border: a third, not more
        (slice(0, 5), slice(3, 8), False),
        (slice(9, 12), slice(0, 5), False),
        (slice(3, 8), slice(0, 2), False),
        (slice(3, 8), slice(11, 12), False),
        (slice(0, 4), slice(0, 4), True),
    ],
)
def test_which_masks_are_kept(rows: slice, columns: slice, kept: bool) -> None:
    mask = np.zeros((12, 12), np.uint8)
    mask[rows, columns] = 1
    assert acceptable(mask) == kept


@pytest.fixture
def run(section: dict[str, Any], tmp_path: Path) -> Path:
    model = built(section)
    config = {"model": section, "data": {"target": "fast.data.module.DefectData", "params": {"size": 32}}}
    metadata = {"step": "2", "config": json.dumps(config), "split": "s", **model.artifact_metadata()}
    save_safetensors(model.artifact()[1], tmp_path / "run" / "maskmodel-2.safetensors", metadata)
    return tmp_path / "run"


def test_masks_are_drawn_from_an_artifact(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = LearnedMasks(run)
    assert masks.types == TYPES
    pictures = [np.full((32, 32), -1.0), np.full((32, 32), 1.0), np.full((32, 32), 0.79)]
    pictures.append(np.where(np.indices((32, 32)).max(axis=0) < 8, 0.81, -1.0))
    asked: list[int] = []

    def sample(types: Tensor, like: Tensor, noise: Any, steps: int | None = None) -> Tensor:
        asked.append(int(types))
        return torch.from_numpy(pictures[len(asked) - 1])[None]

    monkeypatch.setattr(masks.model, "sample", sample)
    mask = masks.draw(np.random.default_rng(0), TYPES[5], (64, 128))
    assert asked == [5] * 4
    assert (masks.drawn, masks.rejected) == (4, 3)
    assert mask.dtype == np.uint8
    assert mask.shape == (64, 128)
    assert mask[:15, :31].all()
    assert mask.sum() == mask[:17, :33].sum()


def test_a_draw_is_a_function_of_its_rng(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny random base draws no mask worth keeping, so everything that marks a pixel is kept here."""
    monkeypatch.setattr("fast.anomalydiffusion.mask_model.acceptable", lambda mask: True)
    monkeypatch.setattr("fast.anomalydiffusion.mask_model.THRESHOLD", 0.0)
    masks = LearnedMasks(run)
    first, again, other, kind = (
        masks.draw(np.random.default_rng(seed), TYPES[i], (32, 32)) for seed, i in ((1, 0), (1, 0), (2, 0), (1, 5))
    )
    assert np.array_equal(first, again)
    assert (first != other).any()
    assert (first != kind).any()


def test_what_cannot_be_drawn_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = LearnedMasks(run)
    with pytest.raises(UserError, match=r"does not know the type 'wood/rot'"):
        masks.draw(np.random.default_rng(0), "wood/rot", (8, 8))
    monkeypatch.setattr(masks.model, "sample", lambda *given: torch.zeros(1, 32, 32))
    with pytest.raises(UserError, match="50 masks in a row for wood/hole"):
        masks.draw(np.random.default_rng(0), "wood/hole", (8, 8))


def test_options_that_do_not_fit(section: dict[str, Any]) -> None:
    for wrong, message in (({"thaw_unet": True}, "leave lora out"), ({"drop_prompt": 1.0}, "drop_prompt=1.0")):
        with pytest.raises(UserError, match=message):
            MaskModel(**{**section["params"], **wrong})
