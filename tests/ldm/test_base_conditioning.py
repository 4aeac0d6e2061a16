"""What lets words and hairlines act on the base: masks by pixels, the pooled prompt, the mask's share of the loss."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fast.data.tensors import latent_mask
from fast.stage import STAGE
from ldm.errors import UserError
from ldm.models.diffusion.ddpm import shared_mean
from ldm.modules.attention import Projected, Weighted
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from support.hybrid import UNET, base, batch


@pytest.mark.parametrize("detail", [1, 2, 4])
def test_a_mask_is_shown_by_sub_cells(detail: int) -> None:
    model = base()
    model.mask_detail = detail
    pixels = (np.random.default_rng(0).random((2, 1, 32, 48)) < 0.02).astype(np.uint8)
    shown = model.detailed_mask(torch.from_numpy(pixels), (8, 12))
    assert shown.shape == (2, detail**2, 8, 12)
    assert shown.dtype == torch.float32
    side = 4 // detail
    for b, row, col, i, j in np.ndindex(2, 8, 12, detail, detail):
        top, left = 4 * row + side * i, 4 * col + side * j
        expected = pixels[b, 0, top : top + side, left : left + side].any()
        assert bool(shown[b, detail * i + j, row, col]) == expected
    assert torch.equal(shown.amax(1, keepdim=True), latent_mask(torch.from_numpy(pixels), (8, 12)))


def test_a_hairline_keeps_its_place_within_its_cells() -> None:
    model = base()
    model.mask_detail = 4
    lines = torch.zeros(2, 1, 32, 32)
    lines[0, :, 8], lines[1, :, 11] = 1, 1
    assert torch.equal(*latent_mask(lines, (8, 8)).split(1))
    first, second = model.detailed_mask(lines, (8, 8))
    assert first[:4, 2].all()
    assert second[12:, 2].all()
    assert first.sum() == second.sum() == 32


def test_training_shows_the_detail_and_cells_stand_for_all_of_theirs() -> None:
    model, given = base(), batch()
    model.mask_detail = 2
    placed = model.placed(given, torch.zeros(4, 8, 16), given["latent"])["c_concat"][0]
    assert placed.shape == (4, 4 + 4, 8, 8)
    assert torch.equal(placed[:, :4], model.detailed_mask(given["mask"], (8, 8)))
    cells = torch.randint(2, (4, 1, 8, 8)).float()
    shown = model.with_place(torch.zeros(4, 8, 16), cells, given["latent"])["c_concat"][0]
    assert torch.equal(shown[:, :4], cells.expand(-1, 4, -1, -1))


@pytest.mark.parametrize("detail", [0, -1, 2.0, "2"])
def test_details_that_cannot_be(detail: object) -> None:
    with pytest.raises(UserError, match=r"mask_detail=.* is no whole number from 1"):
        base(mask_detail=detail)


# the pooled prompt


def pooled_network() -> UNetModel:
    torch.manual_seed(1)
    network = UNetModel(**UNET, pooled_context=True).eval()
    for p in network.parameters():
        if not p.any():
            p.data = 0.1 * torch.randn(p.shape)
    return network


@torch.no_grad()
def test_the_mean_of_the_prompt_stands_beside_the_time() -> None:
    network = pooled_network()
    assert network.context_emb is not None
    x, t, prompt = torch.randn(2, 9, 8, 8), torch.tensor([5, 700]), torch.randn(2, 6, 16)
    seen: list[Tensor] = []
    network.input_blocks[1][0].register_forward_pre_hook(lambda m, given: seen.append(given[1]))
    out = network(x, t, prompt)
    network.context_emb.requires_grad_(False)
    time_only = seen[0] - network.context_emb(prompt.mean(1))
    network(x, t, prompt[:, torch.randperm(6)])
    assert_close(seen[1], seen[0])
    network(x, t, prompt.flip(0))
    assert_close(seen[2] - network.context_emb(prompt.flip(0).mean(1)), time_only)
    projected = network.project(prompt)
    assert_close(network(x, t, projected), out, atol=1e-5, rtol=1e-5)
    halves = [network.project(row[None]) for row in prompt]
    assert_close(network(x, t, Projected.cat(halves)), out, atol=1e-5, rtol=1e-5)
    plain = Weighted(projected, torch.ones(2, 1, 8, 8), torch.ones(2, 6, dtype=torch.bool))
    assert_close(network(x, t, plain), out, atol=1e-5, rtol=1e-5)
    assert projected.to(torch.device("meta")).pooled.device.type == "meta"  # type: ignore[union-attr]


def test_a_pooled_prompt_needs_a_prompt() -> None:
    with pytest.raises(ValueError, match="needs a context"):
        pooled_network()(torch.randn(1, 9, 8, 8), torch.tensor([1]))
    without = {k: v for k, v in UNET.items() if k not in ("context_dim", "use_spatial_transformer")}
    with pytest.raises(UserError, match="pooled_context=true needs a context_dim"):
        UNetModel(**without, pooled_context=True)


# the loss


def test_a_pinhole_counts_like_a_defect_that_fills_half_the_image() -> None:
    error, mask = torch.rand(3, 4, 8, 8), torch.zeros(3, 1, 8, 8)
    mask[0, :, 2, 5], mask[1, :, :4] = 1, 1
    expected = 0.0
    for one, where in zip(error.mean(1).numpy(), mask[:, 0].numpy() > 0, strict=True):
        expected += 0.9 * (one[where].mean() if where.any() else 0) + 0.1 * one[~where].mean()
    assert_close(shared_mean(error, mask, 0.9), torch.tensor(expected / 3), atol=1e-6, rtol=1e-5)


def test_the_base_s_loss_takes_the_share() -> None:
    model, given = base(defect_share=0.7), batch()
    plain = base()
    x0 = given["latent"]
    t, noise = model.draw(given, x0)
    out = torch.randn(4, 4, 8, 8)
    for network in (model, plain):
        network.network = lambda *_: out  # type: ignore[method-assign]
    mask = latent_mask(given["mask"], (8, 8))
    expected = shared_mean((out - model._target(x0, t, noise)).square(), mask, 0.7)
    assert_close(model.loss(given)[0], expected)
    assert not torch.isclose(plain.loss(given)[0], expected)
    for wrong in ({"defect_share": 1.5}, {"defect_share": 0.5, "mask_weight": 2.0}):
        with pytest.raises(UserError, match="defect_share="):
            base(**wrong)


def test_stage_s_second_branch_learns_from_the_mask_that_it_is_shown(tiny_fast_config: dict[str, Any]) -> None:
    params = {k: v for k, v in tiny_fast_config["params"].items() if k not in ("farm", "aias")}
    params["unet_config"]["params"]["in_channels"] = 4 + 4 + 4
    params |= {"conditioning_key": "hybrid", "mask_detail": 2, "types": ["a/b"], "drop_prompt": 0.0}
    model = STAGE(**params)
    seen: list[Tensor] = []
    model.model.diffusion_model.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 21] = 1
    model.loss(
        {"latent": torch.randn(1, 4, 16, 16), "mask": mask, "type": torch.tensor([0]), "seed": torch.tensor([1])}
    )
    aware, only = (x[:, 4:8] for x in seen)
    assert torch.equal(aware, model.detailed_mask(mask, (16, 16)))
    assert torch.equal(only, aware)
    assert not seen[1][:, 8:].any()
