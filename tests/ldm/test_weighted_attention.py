"""Attention whose scores or map are weighted by cell: a 4 x 4 grid worked out in numpy, and what must not change."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ldm.models.diffusion.wrapper import DiffusionWrapper
from ldm.modules.attention import CrossAttention, Projected, Weighted
from support.prompted_unet import PROMPTS, T, X, noise, prompted

COLUMNS = torch.tensor([False, True, True, False, False])
# A latent of 8 x 8 cells: each layer cell of 4 x 4 stands for four of them, and takes their mean.
FINE = torch.linspace(0.5, 2.0, 64).reshape(1, 1, 8, 8)


def by_hand(layer: CrossAttention, x: np.ndarray, context: np.ndarray, form: str) -> np.ndarray:
    """One head's attention of 16 cells to 5 tokens, written out."""
    q, k, v = (part.weight.detach().numpy() for part in (layer.to_q, layer.to_k, layer.to_v))
    scores = (x @ q.T) @ (context @ k.T).T / np.sqrt(q.shape[0])
    means = FINE[0, 0].numpy().reshape(4, 2, 4, 2).mean(axis=(1, 3)).reshape(16, 1)
    factor = np.where(COLUMNS.numpy()[None], means, 1.0)
    if form == "scores":
        scores = scores * factor
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    seen = e / e.sum(axis=1, keepdims=True)
    if form == "map":
        seen = seen * factor
    out = layer.to_out[0]
    return seen @ (context @ v.T) @ out.weight.detach().numpy().T + out.bias.detach().numpy()


@torch.no_grad()
@pytest.mark.parametrize("form", ["scores", "map"])
def test_a_grid_by_hand(form: str) -> None:
    torch.manual_seed(0)
    layer = CrossAttention(6, 7, heads=1, dim_head=4)
    x, context = noise(1, 16, 6), 3 * noise(1, 5, 7, seed=1)
    out = layer(x, Weighted(context, FINE, COLUMNS[None], form))
    expected = by_hand(layer, x[0].numpy(), context[0].numpy(), form)
    assert_close(out[0].numpy(), expected.astype(np.float32), atol=1e-6, rtol=1e-5)
    assert not np.allclose(expected, layer(x, context)[0].numpy(), atol=1e-3)
    projected = Weighted(Projected([layer.project(context)]), FINE, COLUMNS[None], form)
    assert torch.equal(layer(x, projected), out)


@torch.no_grad()
@pytest.mark.parametrize("form", ["scores", "map"])
def test_weights_of_one_and_no_columns_change_nothing(form: str) -> None:
    unet = prompted()
    plain, some = unet(X, T, context=PROMPTS), torch.zeros(3, 9, dtype=torch.bool)
    some[:, 2:5] = True
    none, ones, strong = torch.zeros_like(some), torch.ones(3, 1, 8, 8), 3 * torch.ones(3, 1, 8, 8)
    assert_close(unet(X, T, context=Weighted(PROMPTS, ones, some, form)), plain, atol=1e-5, rtol=1e-5)
    assert_close(unet(X, T, context=Weighted(PROMPTS, strong, none, form)), plain, atol=1e-5, rtol=1e-5)
    assert (unet(X, T, context=Weighted(PROMPTS, strong, some, form)) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_each_row_has_its_own_weights_and_columns() -> None:
    unet, some = prompted(), torch.zeros(3, 9, dtype=torch.bool)
    some[1, 4] = True
    weights = 3 * torch.ones(3, 1, 8, 8)
    plain, weighted = unet(X, T, context=PROMPTS), unet(X, T, context=Weighted(PROMPTS, weights, some))
    assert_close(weighted[[0, 2]], plain[[0, 2]], atol=1e-5, rtol=1e-5)
    assert (weighted[1] - plain[1]).abs().max() > 1e-3


@torch.no_grad()
def test_factors_stand_in_the_weighted_columns_alone() -> None:
    weighted = Weighted(noise(1, 5, 7), FINE, COLUMNS[None])
    factors = weighted.factors(16)
    assert factors.shape == (1, 1, 16, 5)
    assert torch.equal(factors[..., ~COLUMNS], torch.ones(1, 1, 16, 3))
    assert_close(factors[0, 0, 0, 1], FINE[0, 0, :2, :2].mean())
    assert_close(factors[0, 0, 15, 2], FINE[0, 0, 6:, 6:].mean())


@pytest.mark.parametrize(
    ("sides", "cells", "grid"), [((8, 4), 8, (4, 2)), ((6, 10), 60, (6, 10)), ((12, 4), 3, (3, 1))]
)
def test_the_grid_keeps_the_picture_s_proportions(sides: tuple[int, int], cells: int, grid: tuple[int, int]) -> None:
    rows = torch.arange(sides[0], dtype=torch.float32)[:, None].expand(sides)
    factors = Weighted(noise(1, 1, 7), rows[None, None], torch.ones(1, 1, dtype=torch.bool)).factors(cells)
    step = sides[0] // grid[0]
    means = rows[:, 0].reshape(grid[0], step).mean(dim=1)
    assert torch.equal(factors.flatten(), means.repeat_interleave(grid[1]))


@torch.no_grad()
def test_patches_bfloat16_and_projected_prompts() -> None:
    unet = prompted(patch_size=2, attention_resolutions=[1])
    x, some = noise(3, 4, 16, 16), torch.zeros(3, 9, dtype=torch.bool)
    some[:, 2:5] = True
    weights = 1 + noise(3, 1, 16, 16, seed=3).abs()
    out = unet(x, T, context=Weighted(PROMPTS, weights, some))
    assert torch.equal(unet(x, T, context=Weighted(unet.project(PROMPTS), weights, some)), out)
    wrapper = DiffusionWrapper({"target": "torch.nn.Identity"}, "crossattn")
    wrapper.diffusion_model = unet
    assert torch.equal(wrapper(x, T, c_crossattn=[Weighted(PROMPTS, weights, some)]), out)
    half = unet.bfloat16()(x, T, context=Weighted(PROMPTS, weights, some))
    assert half.dtype == torch.float32
    assert (half - out).norm() < 0.05 * out.norm()


def test_gradients_flow() -> None:
    layer, context = CrossAttention(6, 7, heads=2, dim_head=4), noise(1, 5, 7).requires_grad_()
    layer(noise(1, 16, 6), Weighted(context, FINE, COLUMNS[None])).square().sum().backward()
    assert context.grad is not None
    assert context.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"), [({"form": "logits"}, "form=logits"), ({"weights": torch.ones(1, 1, 2, 3)}, "2 x 3 cells")]
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weighted(**{"context": noise(1, 5, 7), "weights": FINE, "columns": COLUMNS[None], **change}).factors(16)
