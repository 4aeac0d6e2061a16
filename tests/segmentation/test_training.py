"""Training a segmenter: recipes, averaged weights, classes, seeds, and what happens when it is stopped."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fast.segmentation import build
from fast.segmentation.data import SegmentationSample, Views, from_arrays
from fast.segmentation.evaluation import predict
from fast.segmentation.layers import Heads
from fast.segmentation.losses import objective
from fast.segmentation.module import Batches
from fast.segmentation.train import train
from ldm.errors import UserError


def halves(count: int, side: int = 32) -> list[SegmentationSample]:
    """Dark pictures with a bright part, which is the defect."""
    rng = np.random.default_rng(0)
    masks = [np.zeros((side, side), np.uint8) for _ in range(count)]
    for mask in masks:
        mask[: rng.integers(8, side - 8), : rng.integers(8, side - 8)] = 1
    return from_arrays([np.repeat(mask[..., None] * np.uint8(200), 3, axis=2) for mask in masks], masks, "toy/part")


class Point(nn.Module):
    """A pixel's classes from its colour, after a batch norm."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(3), nn.Conv2d(3, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.norm(image))


def point(num_classes: int = 2) -> Point:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Point(num_classes)


@pytest.mark.parametrize("name", ["bisenetv2", "stdc", "segformer"])
def test_published_recipes_train_every_part(name: str) -> None:
    model = build(name, seed=0)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    losses: list[float] = []
    train(model, halves(4), steps=4, batch_size=2, size=32, recipe="published", lr=0.01, augment="none",
          progress=lambda step, share, loss: losses.append(loss))  # fmt: skip
    assert np.isfinite(losses).all()
    # The shift of a norm that another norm follows may rest; kernels do not.
    resting = {key for key, p in model.named_parameters() if p.ndim > 1 and torch.equal(before[key], p)}
    assert resting == set()


def test_auxiliary_heads_learn_under_the_common_recipe() -> None:
    model = build("stdc", seed=0)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    train(model, halves(4), steps=2, batch_size=4, size=32)
    resting = {key for key, p in model.named_parameters() if torch.equal(before[key], p)}
    assert {key.rpartition(".")[0] for key in resting} == {"aux.detail.0.conv", "aux.detail.0.bn", "aux.detail.1"}


def test_averaged_weights_are_returned() -> None:
    """Against the running mean written out, batch norm's statistics included."""
    model, states = point(), list[dict[str, Tensor]]()
    keep = lambda *_: states.append({k: v.clone() for k, v in model.state_dict().items()})  # noqa: E731
    train(model, halves(4), steps=5, batch_size=4, size=32, lr=0.05, ema=0.3, progress=keep)
    mean = states[0]
    for step, state in enumerate(states[1:], 2):
        decay = min(0.3, (1 + step) / (10 + step))
        mean = {k: decay * mean[k] + (1 - decay) * v for k, v in state.items()}
    for key in ("norm.weight", "norm.running_mean", "norm.running_var", "last.weight", "last.bias"):
        torch.testing.assert_close(model.state_dict()[key], mean[key])
        assert not torch.allclose(mean[key], states[-1][key], rtol=1e-6, atol=1e-8)


def test_dropout_depends_on_the_seed_alone() -> None:
    def trained(seed: int) -> list[Tensor]:
        model = train(build("bisenetv2", seed=0), halves(3), steps=2, batch_size=2, size=32, seed=seed)
        return list(model.state_dict().values())

    first = trained(1)
    torch.rand(3)
    state = torch.get_rng_state()
    assert all(map(torch.equal, first, trained(1)))
    assert torch.equal(state, torch.get_rng_state())


def test_types_are_told_apart() -> None:
    """Red and green defects, each a class of its own."""
    pairs = []
    for label, channel in ((1, 0), (2, 1)):
        for pair in halves(3):
            image = pair.image.copy()  # type: ignore[union-attr]
            image[..., [c for c in range(3) if c != channel]] = 0
            pairs.append(replace(pair, image=image, label=label))
    _, labels = Batches(Views(pairs, 32), 1, 16, 0, "light")[0]
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == [0, 1, 2]
    model = train(point(3), pairs, steps=60, batch_size=6, size=32, lr=0.1, augment="none")
    for pair in (pairs[0], pairs[-1]):
        image, mask = pair.read()
        found = predict(model, torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1).argmax(dim=1)[0]
        np.testing.assert_array_equal(found.numpy(), mask * pair.label)
    with pytest.raises(UserError, match="labels need 3 classes, the segmenter has 2"):
        train(point(2), pairs, steps=1, batch_size=2, size=32)


