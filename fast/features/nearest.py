"""How near a defect is to the real ones of its type, in the features of the shipped encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from fast.data.images import resize_image, resize_mask
from fast.features.store import FeatureStore, shares
from fast.masks.changed import around

CONTEXT = 24  # pixels of the surface around a defect that are looked at with it
LEAST, MOST = 64, 384  # pixels: no smaller windows are cut, and larger ones are made so small
NEIGHBOURS = 3  # real defects that a distance is the mean of
CELLS = 512  # of each side of a mask that are looked at


@dataclass(frozen=True)
class Defect:
    """A real defect: its type "category/type", its name, its physical part if that is known, and its description."""

    kind: str
    name: str
    group: str
    described: Tensor


def window(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of an image (H,W,3) with the defect of `mask` (H,W), `CONTEXT` pixels around it, and the mask there."""
    _, _, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
    reach = max(CONTEXT, -(-(LEAST - min(width, height)) // 2))
    box = around(mask, reach)
    shown, own = image[box], (mask[box] != 0).astype(np.uint8)
    shrink = max(shown.shape[:2]) / MOST
    if shrink <= 1:
        return shown, own
    size = (max(1, round(shown.shape[0] / shrink)), max(1, round(shown.shape[1] / shrink)))
    return resize_image(shown, size), resize_mask(own, size)


def describe(store: FeatureStore, image: np.ndarray, mask: np.ndarray) -> Tensor:
    """What a defect looks like, float32 (2 * WIDTH,): the mean features of its cells, and their difference from those
    of the surface around it. image uint8 (H,W,3), mask (H,W), nonzero = defect, not empty."""
    shown, own = window(image, mask)
    (features,) = store([shown])
    share = shares(own, features.shape)
    share[-(-own.shape[0] // 4) :], share[:, -(-own.shape[1] // 4) :] = -1, -1  # what repeats the edge
    inside, outside = np.argwhere(share > 0), np.argwhere(share == 0)
    means = []
    for cells in (inside, outside if len(outside) else inside):
        cells = cells[np.linspace(0, len(cells) - 1, min(len(cells), CELLS)).astype(int)]
        weight = torch.from_numpy(np.maximum(share[cells[:, 0], cells[:, 1]], 0) + 1e-3)[:, None]
        means.append((features.read(cells[:, 0], cells[:, 1]) * weight).sum(0) / weight.sum())
    return torch.cat([means[0], means[0] - means[1]])


@dataclass
class RealDefects:
    """The real defects that others are compared with, by type; `scale`: by which features are divided."""

    defects: Sequence[Defect]
    scale: Tensor = field(init=False)
    units: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """The unit of a type: how far one of its defects is, in the median, from the others of other parts."""
        every = torch.stack([d.described for d in self.defects])
        self.scale = every.std(0, unbiased=False).clamp_min(1e-3)
        apart: dict[str, list[float]] = {}
        for defect in self.defects:
            others = [d for d in self.of(defect.kind) if d is not defect and (not d.group or d.group != defect.group)]
            if others:
                apart.setdefault(defect.kind, []).append(self._mean(defect.described, others)[0])
        self.units = {kind: max(float(np.median(values)), 1e-6) for kind, values in apart.items()}

    def of(self, kind: str) -> list[Defect]:
        """Those of a type: by its whole name, or where no category has it by the type alone."""
        same = [d for d in self.defects if d.kind == kind]
        return same or [d for d in self.defects if d.kind.rpartition("/")[2] == kind.rpartition("/")[2]]

    def distance(self, kind: str, described: Tensor, without: str = "") -> tuple[float, str] | None:
        """How far a description is from the type's real defects, but those of the part `without`: the mean over the
        `NEIGHBOURS` nearest, and the nearest's name. 1 is as far as real ones are from each other. None where there is
        none of the type."""
        others = [d for d in self.of(kind) if not without or d.group != without]
        if not others:
            return None
        mean, name = self._mean(described, others)
        unit = self.units.get(others[0].kind) or (float(np.median(list(self.units.values()))) if self.units else 1.0)
        return mean / unit, name

    def _mean(self, described: Tensor, others: Sequence[Defect]) -> tuple[float, str]:
        apart = torch.stack([d.described for d in others]) - described
        far = (apart / self.scale).square().mean(1).sqrt()
        order = torch.argsort(far, stable=True)[:NEIGHBOURS]
        return float(far[order].mean()), others[int(order[0])].name
