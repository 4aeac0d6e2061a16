"""Trainings that last a time: how long, what the rate does, and that sittings add up to one training."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fast.pretraining.loop as loop_module
from fast.pretraining.loop import LEAST_RATE, WARM_UP, Deadline, Interrupted, TimedTraining
from ldm.checkpoint import save_safetensors
from ldm.errors import UserError


class Clock:
    """Seconds that pass with every look at it."""

    def __init__(self, step: float = 0.5):
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop_module, "time", clock)
    return clock


def network() -> nn.Sequential:
    torch.manual_seed(3)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(256, 2)
    )
    return layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def training(path: Path | None, seconds: float, averaged: str | None = "net") -> TimedTraining:
    return TimedTraining(path, {"net": network()}, seconds, 1e-2, torch.device("cpu"), False, averaged)


def loss_of(trained: TimedTraining) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        source = torch.Generator().manual_seed(step)
        out: Tensor = trained.parts["net"](torch.randn(2, 3, 8, 8, generator=source))
        trained.windows += 2
        return (out - 1).square().mean()

    return loss


def nothing(_: int) -> None:
    pass


def run(
    trained: TimedTraining, deadline: Deadline | None = None, between: Callable[[int], None] = nothing
) -> list[str]:
    said: list[str] = []
    trained.run(loss_of(trained), between, deadline or Deadline(), report=said.append)
    return said


def tensors(trained: TimedTraining) -> Iterator[Tensor]:
    yield from trained.parameters
    yield from trained.averages
    for parameter in trained.parameters:
        yield from (value for _, value in sorted(trained.optimizer.state[parameter].items()))


def test_it_trains_until_its_seconds_are_spent_and_no_longer(clock: Clock) -> None:
    trained = training(None, 10.0)
    run(trained)
    assert trained.step == 20  # one look at the clock for each step
    assert trained.spent == 10.0
    assert trained.done
    run(trained)
    assert trained.step == 20


def test_the_rate_rises_with_the_steps_and_falls_with_the_time(clock: Clock) -> None:
    trained = training(None, 300.0)
    rates: list[float] = []
    run(trained, between=lambda _: rates.append(trained.optimizer.param_groups[0]["lr"]))
    assert rates[0] == pytest.approx(1e-2 / WARM_UP)
    assert max(rates) < 1e-2
    assert WARM_UP * 0.8 < rates.index(max(rates)) <= WARM_UP
    half = rates[len(rates) // 2]
    assert half == pytest.approx(1e-2 * (LEAST_RATE + (1 - LEAST_RATE) / 2), rel=0.02)
    assert rates[-1] == pytest.approx(1e-2 * LEAST_RATE, rel=0.01)


@pytest.mark.parametrize("averaged", ["net", None])
def test_interrupted_and_resumed_it_is_the_training_without_a_break(
    clock: Clock, tmp_path: Path, averaged: str | None
) -> None:
    whole = training(None, 12.0, averaged)
    run(whole)
    path, deadline = tmp_path / "base.train.safetensors", Deadline()
    first = training(path, 12.0, averaged)

    def stop(step: int) -> None:
        deadline.stopping = step == 9

    with pytest.raises(Interrupted, match="interrupted at step 9 of base; run the same command to go on"):
        run(first, deadline, stop)
    second = training(path, 12.0, averaged)
    assert (second.step, second.spent, second.windows) == (9, 4.5, 18)
    run(second)
    assert (second.step, second.windows) == (whole.step, whole.windows)
    for found, expected in zip(tensors(second), tensors(whole), strict=True):
        assert torch.equal(found, expected)
    assert all(map(torch.equal, second.weights().values(), whole.weights().values()))


def test_what_comes_back_lies_in_memory_as_the_weights_do(clock: Clock, tmp_path: Path) -> None:
    """A fused AdamW refuses moments in another order than channels-last weights have."""
    path = tmp_path / "t.train.safetensors"
    run(training(path, 3.0))
    again = training(path, 6.0)
    convolution = again.parameters[0]
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()
    for parameter, average in zip(again.parameters, again.averages, strict=True):
        moments = again.optimizer.state[parameter]
        assert moments["exp_avg"].any()
        for moment in (moments["exp_avg"], moments["exp_avg_sq"], average):
            assert moment.stride() == parameter.stride()
    fused = TimedTraining(path, {"net": network()}, 6.0, 1e-2, torch.device("cpu"), False, "net")
    fused.optimizer.param_groups[0]["fused"] = True
    run(fused)
    assert fused.step > 6


def test_averages_forget_the_first_weights_and_lag_behind_the_last(clock: Clock) -> None:
    trained = training(None, 20.0)
    followed = [p.detach().clone() for p in trained.parameters]

    def follow(step: int) -> None:
        decay = min(0.999, (1 + step - 1) / (10 + step - 1))  # of the step before this one counted
        for average, parameter in zip(followed, trained.parameters, strict=True):
            average += (1 - decay) * (parameter.detach() - average)

    run(trained, between=follow)
    for average, expected, last in zip(trained.averages, followed, trained.parameters, strict=True):
        torch.testing.assert_close(average, expected)
        assert not torch.equal(average, last)
    assert list(trained.weights()) == list(trained.parts.state_dict())


def test_a_step_whose_gradients_are_no_numbers_is_left_out_and_counted(clock: Clock) -> None:
    trained, plain = training(None, 10.0), training(None, 9.5)
    good = loss_of(trained)

    def loss(step: int) -> Tensor:
        return good(step) * (float("nan") if step == 7 else 1)

    said: list[str] = []
    trained.run(loss, nothing, Deadline(), report=said.append)
    assert "1 steps without an update, for their gradients were no numbers" in said[-1]
    assert all(p.isfinite().all() for p in trained.parameters)
    run(plain)
    steps = [int(trained.optimizer.state[p]["step"]) for p in trained.parameters]
    assert set(steps) == {19}
    assert {int(plain.optimizer.state[p]["step"]) for p in plain.parameters} == {19}


def test_a_loss_that_is_no_number_ends_the_training(clock: Clock) -> None:
    trained = training(None, 4.0)
    with pytest.raises(UserError, match="the loss is no number at step"):
        trained.run(lambda step: 0 * loss_of(trained)(step) * float("inf"), nothing, Deadline(), report=lambda _: None)


def test_files_of_something_else_are_refused(clock: Clock, tmp_path: Path) -> None:
    foreign, other = tmp_path / "a.train.safetensors", tmp_path / "b.train.safetensors"
    save_safetensors({"x": torch.zeros(1)}, foreign, {})
    with pytest.raises(UserError, match="is no training to go on with; remove it or name another --out"):
        training(foreign, 1.0)
    run(TimedTraining(other, {"net": nn.Linear(2, 2)}, 0.0, 1e-2, torch.device("cpu"), False))
    with pytest.raises(UserError, match="is of another network"):
        training(other, 1.0)


def test_a_second_interrupt_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline()
    before = signal.getsignal(signal.SIGINT)
    with deadline.watched():
        os.kill(os.getpid(), signal.SIGINT)
        assert deadline.stopping
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
