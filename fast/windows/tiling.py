"""A network on a plane larger than it should see at once: overlapping tiles, blended.

As in "MultiDiffusion" (Bar-Tal et al., 2023): each value is the weighted mean of the tiles that cover it. Memory
is bounded by the tile, time grows linearly with the plane.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

Slices = tuple[slice, slice]


def starts(length: int, tile: int, overlap: int, step: int = 1) -> list[int]:
    """Evenly spread starts of as few tiles as cover 0..length.

    Args:
        length: what to cover.
        tile: length of a tile. One that is as long as `length` or longer is enough: the only start is 0.
        overlap: what neighbours share, at least.
        step: all starts are multiples of it, and the last tile ends at `length`.

    Raises:
        ValueError: with several tiles, a tile is no longer than its overlap, or `length` or `tile` is no multiple of
            `step`.
    """
    if tile >= length:
        return [0]
    if length % step or tile % step:
        raise ValueError(f"a side of {length} in tiles of {tile}: both have to be multiples of {step}")
    shared = -(-overlap // step)
    stride, rest = tile // step - shared, (length - tile) // step
    if overlap < 0 or stride < 1:
        raise ValueError(f"tiles of {tile} cannot overlap by {overlap} in steps of {step}")
    count = -(-rest // stride)
    return [k * rest // count * step for k in range(count + 1)]


def tiled(
    f: Callable[[Tensor, Slices], Tensor], x: Tensor, *, tile: int, overlap: int, up: int = 1, down: int = 1
) -> Tensor:
    """Evaluate `f` on a plane x (B,C,H,W) in overlapping tiles, one after another, row by row.

    Where tiles overlap, their weights fall linearly to the tile's border. At the plane's own borders they do not. Sums
    are float32, and the result has the dtype of f's output. If x fits in one tile, the result is f(x) itself.

    Args:
        f: `f(part, place)` takes a part (B,C,h,w) of x and its rows and columns in x, and returns
            (B,C2,h*up/down,w*up/down).
        x: the plane.
        tile: side of the tiles in x, at most.
        overlap: what neighbouring tiles share, at least.
        up, down: how `f` changes the sides: 8 and 1 for a decoder, 1 and 8 for an encoder. Tiles start at multiples of
            `down`.

    Raises:
        ValueError: as `starts` does.
    """
    height, width = x.shape[-2:]
    if height <= tile and width <= tile:
        return f(x, (slice(0, height), slice(0, width)))
    rows, columns = (_spans(side, tile, overlap, up, down) for side in (height, width))
    for number, (row, column) in enumerate(product(rows, columns)):
        made = f(x[..., row.place, column.place], (row.place, column.place))
        if number == 0:
            total = torch.zeros(*made.shape[:2], height * up // down, width * up // down, device=made.device)
        weight = row.weight[:, None] * column.weight
        total[..., row.made, column.made] += made.float() * weight.to(made.device)
    return total.to(made.dtype)


class _Span(NamedTuple):
    """A tile along one axis: its place in the input and in the output, its share (n,) of each of its output values."""

    place: slice
    made: slice
    weight: Tensor


def _spans(length: int, tile: int, overlap: int, up: int, down: int) -> list[_Span]:
    places = [slice(s, min(s + tile, length)) for s in starts(length, tile, overlap, down)]
    made = [slice(p.start * up // down, p.stop * up // down) for p in places]
    weights = torch.zeros(len(made), length * up // down, dtype=torch.float64)
    for k, own in enumerate(made):
        at = torch.arange(own.start, own.stop, dtype=torch.float64) + 0.5
        weights[k, own] = 1
        if k > 0:
            weights[k, own] *= ((at - own.start) / (made[k - 1].stop - own.start)).clamp(max=1)
        if k + 1 < len(made):
            weights[k, own] *= ((own.stop - at) / (own.stop - made[k + 1].start)).clamp(max=1)
    weights /= weights.sum(dim=0)
    return [_Span(p, m, w[m].float()) for p, m, w in zip(places, made, weights, strict=True)]
