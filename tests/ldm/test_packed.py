"""Packed weights: the same answers in bfloat16 and float32, near ones in 8 bits, and the plain weights are let go."""

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import ldm.modules.packed
from ldm.modules.packed import Int8Conv2d, Int8Linear, PackedConv2d, PackedLinear, can_pack, has_int8, pack
from support.tiny import randomize

WITHIN = 0.02  # relative error of an 8-bit layer, in the Euclidean norm
needs_bf16 = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this CPU has no packed kernels for bfloat16")
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this CPU has no 8-bit dot products")
DTYPES = [pytest.param(torch.bfloat16, marks=needs_bf16), torch.float32]

CONVS: list[dict[str, Any]] = [
    {"out_channels": 48, "kernel_size": 3, "padding": 1},
    {"out_channels": 48, "kernel_size": 3, "padding": 1, "bias": False},
    {"out_channels": 64, "kernel_size": 1},
    {"out_channels": 32, "kernel_size": 3, "padding": 1, "stride": 2},
    {"out_channels": 32, "kernel_size": 3, "stride": 2, "bias": False},  # the autoencoder pads by itself
    {"out_channels": 4, "kernel_size": 3, "padding": 1},
]
SIZES = [(1, 16, 16), (2, 12, 20), (1, 5, 7), (3, 16, 16), (1, 40, 8)]  # the first is what is packed for
ROWS = [(64,), (1,), (1, 64), (2, 10), (3, 5, 7)]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(layer: Any, dtype: torch.dtype = torch.float32) -> Any:
    randomize(layer, 0)
    return layer.to(dtype, memory_format=torch.channels_last)


def distance(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact.double()).norm() / exact.double().norm())


def same(ours: Tensor, plain: Tensor) -> None:
    assert ours.dtype == plain.dtype
    if plain.dtype == torch.bfloat16:
        assert torch.equal(ours, plain)
    else:
        assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", CONVS, ids=str)
def test_convolutions(options: dict[str, Any], dtype: torch.dtype) -> None:
    conv = filled(nn.Conv2d(32, **options), dtype)
    packed = PackedConv2d(conv, torch.Size((1, 32, 16, 16)))
    for batch, height, width in SIZES:
        x = noise(batch, 32, height, width).to(dtype, memory_format=torch.channels_last)
        same(packed(x), conv(x))
        assert torch.equal(packed(x.contiguous()), packed(x)), "the order in memory should not count"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [48, 320])
def test_linear_layers(width: int, bias: bool, dtype: torch.dtype) -> None:
    linear = filled(nn.Linear(96, width, bias), dtype)
    packed = PackedLinear(linear, 64)
    for rows in ROWS:
        x = noise(*rows, 96).to(dtype)
        same(packed(x), linear(x))
    turned = noise(2, 96, 10).to(dtype).transpose(1, 2)  # as an attention's result may lie
    same(packed(turned), linear(turned.contiguous()))


# 8 bits


def layers_in_8_bits(bias: bool) -> list[tuple[Any, Any, tuple[int, ...]]]:
    """(plain, 8-bit, shape of the input)"""
    conv = filled(nn.Conv2d(64, 128, 3, padding=1, bias=bias))
    strided = filled(nn.Conv2d(32, 64, 3, stride=2, bias=bias))
    linear = filled(nn.Linear(96, 320, bias))
    return [
        (conv, Int8Conv2d(conv, torch.Size((1, 64, 8, 8))), (1, 64, 8, 8)),
        (conv, Int8Conv2d(conv, torch.Size((1, 64, 16, 16))), (2, 64, 5, 9)),
        (strided, Int8Conv2d(strided, torch.Size((1, 32, 9, 9))), (1, 32, 9, 9)),
        (linear, Int8Linear(linear, 64), (1, 64, 96)),
        (linear, Int8Linear(linear, 64), (3, 2, 7, 96)),
    ]


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "positive": lambda x: x.abs(),
    "negative": lambda x: -x.abs(),
    "far from zero": lambda x: x + 3,
    "tiny": lambda x: x * 1e-6,
    "huge": lambda x: x * 1e6,
    "constant": lambda x: torch.full_like(x, 0.7),
    "negative constant": lambda x: torch.full_like(x, -1e-3),
}


