"""Segmentation networks: their shapes and sizes, their weights on disk, and that training finds what it should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fast.data.tensors import to_tensor
from fast.segmentation import SEGMENTERS, build
from fast.segmentation.data import SegmentationSample, from_arrays
from fast.segmentation.evaluation import evaluate, predict
from fast.segmentation.layers import Heads
from fast.segmentation.losses import dice, objective
from fast.segmentation.networks import load, save
from fast.segmentation.recipes import COMMON
from fast.segmentation.train import train
from ldm.errors import UserError


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def squares(count: int, seed: int = 0, side: int = 32) -> list[SegmentationSample]:
    """Grey noise with one bright square each; the square is the defect."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for _ in range(count):
        image = rng.integers(60, 120, (side, side, 3)).astype(np.uint8)
        mask = np.zeros((side, side), np.uint8)
        top, left = rng.integers(0, side - 10, 2)
        mask[top : top + 10, left : left + 10] = 1
        image[mask > 0] += np.uint8(110)
        images.append(image)
        masks.append(mask)
    return from_arrays(images, masks, "toy/square")


def test_segformer_has_the_published_number_of_parameters() -> None:
    model = build("segformer")
    assert parameters(model) == 3_714_658
    assert parameters(model.network.segformer) == 3_319_392  # type: ignore[arg-type]


def test_mini_is_small() -> None:
    assert 500_000 < parameters(build("mini")) < 1_000_000


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
@pytest.mark.parametrize("shape", [(33, 50), (5, 64)])
def test_logits_have_the_size_of_the_picture(name: str, shape: tuple[int, int]) -> None:
    with torch.no_grad():
        count = 2 if name == "quick" else 3  # which knows one class of defects alone
        assert build(name, count).eval()(torch.zeros(2, 3, *shape)).shape == (2, count, *shape)


def test_logits_are_not_shifted() -> None:
    """A cell of a network that only copies brightness stays where it is: the padding is cut off at the right place."""
    from fast.segmentation.padding import on_multiples

    image = torch.arange(5 * 7.0).view(1, 1, 5, 7)
    torch.testing.assert_close(on_multiples(lambda x: x, image, 4), image)


