"""Learned perceptual distance (Zhang et al. 2018): weighted differences of normalized VGG16 or AlexNet features."""

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# Output channels of the convolutions of each slice; all slices but the first begin with a 2x2 maximum.
SLICES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# Number in `features`, output channels and kernel of AlexNet's later convolutions, and whether a 3x3 maximum precedes.
ALEX = ((3, 192, 5, True), (6, 384, 3, True), (8, 256, 3, False), (10, 256, 3, False))


class _Slices(nn.Module):
    """Parts one after the other, each one's output a feature."""

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features


class VGG16Features(_Slices):
    """ReLU outputs before each pooling of VGG16. Layers carry the numbers they have in torchvision's `features`."""

    def __init__(self) -> None:
        super().__init__()
        number, before = 0, 3
        for s, widths in enumerate(SLICES, start=1):
            part = nn.Sequential()
            if s > 1:
                part.add_module(str(number), nn.MaxPool2d(2))
                number += 1
            for width in widths:
                part.add_module(str(number), nn.Conv2d(before, width, 3, padding=1))
                part.add_module(str(number + 1), nn.ReLU(inplace=True))
                number, before = number + 2, width
            self.add_module(f"slice{s}", part)


class AlexNetFeatures(_Slices):
    """ReLU outputs of AlexNet's convolutions. Layers carry the numbers they have in torchvision's `features`."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1 = nn.Sequential(OrderedDict({"0": nn.Conv2d(3, 64, 11, 4, 2), "1": nn.ReLU(inplace=True)}))
        before = 64
        for s, (number, width, side, pooled) in enumerate(ALEX, start=2):
            part = nn.Sequential()
            if pooled:
                part.add_module(str(number - 1), nn.MaxPool2d(3, 2))
            part.add_module(str(number), nn.Conv2d(before, width, side, padding=side // 2))
            part.add_module(str(number + 1), nn.ReLU(inplace=True))
            self.add_module(f"slice{s}", part)
            before = width


class ScalingLayer(nn.Module):
    """[-1, 1] to the statistics the networks were trained with."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class NetLinLayer(nn.Module):
    """Non-negative weights over the channels of one feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _unit(x: Tensor) -> Tensor:
    """Unit length over channels; the small term keeps the gradient finite where every channel is off."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-20)


class LPIPS(nn.Module):
    """Frozen distance between images; `weights`: a file to load strictly, None leaves it random (for tests); `net`:
    "vgg" or "alex".

    Raises `FileNotFoundError` or, for a file that is not such weights, `ValueError`.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None, net: str = "vgg") -> None:
        super().__init__()
        self.scaling_layer = ScalingLayer()
        self.net = {"vgg": VGG16Features, "alex": AlexNetFeatures}[net]()
        widths = [w[-1] for w in SLICES] if net == "vgg" else [64, *(width for _, width, _, _ in ALEX)]
        for i, width in enumerate(widths):
            self.add_module(f"lin{i}", NetLinLayer(width))
        if weights is not None:
            self._load(Path(weights))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "LPIPS":
        """Always in evaluation: the distance that trains another network must not drop features at random."""
        return super().train(False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two images (B, 3, H, W) in [-1, 1] -> distances (B, 1, 1, 1)."""
        total = input.new_zeros((len(input), 1, 1, 1), dtype=torch.float32)
        pairs = zip(self.net(self.scaling_layer(input)), self.net(self.scaling_layer(target)), strict=True)
        for i, (a, b) in enumerate(pairs):
            difference = (_unit(a) - _unit(b)).square()
            total = total + self.get_submodule(f"lin{i}")(difference).mean((2, 3), keepdim=True)
        return total

    def embed(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [-1, 1] -> (B,D): the squared Euclidean distance of two embeddings is their `forward`. For
        weights that are no less than 0, as trained ones are."""
        parts = []
        for i, feature in enumerate(self.net(self.scaling_layer(image))):
            weight = self.get_parameter(f"lin{i}.model.1.weight")
            parts.append((_unit(feature) * (weight.sqrt() / feature[0, 0].numel() ** 0.5)).flatten(1))
        return torch.cat(parts, dim=1)

    def _load(self, path: Path) -> None:
        own = self.state_dict()
        state = _rename(_read(path), own)
        wrong = sorted(set(own) ^ set(state)) + [
            k for k in own if k in state and own[k].shape != getattr(state[k], "shape", None)
        ]
        if wrong:
            raise ValueError(
                f"{path} does not hold LPIPS weights: {len(wrong)} keys missing, unexpected or of another shape "
                f"({', '.join(wrong[:3])}, ...); it needs the convolutions and lin0..lin4 in one file"
            )
        self.load_state_dict(state, strict=True)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"LPIPS weights {path} do not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"LPIPS weights {path} are damaged or of another format ({error})") from error
    except Exception as error:  # pickle raises what it likes for a foreign file
        raise ValueError(f"LPIPS weights {path} are not a torch file of tensors alone") from error
    if not isinstance(data, dict):
        raise ValueError(f"LPIPS weights {path} hold a {type(data).__name__}, not a dictionary of tensors")
    return data.get("state_dict", data)


def _rename(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names to ours; its classifier is dropped, the constants of the scaling layer filled in."""
    slices = {".".join(k.split(".")[2:]): k for k in own if k.startswith("net.")}  # "0.weight" -> "net.slice1.0.weight"
    renamed = {k: own[k] for k in own if k.startswith("scaling_layer.")}
    for name, value in state.items():
        if not name.startswith("classifier."):
            renamed[slices.get(name.removeprefix("features."), name) if name.startswith("features.") else name] = value
    return renamed