@needs_int8
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("what", INPUTS)
def test_eight_bits_stay_near(what: str, dtype: torch.dtype) -> None:
    for plain, packed, shape in layers_in_8_bits(bias=False):
        x = INPUTS[what](noise(*shape)).to(dtype)
        before = x.clone()
        made = packed(x)
        assert made.dtype == dtype
        assert distance(made, plain(x.float())) < WITHIN
        assert torch.equal(x, before), "what is given should stay"


@needs_int8
def test_the_bias_is_not_rounded() -> None:
    for (_, bare, shape), (plain, packed, _) in zip(layers_in_8_bits(False), layers_in_8_bits(True), strict=True):
        x = noise(*shape)
        bias = plain.bias.view(-1, 1, 1) if isinstance(packed, Int8Conv2d) else plain.bias
        assert_close(packed(x), bare(x) + bias, atol=1e-5, rtol=1e-5)


@needs_int8
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_zeros_are_exact(dtype: torch.dtype) -> None:
    for bias in (False, True):
        for plain, packed, shape in layers_in_8_bits(bias):
            x = torch.zeros(shape, dtype=dtype)
            assert torch.equal(packed(x), plain(x.float()).to(dtype))


@needs_int8
def test_a_zero_among_numbers_is_exact() -> None:
    """Padding and what an activation has cut off must not come back as a small number."""
    one = nn.Linear(32, 32, bias=False)
    one.weight.copy_(torch.eye(32))
    packed = Int8Linear(one, 8)
    for shift in (-2.0, 0.0, 5.0):
        x = (noise(1, 8, 32) + shift).clamp(min=-3)
        x[:, ::2] = 0
        assert not packed(x)[:, ::2].any()
        assert (packed(x) - x).abs().max() <= float(x.amax() - x.amin().clamp(max=0)) / 255


@needs_int8
def test_channels_have_scales_of_their_own() -> None:
    linear = filled(nn.Linear(64, 64, bias=False))
    linear.weight.mul_(torch.logspace(-6, 3, 64)[:, None])
    x = noise(1, 50, 64)
    made, exact = Int8Linear(linear, 50)(x), linear(x)
    for channel in range(64):
        assert distance(made[..., channel], exact[..., channel]) < WITHIN


@needs_int8
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_does_not_become_one(bad: float) -> None:
    for _, packed, shape in layers_in_8_bits(bias=True):
        x = noise(*shape).bfloat16()
        x.view(-1)[7] = bad
        assert not torch.isfinite(packed(x)).any()


@needs_int8
@pytest.mark.parametrize("scale", [1e-40, 1e-38, 1e-36, 1e-30, 1e30])
def test_the_ends_of_the_range(scale: float) -> None:
    for plain, packed, shape in layers_in_8_bits(bias=False):
        x = noise(*shape) * scale
        assert (packed(x) - plain(x)).abs().max() < max(0.05 * scale, 1e-35)


# a whole network


