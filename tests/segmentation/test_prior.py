"""How common a segmenter takes defect pixels to be, against shares that are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fast.segmentation import build
from fast.segmentation.data import SegmentationSample, Views, from_arrays
from fast.segmentation.evaluation import predict
from fast.segmentation.module import Batches
from fast.segmentation.networks import inference_parameters, load, save
from fast.segmentation.prior import Corrected, PixelShare, corrected, oversampling
from fast.segmentation.train import train
from ldm.checkpoint import read_state_dict, save_safetensors
from ldm.errors import UserError


class Constant(nn.Module):
    """The same answer everywhere: all that a network can learn where nothing shows what is a defect."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_classes))

    def forward(self, image: Tensor) -> Tensor:
        return self.logits[None, :, None, None].expand(len(image), -1, *image.shape[-2:])


def marked(side: int, square: int, *, synthetic: bool = False, label: int = 1) -> SegmentationSample:
    """A grey picture whose defect, a square in its middle, cannot be seen."""
    mask = np.zeros((side, side), np.uint8)
    start = (side - square) // 2
    mask[start : start + square, start : start + square] = 1
    (pair,) = from_arrays([np.full((side, side, 3), 128, np.uint8)], [mask], "toy/square")
    return replace(pair, synthetic=synthetic, label=label)


def chance(network: nn.Module) -> float:
    """Probability of a defect, of any type."""
    return 1 - float(predict(network, torch.zeros(1, 3, 16, 16)).softmax(dim=1)[0, 0, 0, 0])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_network_expects_as_many_defect_pixels_as_real_pictures_have(classes: int) -> None:
    """In windows around the square it is a good part of what is drawn, and 1 % of the pictures; a tenth of all that is
    drawn are normal images, which lower the chance of a defect in all windows."""
    pairs = [marked(80, 8, label=label) for label in range(1, classes)]
    normal = from_arrays([np.full((80, 80, 3), 128, np.uint8)], [None], "toy/good")[0]
    pairs = [*(replace(p, weight=0.9 / len(pairs)) for p in pairs), replace(normal, weight=0.1)]
    # 10,000 numbers a step: the share of what is drawn hardly varies.
    how = {"steps": 150, "batch_size": 40, "size": 16, "native": True, "augment": "none", "loss": "ce", "lr": 0.05}
    how |= {"defect_weight": 1.0}
    drawn = train(Constant(classes), pairs, **how)  # type: ignore[arg-type]
    real = train(Constant(classes), pairs, prior="real", **how)  # type: ignore[arg-type]
    assert isinstance(real, Corrected)
    assert chance(drawn) > 0.05
    odds = 0.01 / 0.99
    share = real.oversampling * odds / (1 + real.oversampling * odds)  # of windows of pictures with a defect
    assert chance(drawn) == pytest.approx(0.9 * share, rel=0.1)
    odds = chance(drawn) / (1 - chance(drawn)) / real.oversampling
    assert chance(real) == pytest.approx(odds / (1 + odds), rel=1e-4)
    assert chance(real) == pytest.approx(0.01 * 0.9, rel=0.1)


def test_what_the_loss_weighs_stays() -> None:
    """Three times the weight are three times the odds, corrected or not."""
    how = {"steps": 150, "batch_size": 40, "size": 16, "native": True, "augment": "none", "loss": "ce", "lr": 0.05}
    odds = []
    for weight in (1.0, 3.0):
        network = train(Constant(), [marked(80, 8)], prior="real", defect_weight=weight, **how)  # type: ignore[arg-type]
        odds.append(chance(network) / (1 - chance(network)))
    assert odds[1] / odds[0] == pytest.approx(3, rel=0.02)


def test_only_the_real_pictures_say_how_common_defects_are() -> None:
    """100 of 1,600 px, whatever pairs and normal images show."""
    normal = from_arrays([np.zeros((40, 40, 3), np.uint8)], [None], "toy/good")[0]
    fake = replace(normal, synthetic=True)
    pair = marked(40, 30, synthetic=True)
    drawn = PixelShare()
    labels = np.zeros((10, 10), np.uint8)
    labels[:5] = 1
    labels[9] = 255
    drawn.add(labels)
    assert drawn.odds == 50 / 40
    found = oversampling(drawn, Views([pair, marked(40, 10), fake, normal], 40))
    assert found == pytest.approx((50 / 40) / (100 / 1500))
    assert oversampling(drawn, Views([pair, fake], 40)) == pytest.approx((50 / 40) / (900 / 700))
    assert oversampling(drawn, Views([normal, fake], 40)) == 1
    assert oversampling(PixelShare(), Views([marked(40, 10)], 40)) == 1
    assert oversampling(drawn, Views([marked(40, 40)], 40)) == 1


def test_what_is_drawn_is_counted_without_normal_images() -> None:
    normal = from_arrays([np.zeros((32, 32, 3), np.uint8)], [None], "toy/good")[0]
    batches = Batches(Views([marked(32, 8), normal], 32), 3, 10, 0, "none")
    labels = torch.stack([batches[step][1] for step in range(3)])
    shown = labels.flatten(2).any(dim=2)
    assert 0 < int(shown.sum()) < 30
    assert batches.drawn.defect == int((labels == 1).sum())
    assert batches.drawn.others == int(shown.sum()) * 32 * 32 - batches.drawn.defect


def test_the_order_of_scores_stays_and_the_threshold_moves() -> None:
    network = build("mini", 3, seed=0).eval()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, changed = (predict(n, image).softmax(dim=1) for n in (network, corrected(network, 4.0)))
    odds = (1 - plain[:, 0]) / plain[:, 0]
    torch.testing.assert_close(1 - changed[:, 0], odds / 4 / (1 + odds / 4))
    torch.testing.assert_close(changed[:, 1] / changed[:, 2], plain[:, 1] / plain[:, 2])  # types as before
    with torch.autocast("cpu", torch.bfloat16):  # no scores become one by being shifted in half precision
        assert Corrected(network, 4.0)(image).dtype == torch.float32


def test_it_is_saved_with_the_weights_and_trained_without(tmp_path: Path) -> None:
    network = build("mini", seed=3).eval()
    file = save(Corrected(network, np.float64(7.25)), tmp_path / "w.safetensors", "mini", "drawn")
    again, image = load(file), torch.rand(1, 3, 32, 32)
    assert isinstance(again, Corrected)
    assert again.oversampling == 7.25
    torch.testing.assert_close(again(image), Corrected(network, 7.25)(image))
    torch.testing.assert_close(build("mini", weights=file).eval()(image), network(image))
    options = {"steps": 1, "batch_size": 2, "size": 32}
    trained = train(again, [marked(32, 8)], **options)  # type: ignore[arg-type]
    assert inference_parameters(again) == inference_parameters(network)
    assert not isinstance(trained, Corrected)
    assert trained is again.network


def test_an_unknown_prior_is_refused() -> None:
    with pytest.raises(UserError, match="prior 'test' is unknown; use one of real, drawn"):
        train(Constant(), [marked(32, 8)], steps=1, batch_size=2, size=32, prior="test")


@pytest.mark.parametrize("text", ["-1", "much", "inf", "nan", "0"])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    file = save(Corrected(build("mini", seed=3), 2.0), tmp_path / "w.safetensors", "mini", "drawn")
    about = {"segmenter": "mini", "num_classes": "2", "split": "drawn", "oversampling": text}
    save_safetensors(read_state_dict(file), file, about)
    with pytest.raises(UserError, match=f"oversampling '{text}' is no number above 0"):
        load(file)
