"""DFMGAN's losses. Scores are logits, (B,), high for what looks real."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 10.0  # of the mask that D_match and the diversity loss see: tanh(10 m)
EPSILON = 1e-3  # keeps the diversity loss finite while masks do not differ


def fooling(scores: Tensor) -> Tensor:
    """The generator's non-saturating loss on the scores of its pictures."""
    return F.softplus(-scores).mean()


def judging(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's logistic loss."""
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def soft_mask(m: Tensor) -> Tensor:
    """Mask logits to (-1, 1), nearly hard."""
    return torch.tanh(SHARPNESS * m)


def with_mask(image: Tensor, mask: Tensor) -> Tensor:
    """What D_match sees (B,4,H,W): image, and a mask in [-1, 1] from -1 (no defect) to 1."""
    return torch.cat([image, mask], 1)


def mode_seeking(w1: Tensor, w2: Tensor, mask1: Tensor, mask2: Tensor) -> Tensor:
    """mean|w1 - w2| / mean|M1 - M2|: other defect codes on the same object must give other masks."""
    return (w1 - w2).abs().mean() / ((mask1 - mask2).abs().mean() + EPSILON)


def r1(score: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Squared gradient of the scores of real pictures (B,C,H,W), summed over each and mean over the batch (Mescheder et
    al. 2018)."""
    image = image.detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(image).sum(), image, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()


def path_lengths(image: Tensor, ws: Tensor) -> Tensor:
    """How far pictures (B,3,H,W) move per step in their styles ws (B,S,w_dim), (B,) (StyleGAN2, equation 4)."""
    noise = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
    (slope,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
    return (slope.square().sum(2).mean(1) + 1e-12).sqrt()