class Network(nn.Module):
    """Layers of every kind; `met` of them answer a call."""

    met = ("stem", "down", "wide", "point", "last", "up", "thin", "time", "inner.0", "volume", "norm")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 128, 3, padding=1)
        self.down = nn.Conv2d(128, 128, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(128, 128, 3, padding=1)
        self.point = nn.Conv2d(128, 128, 1)
        self.last = nn.Conv2d(128, 4, 3, padding=1)
        self.up = nn.Linear(128, 1024)
        self.thin = nn.Linear(1024, 128, bias=False)
        self.time = nn.Linear(8, 1024)
        self.inner = nn.Sequential(nn.Linear(128, 128), nn.SiLU())
        self.volume = nn.Conv1d(128, 128, 1)
        self.norm = nn.GroupNorm(32, 128)
        self.idle = nn.Conv2d(32, 128, 3)
        self.keys = nn.Linear(32, 1024)
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.norm(self.wide(self.down(self.stem(x))) + self.shift)
        cells = self.point(h).flatten(2).transpose(1, 2)
        cells = self.inner(self.thin(self.up(cells) + self.time(t)[:, None]))
        return self.last(self.volume(cells.transpose(1, 2)).view_as(h))


X, T = noise(1, 4, 16, 16), noise(1, 8, seed=2)


def call(network: nn.Module) -> Tensor:
    return network(X.to("meta"), T.to("meta"))


def kinds(network: nn.Module) -> dict[str, str]:
    named = dict(network.named_modules())
    return {name: type(named[name]).__name__ for name in (*Network.met, "idle", "keys")}


PLAIN = {"idle": "Conv2d", "keys": "Linear", "volume": "Conv1d", "norm": "GroupNorm"}
PACKED = dict.fromkeys(("stem", "down", "wide", "point", "last"), "PackedConv2d")
PACKED |= dict.fromkeys(("up", "thin", "time", "inner.0"), "PackedLinear")


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack_replaces_what_a_call_meets(dtype: torch.dtype) -> None:
    network = filled(Network(), dtype)
    x, t = X.to(dtype), T.to(dtype)
    expected = network(x, t), network(x[..., :10], t)
    pack(network, lambda n: n(x.to("meta"), t.to("meta")))
    assert kinds(network) == {**PACKED, **PLAIN}
    for made, plain in zip((network(x, t), network(x[..., :10], t)), expected, strict=True):
        assert_close(made, plain, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=1e-5)


@needs_int8
def test_pack_takes_eight_bits_where_each_input_is_used_often() -> None:
    network = filled(Network())
    expected = network(X, T)
    pack(network, call, int8=True)
    eight = {"wide": "Int8Conv2d", "up": "Int8Linear"}  # 128 * 9 and 1024 uses; `down` has 128 * 9 / 4, `point` 128
    assert kinds(network) == {**PACKED, **PLAIN, **eight}
    assert distance(network(X, T), expected) < WITHIN


@needs_int8
def test_the_first_and_the_last_layer_never_have_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.modules.packed, "USES", 1)
    network = filled(Network())
    pack(network, call, int8=True)
    found = kinds(network)
    assert {name for name, kind in found.items() if kind.startswith("Int8")} == {
        *("down", "wide", "point", "up", "thin", "inner.0"),
    }
    assert found["time"] == "PackedLinear"


@pytest.mark.parametrize("int8", [False, pytest.param(True, marks=needs_int8)])
def test_the_plain_weights_are_let_go(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldm.modules.packed, "USES", 1)
    network = filled(Network())
    packed = [network.get_submodule(name) for name in PACKED]
    layers = [weakref.ref(m) for m in packed]
    weights = [weakref.ref(m.weight) for m in packed]
    told: list[int] = []
    expected = [id(m.weight) for m in packed]
    del packed
    pack(network, call, int8, lambda weight: told.append(id(weight)))
    gc.collect()
    assert [ref() for ref in (*layers, *weights)] == [None] * (2 * len(PACKED))
    assert sorted(told) == sorted(expected)
    left = {name for name, p in network.named_parameters() if p.dim() > 1}
    assert left == {"idle.weight", "keys.weight", "volume.weight"}


def test_packing_runs_on_shapes_alone_and_leaves_no_trace() -> None:
    network = filled(Network())
    seen: list[str] = []
    network.norm.register_forward_hook(lambda m, given, out: seen.append(out.device.type))
    before = {name: p.clone() for name, p in network.state_dict().items()}
    pack(network, call)
    assert seen == ["meta"]
    assert all(not m._forward_pre_hooks for m in network.modules())
    for name, value in network.state_dict().items():  # biases, norms, buffers and what was not met
        assert torch.equal(value, before[name])


def test_a_call_that_fails_changes_nothing() -> None:
    network = filled(Network())

    def fails(borrowed: nn.Module) -> None:
        call(borrowed)
        raise KeyError("later")

    expected = network(X, T)
    with pytest.raises(KeyError):
        pack(network, fails)
    assert kinds(network)["stem"] == "Conv2d"
    assert all(not m._forward_pre_hooks for m in network.modules())
    assert torch.equal(network(X, T), expected)


def test_what_a_machine_can_do_is_told_without_trying() -> None:
    assert can_pack(torch.float32) == torch.backends.mkldnn.is_available()
    assert has_int8() <= can_pack(torch.bfloat16) <= can_pack(torch.float32)