def test_a_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, third = build("mini", seed=1), build("mini", seed=1), build("mini", seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert not all(map(torch.equal, first.state_dict().values(), third.state_dict().values()))


def test_a_seed_leaves_the_generator_of_a_card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fork_rng` puts back the generators that it is told of, and `torch.manual_seed` changes those of all devices."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    build("mini", seed=1)
    assert seeded == []
    torch.manual_seed(3)
    assert seeded == [3], "which would have told"


def test_saved_weights_answer_the_same(tmp_path: Path) -> None:
    model = build("mini", seed=3).eval()
    again = load(save(model, tmp_path / "w.safetensors", "mini", "drawn"))
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again(image), model(image))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_encoder_weights_are_taken_and_the_head_is_not(tmp_path: Path) -> None:
    source = build("segformer", 5, seed=0).network
    source.save_pretrained(tmp_path)  # type: ignore[operator]
    model = build("segformer", 2, weights=tmp_path / "model.safetensors", seed=1).network
    given, taken = source.segformer.state_dict(), model.segformer.state_dict()  # type: ignore[union-attr]
    assert given.keys() == taken.keys()
    assert all(torch.equal(given[k], taken[k]) for k in given)
    assert not torch.equal(source.decode_head.linear_fuse.weight, model.decode_head.linear_fuse.weight)  # type: ignore[union-attr]


def test_bad_networks_are_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="segmenter 'unet' is unknown"):
        build("unet")
    with pytest.raises(UserError, match="num_classes=1"):
        build("mini", 1)
    with pytest.raises(UserError, match="takes no encoder weights"):
        build("mini", weights=tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no MiT-B0 encoder"):
        build("segformer", weights=tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        build("segformer", weights=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="holds no segmenter"):
        load(tmp_path / "other.safetensors")


def test_training_lowers_the_loss_and_finds_the_square() -> None:
    losses: list[float] = []
    model = train(
        build("mini", seed=0),
        squares(8),
        steps=40,
        batch_size=4,
        size=32,
        lr=3e-3,
        progress=lambda step, share, loss: losses.append(loss),
    )
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
    unseen = squares(4, seed=1)
    result = evaluate(model, unseen, size=32)
    assert result["miou"] > 0.8
    assert result["ap"] > 0.95
    image, mask = unseen[0].read()
    found = predict(model, to_tensor(image)[None]).argmax(dim=1)[0].numpy()
    assert (found == mask).mean() > 0.95


def test_segformer_trains() -> None:
    losses: list[float] = []
    train(
        build("segformer", seed=0),
        squares(4),
        steps=8,
        batch_size=4,
        size=32,
        augment="none",
        progress=lambda step, share, loss: losses.append(loss),
    )
    assert losses[-1] < 0.8 * losses[0]


def test_training_is_the_same_twice_and_leaves_the_generator_alone() -> None:
    def trained(seed: int, bf16: bool = False) -> list[Tensor]:
        model = train(build("mini", seed=0), squares(3), steps=2, batch_size=2, size=32, seed=seed, bf16=bf16)
        return list(model.state_dict().values())

    before = torch.get_rng_state()
    first = trained(5)
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, first, trained(5)))
    assert not all(map(torch.equal, first, trained(6)))
    assert all(torch.isfinite(t).all() for t in trained(5, bf16=True))


def test_a_pinhole_weighs_as_much_as_a_large_area_in_dice() -> None:
    target = torch.zeros(3, 8, 8)
    target[0, :, :6] = 1  # 48 pixels, found
    target[1, 2, 2] = 1  # one, missed; nothing in the third
    answer = torch.zeros(3, 8, 8)
    answer[0, :, :6] = 1
    answer[2, 0, 0] = 0.5
    assert dice(answer, target).item() == pytest.approx((0 + (1 - 1 / 2)) / 2)
    assert dice(answer[2:], target[2:]).item() == 0
    answer.requires_grad_()
    dice(answer, target).backward()
    assert answer.grad is not None
    assert answer.grad[1, 2, 2] < 0
    assert answer.grad[2].abs().max() == 0


def test_objective_against_a_picture_worked_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 4)  # a half for either class everywhere: cross-entropy log 2
    target = torch.tensor([[[1, 0, 0, 0]]])
    assert objective(Heads([logits]), target, "ce").item() == pytest.approx(np.log(2))
    assert dice(torch.full((1, 1, 4), 0.5), target.float()).item() == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))
    assert objective(Heads([logits]), target, "ce+dice").item() == pytest.approx(np.log(2) + 0.5)
    logits[0, 1, 0, 0] = 2.0  # now the defect pixel is better; weighted 3 in 3 + 1 + 1 + 1
    expected = (3 * np.log(1 + np.exp(-2)) + 3 * np.log(2)) / 6
    assert objective(Heads([logits]), target, "ce", defect_weight=3).item() == pytest.approx(expected)


def test_schedule_rises_and_falls_to_zero() -> None:
    assert COMMON.factor(0.0) == pytest.approx(0.01)
    assert COMMON.factor(0.05) == pytest.approx(0.95**0.9)
    assert COMMON.factor(0.025) == pytest.approx(0.5 * 0.975**0.9)
    assert COMMON.factor(1.0) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "steps=None, minutes=None"),
        ({"steps": 0}, "steps=0"),
        ({"minutes": -1.0}, "minutes=-1.0"),
        ({"steps": 1, "batch_size": 1}, "batch_size=1"),
        ({"steps": 1, "lr": 0.0}, "lr=0.0"),
        ({"steps": 1, "loss": "focal"}, "loss 'focal' is unknown"),
        ({"steps": 1, "size": 8}, "size=8"),
    ],
)
def test_bad_training_options_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(nn.Conv2d(3, 2, 1), squares(2), **options)  # type: ignore[arg-type]


def test_nothing_to_train_on_and_a_diverging_loss_are_refused() -> None:
    with pytest.raises(UserError, match="no pairs to train"):
        train(nn.Conv2d(3, 2, 1), [], steps=1)
    broken = nn.Conv2d(3, 2, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(UserError, match="lower lr"):
        train(broken, squares(2), steps=1, size=32)


def test_what_ends_first_ends_the_training() -> None:
    steps: list[tuple[int, float]] = []
    train(
        build("mini", seed=0),
        squares(2),
        steps=9,
        minutes=1e-9,
        batch_size=2,
        size=32,
        progress=lambda step, share, loss: steps.append((step, share)),
    )
    assert steps == [(1, 1.0)]
