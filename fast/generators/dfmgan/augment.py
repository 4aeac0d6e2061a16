"""Adaptive discriminator augmentation (Karras et al. 2020, appendix B): pixel blitting, geometry and colour ("bgc").

One resampling and one colour matrix for all operations of a picture; differentiable. Resampling is bilinear, where the
paper filters with wavelets.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 1 / math.sqrt(3)  # the axis of luma: equal parts of red, green and blue


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """(B,n,n) from its entries (B,)."""
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def scale(x: Tensor, y: Tensor) -> Tensor:
    """(B,3,3) for factors (B,)."""
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[x, none, none], [none, y, none], [none, none, one]])


def turn(angle: Tensor) -> Tensor:
    """(B,3,3) for angles (B,) in radians."""
    one, none, sine, cosine = torch.ones_like(angle), torch.zeros_like(angle), angle.sin(), angle.cos()
    return _matrix([[cosine, -sine, none], [sine, cosine, none], [none, none, one]])


def shift(x: Tensor, y: Tensor) -> Tensor:
    """(B,3,3) for offsets (B,), a picture being two wide."""
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return _matrix([[one, none, x], [none, one, y], [none, none, one]])


def _colour(linear: Tensor, offset: Tensor | None = None) -> Tensor:
    """(B,4,4) from (B,3,3) and an offset (B,) on all channels."""
    whole = torch.eye(4, device=linear.device).repeat(len(linear), 1, 1)
    whole[:, :3, :3] = linear
    if offset is not None:
        whole[:, :3, 3] = offset[:, None]
    return whole


def _axis(like: Tensor) -> tuple[Tensor, Tensor]:
    """(identity (3,3), projection on the grey axis (3,3))."""
    return torch.eye(3, device=like.device), torch.full((3, 3), GREY**2, device=like.device)


def brightness(offset: Tensor) -> Tensor:
    return _colour(torch.eye(3, device=offset.device).repeat(len(offset), 1, 1), offset)


def contrast(factor: Tensor) -> Tensor:
    return _colour(factor[:, None, None] * torch.eye(3, device=factor.device))


def luma_flip(flipped: Tensor) -> Tensor:
    """`flipped` (B,): 1 turns light to dark and keeps the hue, 0 leaves the picture."""
    identity, grey = _axis(flipped)
    return _colour(identity - 2 * grey * flipped[:, None, None])


def hue(angle: Tensor) -> Tensor:
    """Rotation about the grey axis (Rodrigues' formula)."""
    identity, grey = _axis(angle)
    cross = GREY * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angle.device)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _colour(cosine * identity + sine * cross + (1 - cosine) * grey)


def saturation(factor: Tensor) -> Tensor:
    identity, grey = _axis(factor)
    return _colour(grey + (identity - grey) * factor[:, None, None])


class Chance:
    """Draws for a batch: each value is its neutral one unless a coin of probability p says otherwise."""

    def __init__(self, count: int, p: float, device: torch.device):
        self.count, self.p, self.device = count, p, device

    def _gated(self, value: Tensor, neutral: float, p: float | None) -> Tensor:
        coin = torch.rand(self.count, device=self.device) < (self.p if p is None else p)
        return torch.where(coin, value, torch.full_like(value, neutral))

    def uniform(self, reach: float, p: float | None = None) -> Tensor:
        """U(-reach, reach), neutral 0."""
        return self._gated((2 * torch.rand(self.count, device=self.device) - 1) * reach, 0.0, p)

    def whole(self, below: int) -> Tensor:
        """A whole number from 0, neutral 0."""
        return self._gated(torch.randint(below, (self.count,), device=self.device).float(), 0.0, None)

    def normal(self, deviation: float) -> Tensor:
        return self._gated(torch.randn(self.count, device=self.device) * deviation, 0.0, None)

    def factor(self, deviation: float) -> Tensor:
        """2 ** N(0, deviation^2), neutral 1."""
        return torch.exp2(self.normal(deviation))


def geometry(draw: Chance, side: int) -> Tensor:
    """(B,3,3): blitting and geometric operations composed, from output to input places in [-1, 1]."""
    # Two rotations must not happen more often together than one alone.
    rotation = 1 - math.sqrt(1 - draw.p)
    flips, whole = 1 - 2 * draw.whole(2), torch.ones(draw.count, device=draw.device)
    steps = scale(flips, whole) @ turn(draw.whole(4) * (math.pi / 2))
    dx, dy = draw.uniform(1 / 8), draw.uniform(1 / 8)
    steps = steps @ shift((dx * side).round() * (2 / side), (dy * side).round() * (2 / side))
    size = draw.factor(0.2)
    steps = steps @ scale(size, size) @ turn(draw.uniform(math.pi, rotation))
    stretch = draw.factor(0.2)
    steps = steps @ scale(stretch, 1 / stretch) @ turn(draw.uniform(math.pi, rotation))
    return steps @ shift(2 * draw.normal(1 / 8), 2 * draw.normal(1 / 8))


def colours(draw: Chance) -> Tensor:
    """(B,4,4): the colour operations composed, on (r, g, b, 1)."""
    steps = contrast(draw.factor(0.5)) @ brightness(draw.normal(0.2))
    steps = hue(draw.uniform(math.pi)) @ luma_flip(draw.whole(2)) @ steps
    return saturation(draw.factor(1.0)) @ steps


def augment(image: Tensor, p: float) -> Tensor:
    """Pictures (B,3,H,H) in [-1, 1], each operation done to each with probability p; mirrored beyond their edges."""
    if p <= 0:
        return image
    with torch.autocast(image.device.type, enabled=False):  # half precision cannot tell places in a picture apart
        image, draw = image.float(), Chance(len(image), p, image.device)
        places = F.affine_grid(geometry(draw, image.shape[-1])[:, :2], list(image.shape), align_corners=False)
        image = F.grid_sample(image, places, padding_mode="reflection", align_corners=False)
        matrix = colours(draw)
        return torch.einsum("bij,bjhw->bihw", matrix[:, :3, :3], image) + matrix[:, :3, 3, None, None]
