"""The U-Net against golden tensors and, option by option, against formulas written out here."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from ldm.errors import UserError
from ldm.modules.attention import CrossAttention, FeedForward, SpatialTransformer
from ldm.modules.diffusionmodules.openaimodel import AttentionBlock, Downsample, ResBlock, UNetModel, Upsample
from ldm.modules.diffusionmodules.util import timestep_embedding
from support.golden import golden, weigh

SMALL: dict[str, Any] = {
    "image_size": 8, "in_channels": 4, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_heads": 2,
}  # fmt: skip
PROMPTED = SMALL | {"use_spatial_transformer": True, "context_dim": 12}


def filled(module: Any, seed: int = 0) -> Any:
    """Random weights everywhere: a fresh network ends in zeros, which hide every fault."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator) * (0.3 if p.dim() == 1 else 0.7 / math.sqrt(p[0].numel()))
    return module.eval()


def unet(**options: Any) -> UNetModel:
    return filled(UNetModel(**SMALL | options))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, T = noise(2, 4, 8, 8), torch.tensor([0, 777])


def names(module: nn.Module, prefix: str) -> dict[str, tuple[int, ...]]:
    return {k.removeprefix(prefix): tuple(v.shape) for k, v in module.state_dict().items() if k.startswith(prefix)}


@pytest.mark.parametrize("name", ["unet_crossattn", "unet_guided"])
def test_golden(name: str) -> None:
    config, tensors = golden(name)
    with torch.no_grad():
        out = weigh(UNetModel(**config))(tensors["x"], tensors["t"], context=tensors.get("context"))
    want = tensors["out"]
    assert (out - want).norm() <= 1e-4 * want.norm()
    assert_close(out, want, rtol=1e-4, atol=1e-4)


