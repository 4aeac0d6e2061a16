"""The shipped encoder: its numbers against those of the published network, its padding, and a missing file."""

from pathlib import Path

import pytest
import torch

from fast.features.efficientnet import CHANNELS, STRIDES, Layer, pretrained
from ldm.errors import UserError


def test_features_are_those_of_the_published_weights() -> None:
    image = torch.sin(torch.arange(3 * 64 * 64).reshape(1, 3, 64, 64) * 0.01)
    with torch.no_grad():
        found = pretrained().eval()(image)
    assert [tuple(f.shape[1:]) for f in found] == [
        (c, 64 // s, 64 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]
    # Computed once with the package efficientnet_lite_pytorch, whose own weights are in float32.
    published = [(0.2335, 8.105), (-0.599, 12.65), (-0.378, 10.53), (0.244, 5.956), (0.104, 2.600)]
    for features, (mean, spread) in zip(found, published, strict=True):
        assert features.mean().item() == pytest.approx(mean, abs=0.01)
        assert features.std().item() == pytest.approx(spread, rel=2e-3)


def test_strided_convolutions_pad_to_the_right_and_bottom() -> None:
    """TensorFlow's SAME for even sides: the kernel's centre lies on pixels 1, 3, 5, ... of a 3x3, not on 0, 2, 4."""
    layer = Layer(1, 1, 3, stride=2, relu=False).eval()
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 1, 1] = 1
        found = layer(torch.arange(16.0).reshape(1, 1, 4, 4))
    torch.testing.assert_close(found[0, 0], torch.tensor([[5.0, 7.0], [13.0, 15.0]]), rtol=1e-3, atol=0)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors do not exist"):
        pretrained(tmp_path / "gone.safetensors")
