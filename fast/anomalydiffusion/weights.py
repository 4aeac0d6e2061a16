"""Adaptive attention re-weighting (AnomalyDiffusion): cells that still look like the normal picture attend more to the
defect's words. Two forms: the one of the authors' code and the one that their paper prints."""

import torch
import torch.nn.functional as F
from torch import Tensor

FORMS = {"code": "scores", "paper": "map"}  # and what each multiplies, see `ldm.modules.attention.Weighted`
REACH, SIDE = 8, 32  # cells by which the mask grows at the start, of so many a side
LOW, HIGH = 1.0, 1.5


def dilation_radius(t: int, side: int) -> int:
    """By how many cells the mask grows at the network's time t in 0..999, for a latent of `side` cells.

    At 32 cells it is floor((t + 100) * 8 / 1000): 8 at first, and none in the end, where t < 25. At other sides it is
    the same share of the picture.
    """
    return (t + 100) * REACH // 1000 * side // SIDE


def dilated(mask: Tensor, radius: int) -> Tensor:
    """Mask (B,1,h,w) in {0,1} grown by `radius` cells in every direction, corners included."""
    return mask if radius < 1 else F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)


def code_weights(x: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """Weights (B,1,h,w) in [1, 1.5], 1 outside the mask, as the authors' code has them.

    With d the channel mean of the squared difference between x and `normal`, w = |mask|_1 (1/d) / sum(1/d).

    Args:
        x: the *noisy* state (B,C,h,w).
        normal: the clean latent of the normal picture (B,C,h,w).
        mask: (B,1,h,w).
    """
    inside = mask.bool()
    d = (x - normal).square().mean(dim=1, keepdim=True)
    near = torch.where(inside, 1 / d.clamp(min=1e-12), 0.0)
    total = near.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    w = mask.sum(dim=(2, 3), keepdim=True) * near / total
    return torch.where(inside, w.clamp(LOW, HIGH), 1.0)


def paper_weights(x0: Tensor, normal: Tensor, mask: Tensor) -> Tensor:
    """Weights (B,1,h,w), of mean 1 inside the mask and 1 outside, as the paper has them.

    w = |m|_1 softmax(1 / |m normal - m x0|^2) over the mask's cells. A cell without any difference gets no weight,
    since the paper leaves it out of the softmax. A window without mask is all ones.

    Args:
        x0: the predicted *clean* latent (B,C,h,w).
        normal: the clean latent of the normal picture (B,C,h,w).
        mask: (B,1,h,w).
    """
    inside = mask.bool()
    d = (mask * (normal - x0)).square().sum(dim=1, keepdim=True)
    taken = inside & (d > 0)
    share = torch.where(taken, 1 / d, -torch.inf).flatten(1).softmax(dim=1).view_as(d)
    share = torch.where(taken.any(dim=(2, 3), keepdim=True), share, 1 / inside.sum(dim=(2, 3), keepdim=True))
    return torch.where(inside, mask.sum(dim=(2, 3), keepdim=True) * share, 1.0)
