"""The default segmenter: what of its encoder stays, and that it learns."""

import numpy as np
import pytest
import torch

from fast.features.efficientnet import pretrained
from fast.segmentation import build
from fast.segmentation.data import from_arrays
from fast.segmentation.evaluation import evaluate
from fast.segmentation.fpn import FPN
from fast.segmentation.recipes import find
from fast.segmentation.train import train
from ldm.errors import UserError


def pairs(count: int, first: int = 0) -> list:
    rng = np.random.default_rng(first)
    images = rng.integers(100, 140, (count, 64, 64, 3)).astype(np.uint8)
    masks = np.zeros((count, 64, 64), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        y, x = rng.integers(4, 40, 2)
        mask[y : y + 18, x : x + 18] = 1
        image[mask > 0] //= 2
    return from_arrays(images, masks, "part/spot")


def test_it_comes_with_the_shipped_encoder_and_keeps_its_statistics_and_finest_layers() -> None:
    model, shipped = build("fpn", seed=0), pretrained().state_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(before[f"encoder.{name}"], tensor) for name, tensor in shipped.items())
    train(model, pairs(4), steps=3, batch_size=4, size=64)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert not any(name.startswith(("encoder.stem.", "encoder.stages.0.", "encoder.stages.1.")) for name in changed)
    assert not any("running" in name for name in changed if name.startswith("encoder."))
    assert {"encoder.stages.2.0.expand.conv.weight", "encoder.stages.6.0.project.bn.weight", "head.weight"} <= changed


def test_it_learns_in_a_few_steps() -> None:
    model = train(build("fpn", seed=0), pairs(8), steps=25, batch_size=8, size=64, lr=1e-3)
    assert evaluate(model, pairs(6, first=1), size=64)["miou"] > 0.4  # the square alone is 0.08 of the image


def test_a_defect_pixel_weighs_as_one_in_its_recipe() -> None:
    assert find("common", build("fpn")).defect_weight == 1
    assert find("common", build("mini")).defect_weight == 3
    with pytest.raises(UserError, match="nothing is published for FPN"):
        find("published", build("fpn"))


def test_pictures_of_any_size_and_classes() -> None:
    with torch.no_grad():
        assert FPN(4).eval()(torch.zeros(1, 3, 70, 41)).shape == (1, 4, 70, 41)
