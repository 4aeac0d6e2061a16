"""One evaluation of the U-Net: ours in its engine, computing as the original does, and diffusers'."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import DTYPES, product_rate, threads, timed
from benchmarks.network import (
    TOKENS,
    build_fast,
    build_unet,
    cells,
    channels,
    context_width,
    parameter_count,
    trained_side,
    unet_operations,
)
from benchmarks.original import as_original
from benchmarks.rival import build_diffusers_unet
from fast.runtime.workers import cores
from fast.synthesis.batches import WINDOWS_PER_BATCH
from fast.synthesis.denoiser import WindowDenoiser
from fast.synthesis.options import Recipe
from fast.synthesis.prepared import PreparedModel


def product(device: str, precision: str, side: int) -> dict[str, Any]:
    """What the machine reaches in a large matrix product: `operations` per second."""
    return {"operations": product_rate(precision, device, side)}


def evaluation(
    device: str,
    size: str,
    kind: str,
    precision: str = "fp32",
    autocast: bool = False,
    channels_last: bool = False,
    reuse: int = 1,
    batch: int = 4,
    times: int = 3,
) -> dict[str, Any]:
    """Seconds per image and evaluation at the trained size, the best of `times` after one that is not counted.

    `kind`: "ours", "original" or "diffusers"; `precision`: of the weights, `autocast`: compute in bfloat16 with float32
    weights; `batch`: images in a call, of all but ours, whose engine decides.
    """
    if kind == "ours":
        call, images, count = _ours(device, size, precision, reuse)
    else:
        call, images, count = _other(device, size, kind, precision, autocast, channels_last, batch)
    call()
    seconds = min(timed(call, device) for _ in range(times)) / images
    side = cells(size)
    return {"seconds": seconds, "parameters": count, "operations": unet_operations(size, side, side)}


def _other(
    device: str, size: str, kind: str, precision: str, autocast: bool, channels_last: bool, batch: int
) -> tuple[Callable[[], object], int, int]:
    """(call, images in a call, parameters) of one network that has the whole machine."""
    dtype, side = DTYPES[precision], cells(size)
    order = torch.channels_last if channels_last else torch.contiguous_format
    build = build_diffusers_unet if kind == "diffusers" else build_unet
    unet = build(size, device, dtype).to(memory_format=order)  # type: ignore[call-overload]
    if kind == "original":
        as_original(unet)
    x = torch.randn(batch, channels(size), side, side, device=device, dtype=dtype).contiguous(memory_format=order)
    t = torch.full((batch,), 500, device=device)
    prompt = torch.randn(batch, TOKENS, context_width(size), device=device, dtype=dtype)

    @torch.no_grad()
    def call() -> None:
        lower = torch.autocast(device, torch.bfloat16) if autocast else nullcontext()
        with threads(cores()), lower:
            if kind == "diffusers":
                unet(x, t, encoder_hidden_states=prompt, return_dict=False)
            else:
                unet(x, t, context=prompt)

    return call, batch, parameter_count(unet)


def _ours(device: str, size: str, precision: str, reuse: int) -> tuple[Callable[[], object], int, int]:
    """The U-Net as the engine runs it: on a CPU as many batches side by side as there are cores, a thread for each."""
    frozen = "fp32" if precision == "fp32" else "bf16"
    model = build_fast(size, light=True, frozen_precision=frozen)
    count = parameter_count(model.model)
    recipe = Recipe(size=trained_side(size), precision=precision, reuse=reuse, detail=False, blend=0)
    prepared = PreparedModel(model, recipe, torch.device(device))
    width, lanes = WINDOWS_PER_BATCH[device], cores() if device == "cpu" else 1
    evaluations, side = 2 * reuse, cells(size)
    x = torch.randn(width, channels(size), side, side, device=device)
    t = torch.full((width,), 500, device=device)

    @torch.no_grad()
    def batch(x: Tensor) -> None:
        types, mask = [0] * width, x[:, :1]
        _, context = prepared.context(types, mask)
        denoise = WindowDenoiser(prepared, recipe, context, prepared.columns[types], mask, x, recipe.scale)
        for _ in range(evaluations):
            denoise(x, t)

    pool = ThreadPoolExecutor(lanes, initializer=lambda: torch.set_num_threads(1) if device == "cpu" else None)
    return lambda: list(pool.map(batch, [x] * lanes)), width * lanes * evaluations, count
