"""A U-Net's training steps as CUDA graphs: a small network leaves the card waiting for the launches of its thousand
kernels, and a graph launches all of them at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[Tensor, Tensor, Tensor]  # x, t and context of a U-Net


class _Positional(nn.Module):
    """A U-Net whose context is no keyword; `call` computes it."""

    def __init__(self, unet: nn.Module, call: Callable[..., Any]):
        super().__init__()
        self.unet = unet  # for its weights, which the graph's gradients are of
        self._call = [call]  # in a list, so that a compiled twin is not counted as weights of its own

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Any:
        return self._call[0](x, t, context=context)


def compiled(unet: nn.Module, calls: Sequence[Call], report: Callable[[str], None] = print) -> Callable[..., Any]:
    """`unet` with its norms, activations and casts fused into few kernels, tried forwards and backwards on each of
    `calls`; `unet` itself, and a line to `report`, where that fails here."""
    fused = torch.compile(unet, fullgraph=True, dynamic=False)
    try:
        for x, t, context in calls:
            fused(x, t, context=context).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler may fail in any way, and training goes on without it
        report(f"the U-Net is not compiled: {' '.join(str(error).split())[:160]}")
        return unet
    finally:
        unet.zero_grad(set_to_none=True)
    return fused


def recorded_calls(unet: nn.Module, losses: Sequence[Callable[[], Tensor]]) -> list[Call]:
    """The one call of `unet` that each of `losses` makes, with arguments of its own. Raises `ValueError` for another
    number of calls, or other arguments than x, t and a context."""
    calls: list[Call] = []

    def note(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if set(options) - {"context"} or not isinstance(options.get("context"), Tensor):
            raise ValueError(f"a U-Net with the arguments {', '.join(options)} is not recorded")
        x, t, context = *args, options["context"]
        calls.append((_alike(x), _alike(t), _alike(context)))

    handle = unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for number, loss in enumerate(losses, 1):
            loss()
            if len(calls) != number:
                raise ValueError(f"the loss calls the U-Net {len(calls) - number + 1} times, not once")
    finally:
        handle.remove()
    return calls


def _alike(given: Tensor) -> Tensor:
    return given.detach().clone().requires_grad_(given.requires_grad)


@contextmanager
def replayed(
    unet: nn.Module,
    losses: Sequence[Callable[[], Tensor]],
    bf16: bool,
    fuse: bool = False,
    report: Callable[[str], None] = print,
) -> Iterator[None]:
    """Within it, calls of `unet` of the shapes that `losses` call it with are graphs of the current CUDA device,
    forwards and backwards; others are as they were. `bf16`: under mixed precision; `fuse`: see `compiled`.

    Weights may change in place but must stay where they are in memory. Raises whatever recording raises.
    """
    # Weights that a cache of casts holds would be recorded as they are now.
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16, cache_enabled=False):
        calls = recorded_calls(unet, losses)
        call = compiled(unet, calls, report) if fuse else unet
        graphs = {
            given[0].shape: torch.cuda.make_graphed_callables(_Positional(unet, call), given, allow_unused_input=True)
            for given in calls
        }
    plain = unet.forward

    def forward(x: Tensor, timesteps: Tensor, context: Any = None, **more: Any) -> Any:
        graph = graphs.get(x.shape) if torch.is_grad_enabled() and not more else None
        return plain(x, timesteps, context=context, **more) if graph is None else graph(x, timesteps, context)

    unet.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del unet.forward
