"""Cells to train a pixel classifier on: which of them are drawn, their features and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fast.features.store import Features


@dataclass
class PixelPool:
    """Cells to train on: float16 features (n, WIDTH), share of defect pixels (n,), number of the sample (n,)."""

    features: Tensor
    share: Tensor
    owner: np.ndarray

    def of(self, samples: Sequence[int]) -> PixelPool:
        """The cells of these samples alone."""
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.owner, samples)))
        return PixelPool(self.features[rows], self.share[rows], self.owner[rows.numpy()])


def allot(
    weights: np.ndarray, areas: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How many of `count` cells come from each view: of its defect, half of them in all, and from anywhere.

    Views are drawn by their weights. For the first half those of one weight share what falls to them by the square root
    of their defects' areas: a gash says more than a pinhole, but not as much as its area.
    """
    roots = np.sqrt(areas)
    for weight in np.unique(weights):
        same = weights == weight
        roots[same] *= weight * np.count_nonzero(roots[same]) / max(roots[same].sum(), 1e-9)
    defect = rng.multinomial(count // 2, roots / roots.sum())
    return defect, rng.multinomial(count - count // 2, weights / weights.sum())


def take(
    features: Features, share: np.ndarray, defect: int, other: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """float16 features (n, WIDTH) and shares (n,) of `defect` random cells with defect and `other` from anywhere."""
    flat = share.reshape(-1)
    known, inside = np.flatnonzero(flat >= 0), np.flatnonzero(flat > 0)
    if not len(known):  # all ignored
        return features.read(known, known).half(), torch.from_numpy(flat[known])
    if not len(inside):  # a window beside it
        inside = known
    place = np.concatenate(
        [inside[rng.integers(len(inside), size=defect)], known[rng.integers(len(known), size=other)]]
    )
    row, column = np.divmod(place, share.shape[1])
    return features.read(row, column).half(), torch.from_numpy(flat[place])