def test_half_precision_stays_close() -> None:
    config, tensors = golden("unet_crossattn")
    model = weigh(UNetModel(**config))
    half = copy.deepcopy(model).bfloat16()
    x, t, context, want = tensors["x"], tensors["t"], tensors["context"], tensors["out"]
    with torch.no_grad():
        out = half(x.bfloat16(), t, context=context.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(x, t, context=context)
    assert out.dtype == torch.bfloat16
    assert mixed.dtype == torch.float32
    for got in (out, mixed):
        assert (got.float() - want).norm() <= 0.03 * want.norm()


def test_time_embedding() -> None:
    t = torch.tensor([0, 1, 999])
    out = timestep_embedding(t, 7)
    for row, value in zip(out, t.tolist(), strict=True):
        angles = [value * 10000 ** (-i / 3) for i in range(3)]
        assert_close(row, torch.tensor([*map(math.cos, angles), *map(math.sin, angles), 0.0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("new_order", [False, True])
@pytest.mark.parametrize("shape", [(2, 32, 4, 6), (2, 32, 9), (1, 32, 2, 3, 4)])
def test_attention_is_a_softmax_in_both_orders(new_order: bool, shape: tuple[int, ...]) -> None:
    block = filled(AttentionBlock(32, num_heads=4, use_new_attention_order=new_order)).double()
    x = noise(*shape).double()
    flat = x.reshape(shape[0], 32, -1)
    qkv = block.qkv(block.norm(flat))
    want = torch.empty_like(flat)
    for head in range(4):
        if new_order:  # all q, all k, all v; each cut into heads
            q, k, v = (qkv[:, part * 32 + head * 8 : part * 32 + head * 8 + 8] for part in range(3))
        else:  # head by head its q, k, v
            q, k, v = (qkv[:, head * 24 + part * 8 : head * 24 + part * 8 + 8] for part in range(3))
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(8), dim=-1)
        want[:, head * 8 : head * 8 + 8] = torch.einsum("bij,bcj->bci", weights, v)
    assert_close(block(x), (flat + block.proj_out(want)).reshape(shape))


def test_heads_follow_the_published_reading_of_the_options() -> None:
    def heads(**options: Any) -> list[int]:
        made = UNetModel(**{**SMALL, "num_heads": -1, **options})
        return [m.num_heads for m in made.modules() if isinstance(m, AttentionBlock)]

    # Blocks at width 64: one down, one in the middle, two up.
    assert heads(num_heads=4) == [4, 4, 4, 4]
    assert heads(num_heads=4, num_heads_upsample=2) == [4, 4, 2, 2]
    assert heads(num_heads=4, num_heads_upsample=2, legacy=False) == [4, 4, 4, 4]
    assert heads(num_head_channels=16) == heads(num_head_channels=16, legacy=False) == [4, 4, 4, 4]
    assert heads(num_head_channels=16, num_heads=1, num_heads_upsample=8) == [4, 4, 4, 4]

    def widths(**options: Any) -> list[tuple[int, int]]:
        made = UNetModel(**{**PROMPTED, "num_heads": -1, **options})
        return [(m.heads, m.to_q.out_features) for m in made.modules() if isinstance(m, CrossAttention)][::2]

    for legacy in (False, True):
        assert widths(num_heads=4, legacy=legacy) == [(4, 64)] * 4
        assert widths(num_head_channels=16, legacy=legacy) == [(4, 64)] * 4
    assert widths(num_heads=3, legacy=False) == [(3, 63)] * 4
    assert widths(num_head_channels=24, legacy=False) == [(2, 48)] * 4
    assert widths(num_head_channels=24, legacy=True) == [(2, 64)] * 4


def test_residual_block_by_hand() -> None:
    block = filled(ResBlock(32, 20, 0.0, out_channels=64)).double()
    x, emb = noise(2, 32, 4, 4).double(), noise(2, 20).double()
    h = block.in_layers[2](F.silu(F.group_norm(x, 32, block.in_layers[0].weight, block.in_layers[0].bias, 1e-5)))
    h = h + block.emb_layers[1](F.silu(emb))[:, :, None, None]
    h = block.out_layers[3](F.silu(F.group_norm(h, 32, block.out_layers[0].weight, block.out_layers[0].bias, 1e-5)))
    assert_close(block(x, emb), block.skip_connection(x) + h)
    assert block.skip_connection.weight.shape == (64, 32, 1, 1)
    assert ResBlock(32, 20, 0.0, 64, use_conv=True).skip_connection.weight.shape == (64, 32, 3, 3)


def test_scale_shift_norm_by_hand() -> None:
    block = filled(ResBlock(32, 20, 0.0, use_scale_shift_norm=True)).double()
    x, emb = noise(2, 32, 4, 4).double(), noise(2, 20).double()
    h = block.in_layers(x)
    both = block.emb_layers[1](F.silu(emb))
    scale, shift = both[:, :32, None, None], both[:, 32:, None, None]
    h = block.out_layers[3](F.silu(block.out_layers[0](h) * (1 + scale) + shift))
    assert_close(block(x, emb), x + h)
    assert block.emb_layers[1].weight.shape == (64, 20)


@pytest.mark.parametrize("up", [False, True])
def test_resizing_block_resizes_both_paths_before_the_convolution(up: bool) -> None:
    block = filled(ResBlock(32, 20, 0.0, up=up, down=not up)).double()
    x, emb = noise(2, 32, 4, 4).double(), noise(2, 20).double()

    def resize(z: Tensor) -> Tensor:
        if up:
            return z.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return (z[..., ::2, ::2] + z[..., 1::2, ::2] + z[..., ::2, 1::2] + z[..., 1::2, 1::2]) / 4

    h = block.in_layers[2](resize(F.silu(block.in_layers[0](x)))) + block.emb_layers(emb)[:, :, None, None]
    assert_close(block(x, emb), resize(x) + block.out_layers(h))
    assert not any("upd" in k for k in block.state_dict())


def test_resizers() -> None:
    assert_close(Downsample(1, False)(torch.arange(4.0).view(1, 1, 2, 2)), torch.full((1, 1, 1, 1), 1.5))
    down, up = filled(Downsample(4, True, out_channels=6)), filled(Upsample(4, True, out_channels=6))
    x = noise(1, 4, 6, 6)
    assert_close(down(x), F.conv2d(F.pad(x, (1, 1, 1, 1)), down.op.weight, down.op.bias, stride=2))
    doubled = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert_close(up(x), F.conv2d(F.pad(doubled, (1, 1, 1, 1)), up.conv.weight, up.conv.bias))
    assert list(down.state_dict()) == ["op.weight", "op.bias"]
    assert list(up.state_dict()) == ["conv.weight", "conv.bias"]


def test_cross_attention_by_hand() -> None:
    layer = filled(CrossAttention(8, context_dim=6, heads=2, dim_head=5)).double()
    x, context = noise(2, 7, 8).double(), noise(2, 4, 6, seed=2).double()
    mask = torch.tensor([[True, True, False, True], [False, False, False, False]])

    def expected(hidden: Tensor | None) -> Tensor:
        heads = []
        for part in (slice(0, 5), slice(5, 10)):
            q, k, v = layer.to_q(x)[..., part], layer.to_k(context)[..., part], layer.to_v(context)[..., part]
            score = q @ k.transpose(1, 2) / math.sqrt(5)
            if hidden is not None:
                score = score.masked_fill(hidden[:, None], -torch.finfo(score.dtype).max)
            heads.append(score.softmax(-1) @ v)
        return layer.to_out(torch.cat(heads, -1))

    assert_close(layer(x, context), expected(None))
    assert_close(layer(x, context, mask=mask), expected(~mask))  # a row that sees nothing averages
    alone = filled(CrossAttention(8, heads=2, dim_head=5))
    assert_close(alone(x.float()), alone(x.float(), x.float()))


def test_spatial_transformer_by_hand() -> None:
    layer = filled(SpatialTransformer(32, 2, 12, context_dim=6, use_checkpoint=False)).double()
    x, context = noise(2, 32, 2, 3).double(), noise(2, 4, 6).double()
    block = layer.transformer_blocks[0]
    h = F.group_norm(x, 32, layer.norm.weight, layer.norm.bias, 1e-6)
    h = layer.proj_in(h).reshape(2, 24, 6).transpose(1, 2)
    h = h + block.attn1(block.norm1(h))
    h = h + block.attn2(block.norm2(h), context)
    value, gate = block.ff.net[0].proj(block.norm3(h)).split(96, dim=-1)
    h = h + block.ff.net[2](value * 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2))))
    assert_close(layer(x, context), x + layer.proj_out(h.transpose(1, 2).reshape(2, 24, 2, 3)))
    assert list(FeedForward(8).state_dict())[:2] == ["net.0.0.weight", "net.0.0.bias"]


