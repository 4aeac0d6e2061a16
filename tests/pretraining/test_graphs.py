"""What is recorded of a U-Net's calls before they become graphs."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fast.pretraining.graphs import compiled, recorded_calls


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return x * self.weight + context.mean() + t.sum()


def test_each_loss_leaves_its_own_copy_of_the_arguments() -> None:
    net, words = Net(), torch.ones(1, 2, requires_grad=True)
    sides = [torch.zeros(2, 3), torch.zeros(5, 3)]
    calls = recorded_calls(
        net, [partial(lambda x: net(x, torch.ones(1), context=words * 2).sum(), side) for side in sides]
    )
    assert [call[0].shape for call in calls] == [(2, 3), (5, 3)]
    for x, t, context in calls:
        assert (x.requires_grad, t.requires_grad, context.requires_grad) == (False, False, True)
        assert context.is_leaf
        assert torch.equal(context, torch.full((1, 2), 2.0))
    assert calls[0][0].data_ptr() != sides[0].data_ptr()
    assert not net._forward_pre_hooks


def test_a_loss_with_two_calls_or_other_arguments_is_refused() -> None:
    net = Net()

    def twice() -> Tensor:
        once = partial(net, torch.zeros(1), torch.zeros(1), context=torch.zeros(1))
        return once() + once()

    with pytest.raises(ValueError, match="calls the U-Net 2 times"):
        recorded_calls(net, [twice])
    with pytest.raises(ValueError, match="not recorded"):
        recorded_calls(net, [lambda: net(torch.zeros(1), torch.zeros(1))])
    assert not net._forward_pre_hooks


def test_a_net_that_does_not_compile_is_told_and_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        def call(*_: object, **__: object) -> Tensor:
            raise RuntimeError("no\ncompiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    net, said = Net(), list[str]()
    assert compiled(net, [(torch.zeros(1), torch.zeros(1), torch.zeros(1))], said.append) is net
    assert said == ["the U-Net is not compiled: no compiler"]


def test_a_net_that_compiles_keeps_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda net, **_: net.forward)  # no compiler in tests
    net, call = Net(), (torch.zeros(2), torch.zeros(1), torch.ones(1))
    fused = compiled(net, [call], pytest.fail)
    assert fused == net.forward
    assert net.weight.grad is None
