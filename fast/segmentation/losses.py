"""What segmenters are trained to lower: cross-entropy, Dice, the hardest pixels, and where defects end.

Labels (B,H,W) are int64 in 0..K-1, or 255, which no loss sees; class 0 is background, all others are defects.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fast.data.mask_looks import IGNORED
from fast.segmentation.layers import Heads

HARD = -math.log(0.7)  # loss of a pixel whose class is given a probability of 0.7
LEAST = 16  # at least this part of the pixels counts


def objective(heads: Heads, target: Tensor, loss: str, defect_weight: float = 1.0) -> Tensor:
    """Scalar; the sum over all heads, each weighing 1.

    `loss`: "ce", "ce+dice", or "ohem", and "ohem+detail" for networks that learn detail. `defect_weight` is that of a
    defect pixel in "ce" and "ce+dice".
    """
    total = torch.stack([_of_one(logits.float(), target, loss, defect_weight) for logits in heads.logits]).sum()
    if loss == "ohem+detail" and heads.detail is not None:
        total = total + detail(heads.detail.float(), target)
    return total


def _of_one(logits: Tensor, target: Tensor, loss: str, defect_weight: float) -> Tensor:
    if loss.startswith("ohem"):
        return ohem(logits, target)
    weight = torch.full((logits.shape[1],), float(defect_weight), device=logits.device)
    weight[0] = 1.0
    value = F.cross_entropy(logits, target, weight, ignore_index=IGNORED)
    if bool((target == IGNORED).all()):
        value = logits.sum() * 0
    if loss == "ce":
        return value
    known = target != IGNORED
    return value + dice((1 - logits.softmax(dim=1)[:, 0]) * known, ((target > 0) & known).float())


def dice(probability: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 - Dice over the pictures with a defect, (B,H,W) each; 0 without one.

    Each picture by itself: in a Dice of the whole batch one large area outweighs all pores and cracks, which a network
    then does not learn. What is found on flawless pictures is the cross-entropy's.
    """
    shown = target.flatten(1).any(dim=1)
    if not bool(shown.any()):
        return probability.sum() * 0
    return _one_less_dice(probability, target)[shown].mean()


def _one_less_dice(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of each picture, (B,H,W) each to (B,)."""
    both, area = (probability * target).sum(dim=(1, 2)), (probability + target).sum(dim=(1, 2))
    return 1 - (2 * both + 1) / (area + 1)


def ohem(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the hard pixels alone (Shrivastava et al., 2016, for pixels): those above `HARD`, or the
    hardest sixteenth of those that count if there are fewer; 0 where none counts."""
    value = F.cross_entropy(logits, target, reduction="none", ignore_index=IGNORED)[target != IGNORED]
    if not value.numel():
        return logits.sum() * 0
    hard = value[value > HARD]
    least = max(1, value.numel() // LEAST)
    return hard.mean() if hard.numel() >= least else value.topk(least).values.mean()


def detail(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy and Dice of STDC's detail logits (B,1,h,w) against the rims in labels (B,H,W)."""
    ignored = target == IGNORED
    wanted = detail_target(target.masked_fill(ignored, 0))
    height, width = target.shape[-2:]
    logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=True)[:, 0]
    # Two pixels around what is ignored, where a rim may be one that the labels do not show.
    known = F.max_pool2d(ignored[:, None].float(), 5, stride=1, padding=2)[:, 0] == 0
    probability, wanted = logits.sigmoid() * known, wanted * known
    entropy = F.binary_cross_entropy_with_logits(logits[known], wanted[known]) if known.any() else logits.sum() * 0
    return entropy + _one_less_dice(probability, wanted).mean()


def detail_target(target: Tensor) -> Tensor:
    """Where labels (B,H,W) change, float (B,H,W) in {0,1}: positive answers of a Laplacian at strides 1 and 2.

    STDC weighs the strides 1, 2, 4 with 0.6, 0.3, 0.1 and asks for more than 0.1: the third alone never suffices and
    beside the others changes nothing, so it is left out here.
    """
    labels = target[:, None].float()
    kernel = torch.full((1, 1, 3, 3), -1.0, device=labels.device)
    kernel[0, 0, 1, 1] = 8.0
    height, width = target.shape[-2:]
    fine, coarse = ((F.conv2d(labels, kernel, stride=stride, padding=1) > 0.1).float() for stride in (1, 2))
    return torch.maximum(fine, F.interpolate(coarse, size=(height, width)))[:, 0]