OPTIONS: list[tuple[dict[str, Any], dict[str, tuple[int, ...] | None]]] = [
    ({}, {"input_blocks.2.0.op.weight": (32, 32, 3, 3), "input_blocks.3.1.qkv.weight": (192, 64, 1),
          "middle_block.1.proj_out.weight": (64, 64, 1), "output_blocks.1.2.conv.weight": (64, 64, 3, 3),
          "out.2.weight": (4, 32, 3, 3)}),
    ({"conv_resample": False}, {"input_blocks.2.0.op.weight": None, "output_blocks.1.2.conv.weight": None}),
    ({"resblock_updown": True}, {"input_blocks.2.0.in_layers.2.weight": (32, 32, 3, 3),
                                 "output_blocks.1.2.out_layers.3.bias": (64,), "input_blocks.2.0.op.weight": None}),
    ({"use_scale_shift_norm": True}, {"middle_block.0.emb_layers.1.weight": (128, 128)}),
    ({"n_embed": 10}, {"id_predictor.0.weight": (32,), "id_predictor.1.weight": (10, 32, 1, 1)}),
    ({"dims": 1}, {"input_blocks.0.0.weight": (32, 4, 3)}),
    ({"dims": 3}, {"input_blocks.0.0.weight": (32, 4, 3, 3, 3)}),
    ({"use_new_attention_order": True, "num_head_channels": 16}, {"middle_block.1.qkv.weight": (192, 64, 1)}),
    ({"use_spatial_transformer": True, "context_dim": 12, "transformer_depth": 2},
     {"middle_block.1.transformer_blocks.1.attn2.to_k.weight": (64, 12), "middle_block.1.qkv.weight": None}),
    ({"attention_resolutions": [1]}, {"input_blocks.1.1.qkv.bias": (96,), "input_blocks.3.1.qkv.weight": None}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_every_option_builds_runs_and_names(options: dict[str, Any], expected: dict[str, Any]) -> None:
    model = unet(**options)
    own = names(model, "")
    for name, shape in expected.items():
        assert own.get(name) == shape, name
    x = noise(*{1: (2, 4, 8), 3: (2, 4, 3, 8, 8)}.get(options.get("dims", 2), (2, 4, 8, 8)))
    context = noise(2, 5, 12) if "context_dim" in options else None
    kept = x.clone()
    out = model(x, T, context=context)
    assert out.shape == (2, options.get("n_embed", 4), *x.shape[2:])
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, model(x, T + 100, context=context))
    assert_close(out[1:], model(x[1:], T[1:], context=None if context is None else context[1:]), rtol=1e-4, atol=1e-5)
    assert torch.equal(x, kept)


def test_labels_are_added_to_the_time() -> None:
    model = unet(num_classes=5)
    assert names(model, "label_emb.") == {"weight": (5, 128)}
    plain = unet()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "label_emb.weight"})
    y = torch.tensor([4, 1])
    model.label_emb.weight.data[0] = 0
    assert_close(model(X, T, y=torch.zeros_like(y)), plain(X, T))
    assert not torch.allclose(model(X, T, y=y), plain(X, T))
    for wrong, labels in ((model, None), (plain, y)):
        with pytest.raises(ValueError, match="num_classes"):
            wrong(X, T, y=labels)


