"""Attention on a CPU in bfloat16 blocks, and a prompt's keys computed once, against the softmax written out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import ldm.modules.attention
from ldm.models.diffusion.wrapper import DiffusionWrapper
from ldm.modules.attention import CrossAttention, Projected, attend
from support.prompted_unet import PROMPTS, T, X, noise, prompted
from support.tiny import randomize

# (batch, heads, queries, keys, channels of a head)
SHAPES = [
    (2, 4, 64, 64, 16),
    (1, 8, 60, 77, 40),
    (3, 2, 1, 5, 8),
    (1, 1, 7, 1, 4),
    (2, 3, 33, 13, 80),
    (1, 2, 1, 1, 16),
]
# bfloat16 keeps 8 bits; scores, probabilities and the result are each rounded to it. In standard deviations of v.
LARGEST, USUAL = 0.03, 0.0025


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, n, length, d = shape
    q, k, v = (noise(batch, heads, m, d, seed=i).to(dtype) for i, m in enumerate((n, length, length)))
    return q, k, v


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return (weights / weights.sum(dim=-1, keepdim=True)) @ v


@pytest.mark.parametrize("block", [1, 40, 2000, 1 << 19])
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_in_blocks(shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    own = torch.baddbmm

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        scores = own(*args, **kwargs)
        held.append(scores.numel())
        return scores

    monkeypatch.setattr(ldm.modules.attention, "BLOCK", block)
    monkeypatch.setattr(torch, "baddbmm", counted)
    q, k, v = inputs(shape, torch.bfloat16)
    out = attend(q, k, v)
    assert out.dtype == torch.bfloat16
    assert out.shape == q.shape
    error = (out.double() - exact(q, k, v)).abs()
    assert error.max() < LARGEST
    assert error.mean() < USUAL
    assert sum(held) == shape[0] * shape[1] * shape[2] * shape[3]
    assert max(held) <= max(block, shape[3])  # one row of scores is never cut


def test_scores_far_apart_stay_numbers() -> None:
    q, k, v = inputs((1, 2, 9, 11, 8), torch.bfloat16)
    out = attend(q * 300, k * 300, v)
    assert_close(out.float(), exact(q * 300, k * 300, v).float(), atol=0.05, rtol=0)


def test_views_are_as_good_as_copies() -> None:
    """Heads cut out of channels, as the layers give them, and channels-first ones."""
    q, k, v = (noise(2, m, 3 * 16, seed=i).bfloat16() for i, m in enumerate((40, 21, 21)))
    apart = [x.unflatten(-1, (3, 16)).transpose(1, 2) for x in (q, k, v)]
    copies = [x.contiguous() for x in apart]
    assert not apart[0].is_contiguous()
    assert torch.equal(attend(apart[0], apart[1], apart[2]), attend(copies[0], copies[1], copies[2]))
    turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in copies]
    assert torch.equal(attend(turned[0], turned[1], turned[2]), attend(copies[0], copies[1], copies[2]))


def test_what_is_given_stays() -> None:
    given = inputs((2, 2, 6, 7, 8), torch.bfloat16)
    before = [x.clone() for x in given]
    attend(*given)
    assert all(map(torch.equal, given, before))


@pytest.mark.parametrize("block", [50, 1 << 19])
def test_gradients_flow_through_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.modules.attention, "BLOCK", block)
    given = inputs((2, 2, 20, 9, 16), torch.bfloat16)
    ours = [x.clone().requires_grad_() for x in given]
    plain = [x.double().requires_grad_() for x in given]
    weight = noise(2, 2, 20, 16, seed=9)
    (attend(ours[0], ours[1], ours[2]).float() * weight).sum().backward()
    (exact(plain[0], plain[1], plain[2]) * weight).sum().backward()
    for one, other in zip(ours, plain, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad.double() - other.grad).norm() < 0.02 * other.grad.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_the_fused_kernel(shape: tuple[int, ...]) -> None:
    q, k, v = inputs(shape, torch.float32)
    assert torch.equal(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    assert_close(attend(q, k, v).double(), exact(q, k, v), atol=1e-5, rtol=1e-5)


def test_a_mask_is_kept_in_bfloat16() -> None:
    q, k, v = inputs((1, 2, 6, 5, 8), torch.bfloat16)
    hidden = torch.zeros(1, 1, 1, 5, dtype=torch.bfloat16)
    hidden[..., 3:] = torch.finfo(torch.bfloat16).min
    seen = exact(q, k[:, :, :3], v[:, :, :3])
    assert (attend(q, k, v, hidden).double() - seen).abs().max() < LARGEST


@torch.no_grad()
def test_a_layer_in_bfloat16_and_under_autocast() -> None:
    layer = CrossAttention(32, 12, heads=4, dim_head=8).eval()
    randomize(layer, 0)
    x, context = noise(2, 30, 32), noise(2, 7, 12, seed=1)
    plain = layer(x, context)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x, context)
    half = layer.bfloat16()(x.bfloat16(), context.bfloat16())
    for other in (mixed, half):
        assert other.dtype == torch.bfloat16
        assert (other.float() - plain).norm() < 0.02 * plain.norm()


# a prompt's keys and values, computed once


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [1, 2])
def test_projected_prompts_are_the_prompts(depth: int, dtype: torch.dtype) -> None:
    unet = prompted(transformer_depth=depth).to(dtype)
    plain = unet(X, T, context=PROMPTS)
    keys = unet.project(PROMPTS)
    assert len(keys.layers) == depth * (2 + 1 + 4)  # input, middle and output blocks with attention
    assert all(k.shape[:3] == v.shape[:3] == (3, 2, 9) for k, v in keys.layers)
    assert torch.equal(unet(X, T, context=keys), plain)
    assert torch.equal(unet(X, T, context=keys), plain), "the second time as well"
    wrapper = DiffusionWrapper({"target": "torch.nn.Identity"}, "crossattn")
    wrapper.diffusion_model = unet
    assert torch.equal(wrapper(X, T, c_crossattn=[keys]), plain)
    assert torch.equal(wrapper(X, T, c_crossattn=[PROMPTS]), plain)


@torch.no_grad()
def test_prompts_projected_one_by_one_make_a_batch() -> None:
    unet = prompted()
    singly = [unet.project(p[None]) for p in PROMPTS]
    layers = Projected.cat(singly)
    assert_close(unet(X, T, context=layers), unet(X, T, context=PROMPTS), atol=1e-5, rtol=1e-5)
    swapped = Projected([(k[[1, 0, 2]], v[[1, 0, 2]]) for k, v in layers.layers])
    assert not torch.allclose(unet(X, T, context=swapped)[0], unet(X, T, context=layers)[0], atol=1e-3)
    assert torch.equal(unet(X, T, context=swapped)[2], unet(X, T, context=layers)[2])


@torch.no_grad()
def test_keys_are_not_computed_again() -> None:
    unet = prompted()
    keys = unet.project(PROMPTS)
    calls: list[str] = []
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.register_forward_hook(lambda *args, name=name: calls.append(name))
    unet(X, T, context=keys)
    assert calls == []
    unet(X, T, context=PROMPTS)
    assert len(calls) == 2 * len(keys.layers)
