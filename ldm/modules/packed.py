"""Weights in the order that the CPU's matrix kernels read them, for networks that only answer and never learn.

PyTorch reorders a layer's weights at every call; at batch 1 that costs the deep layers of a large U-Net two thirds of
their time. These layers reorder them once, in bfloat16 with byte-equal results, or keep them as 8-bit numbers.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# An 8-bit layer first measures and rounds its input. That pays where each number is used this often.
USES = 1000


def can_pack(dtype: torch.dtype) -> bool:
    """True where the CPU's kernels take reordered weights of this type, float32 or bfloat16."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_int8() -> bool:
    """True on CPUs with instructions for 8-bit dot products (AVX-512 VNNI), as far as PyTorch tells."""
    return can_pack(torch.bfloat16) and getattr(torch.cpu, "_is_vnni_supported", lambda: False)()


class PackedConv2d(nn.Module):
    """A convolution whose weights lie in the order that the CPU's kernel reads them for inputs of one shape.

    The order depends on the input's sides, and reordering from one to another is slow.

    Args:
        conv: the plain convolution.
        shape: (B,C,H,W) of the inputs.
        keep: True holds the plain weights too, for inputs of other sides. Without them those work as well, but slowly.
    """

    def __init__(self, conv: nn.Conv2d, shape: torch.Size, keep: bool = False):
        super().__init__()
        self.bias = conv.bias
        self.sides, self.plain = shape[-2:], conv.weight.detach() if keep else None
        self.options = (_pair(conv.padding), _pair(conv.stride), _pair(conv.dilation), conv.groups)
        self.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[attr-defined, call-arg]
            conv.weight.detach().to_mkldnn(), *self.options, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.plain is not None and x.shape[-2:] != self.sides:
            padding, stride, dilation, groups = self.options
            return F.conv2d(x, self.plain, self.bias, stride, padding, dilation, groups)
        return torch.ops.mkldnn._convolution_pointwise(x, self.packed, self.bias, *self.options, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer whose weights lie in the kernel's order for inputs of `rows` rows; others work too."""

    def __init__(self, linear: nn.Linear, rows: int):
        super().__init__()
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class Int8Conv2d(nn.Module):
    """A convolution with 8-bit weights (a scale per output channel) and 8-bit inputs (a scale and zero per call)."""

    def __init__(self, conv: nn.Conv2d, shape: torch.Size):
        super().__init__()
        padding, stride, dilation = _pair(conv.padding), _pair(conv.stride), _pair(conv.dilation)
        self.options = (stride, padding, dilation, conv.groups)
        self.bias = None if conv.bias is None else conv.bias.float()
        weight, self.scale, self.zero = _rounded(conv.weight)
        self.packed = torch.ops.onednn.qconv_prepack(weight, self.scale, 1.0, 0, *self.options, shape)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            *_bytes(x), self.packed, self.scale, self.zero, self.bias, *self.options, 1.0, 0, x.dtype, "none", [], ""
        )


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights and inputs, as `Int8Conv2d`."""

    def __init__(self, linear: nn.Linear, rows: int):
        super().__init__()
        self.bias = None if linear.bias is None else linear.bias.float()
        weight, self.scale, self.zero = _rounded(linear.weight)
        self.packed = torch.ops.onednn.qlinear_prepack(weight, [rows, linear.in_features])

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            *_bytes(x), self.packed, self.scale, self.zero, self.bias, 1.0, 0, x.dtype, "none", [], ""
        )


def pack(
    network: nn.Module,
    run: Callable[[nn.Module], Any],
    int8: bool = False,
    release: Callable[[Tensor], object] = lambda weight: None,
    keep: bool = False,
) -> None:
    """Replace, in place, the layers of a network that a call meets by packed ones; their plain weights are let go.

    Args:
        network: the network to change.
        run: `run(network)` calls it as it will be called, on tensors of the `meta` device. Only shapes are learnt from
            it.
        int8: True uses 8-bit numbers where they pay.
        release: `release(weight)` is told of each plain weight that is no longer needed.
        keep: True keeps the plain weights of convolutions, see `PackedConv2d`.
    """
    shapes: dict[nn.Module, torch.Size] = {}
    hooks = [
        m.register_forward_pre_hook(lambda m, args: shapes.__setitem__(m, args[0].shape))
        for m in network.modules()
        if type(m) in (nn.Conv2d, nn.Linear)
    ]
    weights = {name: p.to("meta") for name, p in network.named_parameters()}
    weights |= {name: b.to("meta") for name, b in network.named_buffers()}
    try:
        run(_Borrowed(network, weights))
    finally:
        for hook in hooks:
            hook.remove()
    for parent in [m for m in network.modules() if any(True for _ in m.children())]:
        for name in [n for n, child in parent.named_children() if child in shapes]:
            layer = getattr(parent, name)
            packed = _packed(layer, shapes.pop(layer), int8, keep)
            setattr(parent, name, packed)  # the plain weights go as the packed come
            if getattr(packed, "plain", None) is None:
                release(layer.weight)


class _Borrowed(nn.Module):
    """A network called with other weights in the place of its own."""

    def __init__(self, network: nn.Module, weights: dict[str, Tensor]):
        super().__init__()
        self._call = lambda *args, **kwargs: torch.func.functional_call(network, weights, args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)


def _packed(layer: nn.Module, shape: torch.Size, int8: bool, keep: bool) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        uses = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1] // (layer.stride[0] * layer.stride[1])
        # The first and the last layer, which see few channels, decide the picture's precision.
        small = min(layer.in_channels, layer.out_channels) < 32
        return Int8Conv2d(layer, shape) if int8 and uses >= USES and not small else PackedConv2d(layer, shape, keep)
    assert isinstance(layer, nn.Linear)
    # Without an axis of cells it serves the time embedding: one row, of no cost.
    pays = int8 and layer.out_features >= USES and len(shape) > 2
    return (Int8Linear if pays else PackedLinear)(layer, max(1, shape.numel() // shape[-1]))


def _pair(value: Any) -> list[int]:
    return [int(v) for v in (value if isinstance(value, tuple) else (value, value))]


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(int8 weights, float32 scale of each output channel, its zero point, which is 0)."""
    weight = weight.detach().float()
    scale = weight.abs().amax(dim=tuple(range(1, weight.dim()))).clamp(min=1e-12) / 127
    rounded = (weight / scale.view(-1, *(1,) * (weight.dim() - 1))).round().to(torch.int8)
    return rounded, scale, torch.zeros(len(scale), dtype=torch.long)


def _bytes(x: Tensor) -> tuple[Tensor, float, int]:
    """(x as uint8, its scale, its zero point): x is about (uint8 - zero) * scale."""
    low, high = min(float(x.amin()), 0.0), max(float(x.amax()), 0.0)
    scale = max((high - low) / 255, 1e-37)  # its inverse is a float32 too
    zero = round(-low / scale) if math.isfinite(scale) else 0  # by such a scale the answer is no number either
    # To signed bytes, which is the fast conversion, then over to unsigned ones by the sign bit.
    signed = x.to(torch.float32, copy=True).mul_(1 / scale).add_(zero - 128).round_().clamp_(-128, 127).to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(128), scale, zero