def test_training_sees_windows_and_tests_the_whole() -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 15:20] = 1
    pair = from_arrays([np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)], [mask])
    views = Views(pair, 64, crop=24)
    assert views.plain(0)[1].shape == (64, 64)
    drawn = [views.draw(0, np.random.default_rng(seed)) for seed in range(60)]
    assert {(*image.shape, *seen.shape) for image, seen in drawn} == {(24, 24, 3, 24, 24)}
    assert max(((image[..., 0] > 128) != (seen > 0)).mean() for image, seen in drawn) < 0.1
    assert 25 <= sum(seen.any() for _, seen in drawn) <= 50
    shapes: list[tuple[int, ...]] = []

    class Seen(Point):
        def forward(self, image: Tensor) -> Tensor:
            shapes.append(tuple(image.shape))
            return super().forward(image)

    train(Seen(), pair, steps=1, batch_size=2, size=64, crop=24)
    assert shapes == [(2, 3, 24, 24)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": 64}, "crop=64 lies outside 16..32"),
        ({"crop": 16, "native": True}, "crop=16"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"recipe": "best"}, "recipe 'best' is unknown"),
        ({"loss": "published"}, "nothing is published for Point"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        train(point(), halves(2), steps=1, size=32, **options)  # type: ignore[arg-type]


def test_a_defect_labelled_as_background_is_refused() -> None:
    with pytest.raises(UserError, match="label below 1"):
        train(point(), [replace(pair, label=0) for pair in halves(2)], steps=1)


def test_the_clock_alone_ends_a_training() -> None:
    shares: list[float] = []
    train(point(), halves(2), minutes=1e-9, size=32, progress=lambda step, share, loss: shares.append(share))
    assert shares == [1.0]


def stop_at_second(stop: Callable[[], object]) -> Callable[[int, float, float], None]:
    def progress(step: int, share: float, loss: float) -> None:
        if step == 2:
            stop()
        assert step < 3

    return progress


def test_a_stop_is_no_finished_training() -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run = {"steps": 9, "batch_size": 2, "size": 32}
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(point(), halves(2), **run, progress=stop_at_second(lambda: signal.raise_signal(signal.SIGINT)))  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as ended:
        train(point(), halves(2), **run, progress=stop_at_second(lambda: signal.raise_signal(signal.SIGTERM)))  # type: ignore[arg-type]
    assert ended.value.code == 128 + signal.SIGTERM
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_trainings_side_by_side_and_their_stop(capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def job(model: nn.Module, stop: bool) -> list[Tensor]:
        progress = stop_at_second(interrupt) if stop else None
        trained = train(model, halves(2), steps=9, batch_size=2, size=32, progress=progress)
        return list(trained.state_dict().values())

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(job, point(), True) for _ in range(2)]:
            with pytest.raises(KeyboardInterrupt):
                future.result()
        beside = [future.result() for future in [pool.submit(job, point(), False) for _ in range(2)]]
    alone = job(point(), False)
    assert all(all(map(torch.equal, alone, other)) for other in beside)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("loss", ["ce", "ce+dice", "ohem", "ohem+detail"])
def test_no_loss_sees_ignored_pixels(loss: str) -> None:
    source = torch.Generator().manual_seed(0)
    logits, detail = (torch.randn(2, k, 16, 16, generator=source, requires_grad=True) for k in (2, 1))
    target = torch.zeros(2, 16, 16, dtype=torch.int64)
    target[:, 4:9, 3:12] = 1
    target[:, :, 7:] = 255
    value = objective(Heads([logits], detail), target, loss, 2.0)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :, 7:].any()
    assert logits.grad[:, :, :, :7].any()
    if loss == "ohem+detail":
        assert detail.grad is not None
        assert not detail.grad[:, :, :, 7:].any()
        assert detail.grad[:, :, :, :5].any()
    nothing = objective(Heads([logits], detail), torch.full_like(target, 255), loss, 2.0)
    assert bool(torch.isfinite(nothing))
