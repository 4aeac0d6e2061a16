"""Low-rank adapters (LoRA, Hu et al. 2022) on a frozen U-Net: small to train and to keep, free once merged."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ldm.errors import UserError
from ldm.modules.attention import SpatialTransformer

Layer = nn.Linear | nn.Conv2d


class Adapter(nn.Module):
    """`scale * up(down(x))` beside a linear or convolutional layer; zero at the start.

    down (rank, in, ...) has the layer's kernel, stride and padding; up is (out, rank). Both are float32 whatever the
    layer's precision; they compute in the input's.
    """

    def __init__(self, layer: Layer, rank: int, scale: float):
        super().__init__()
        self.scale = scale
        shape = layer.weight.shape
        self.down = nn.Parameter(torch.randn(rank, *shape[1:]) / shape[1:].numel() ** 0.5)
        self.up = nn.Parameter(torch.zeros(shape[0], rank))

    def delta(self) -> Tensor:
        """What it adds to the layer's weight, of that weight's shape."""
        return self.scale * (self.up @ self.down.flatten(1)).unflatten(1, self.down.shape[1:])

    def add(self, layer: Layer, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook of the layer: a bound method, so that copies of a model have hooks to their own adapters."""
        x = args[0]
        down, up = self.down.to(x.dtype), self.scale * self.up.to(x.dtype)
        if isinstance(layer, nn.Linear):
            return output + F.linear(F.linear(x, down), up)
        low = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        return output + F.conv2d(low, up[..., None, None])


class Adapters(nn.Module):
    """An adapter for each attention layer of a U-Net and, unless `conv` is false, each convolution of it.

    `rank`: numbers that each adapter squeezes its input to; layers as narrow as that are left out. `alpha`: the
    adapters are scaled by `alpha / rank`; None scales by 1. The U-Net's own names and weights stay as they are.
    """

    def __init__(self, unet: nn.Module, rank: int = 8, alpha: float | None = None, conv: bool = True):
        super().__init__()
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise UserError(f"lora.rank={rank} is not a whole number from 1; give lora: {{rank: 8}}, or 0 for none")
        self.by_layer = nn.ModuleDict()
        self._hooks: list[RemovableHandle] = []
        scale = 1.0 if alpha is None else alpha / rank
        for name, layer in _layers(unet, conv):
            if min(layer.weight.shape[:2]) > rank:
                self.by_layer[name.replace(".", "/")] = Adapter(layer, rank, scale)
        if not self.by_layer:
            raise UserError(f"lora.rank={rank} leaves no layer of this U-Net to adapt; lower it")
        self.attach(unet)

    def attach(self, unet: nn.Module) -> None:
        """From now on the adapters speak in the layers of `unet`."""
        self._hooks = [layer.register_forward_hook(adapter.add) for layer, adapter in self._pairs(unet)]

    @torch.no_grad()
    def merge(self, unet: nn.Module) -> None:
        """Put the adapters into the weights of `unet`, which then answers the same without them."""
        for hook in self._hooks:
            hook.remove()
        for layer, adapter in self._pairs(unet):
            weight = layer.weight
            whole = weight.float() + adapter.delta().to(weight.device)
            layer.weight = nn.Parameter(whole.to(weight.dtype), weight.requires_grad)  # the old one may be a file's

    def _pairs(self, unet: nn.Module) -> Iterator[tuple[Any, Any]]:
        for name, adapter in self.by_layer.items():
            yield unet.get_submodule(name.replace("/", ".")), adapter


def _layers(unet: nn.Module, conv: bool) -> Iterator[tuple[str, Layer]]:
    """Linear layers and convolutions inside transformers, and with `conv` the convolutions elsewhere."""
    inside = [name for name, module in unet.named_modules() if isinstance(module, SpatialTransformer)]
    for name, module in unet.named_modules():
        attention = any(name.startswith(f"{prefix}.") for prefix in inside)
        if (attention and isinstance(module, nn.Linear)) or (isinstance(module, nn.Conv2d) and (attention or conv)):
            yield name, module