@pytest.mark.parametrize("options", [SMALL, PROMPTED])
def test_checkpointing_changes_no_gradient(options: dict[str, Any]) -> None:
    context = noise(2, 5, 12) if "context_dim" in options else None
    results = []
    for use in (False, True):
        model = filled(UNetModel(**options, use_checkpoint=use)).train()
        x = X.clone().requires_grad_()
        out = model(x, T, context=context)
        out.square().mean().backward()
        assert x.grad is not None
        results.append([out.detach(), x.grad, *(p.grad for p in model.parameters())])
    assert all(g is not None for g in results[0])
    assert_close(results[1], results[0])


def test_a_fresh_network_says_nothing() -> None:
    torch.manual_seed(0)
    assert not UNetModel(**SMALL)(X, T).any()


def test_other_latent_sizes() -> None:
    model = unet(channel_mult=[1, 2, 2])
    assert model(noise(1, 4, 4, 12), T[:1]).shape == (1, 4, 4, 12)
    for shape in ((6, 8), (8, 5)):
        with pytest.raises(UserError, match=r"does not shrink 4 times.*multiples of 4"):
            model(noise(1, 4, *shape), T[:1])
    deep = unet(channel_mult=[1, 2], dims=3)
    with pytest.raises(UserError, match="multiples of 2"):
        deep(noise(1, 4, 2, 8, 7), T[:1])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"use_spatial_transformer": True}, "context_dim"),
        ({"context_dim": 8}, "use_spatial_transformer"),
        ({"num_heads": -1}, "num_head_channels"),
        ({"num_head_channels": 24}, "num_head_channels=24"),
        ({"num_heads": 3}, "num_heads=3"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        UNetModel(**SMALL | options)
