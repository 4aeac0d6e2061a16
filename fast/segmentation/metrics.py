"""How well defects are segmented: IoU and Acc as the papers compute them, AP and AUROC over all pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fast.masks import to_tensor
from fast.segmentation.data import Labelled, Views, is_normal
from fast.tiling import tiled
from ldm.errors import UserError

_BINS = 1 << 16  # a score is rounded to half precision; each of its values is a bin of its own


@dataclass
class Tally:
    """Pixel counts over any number of pictures. Areas are summed first and divided once, as in the papers' tables: a
    mean over pictures would weigh a picture with a pinhole like one with a gash."""

    images: int = 0
    both: int = 0  # pixels that are defect and found
    found: int = 0
    defect: int = 0
    scores: np.ndarray = field(default_factory=lambda: np.zeros((2, _BINS), np.int64))  # good, defect pixels per score

    def add(self, found: np.ndarray, mask: np.ndarray, score: np.ndarray) -> None:
        """found, mask: bool (H,W); score: float (H,W), higher = more surely a defect; only its order matters."""
        self.images += 1
        self.both += int((found & mask).sum())
        self.found += int(found.sum())
        self.defect += int(mask.sum())
        bins = _order(score)
        self.scores[0] += np.bincount(bins[~mask], minlength=_BINS)
        self.scores[1] += np.bincount(bins[mask], minlength=_BINS)

    def merge(self, other: Tally) -> None:
        for name in ("images", "both", "found", "defect"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.scores += other.scores

    @property
    def iou(self) -> float | None:
        """Of the defect class; None without a defect pixel, found or true."""
        union = self.found + self.defect - self.both
        return self.both / union if union else None

    @property
    def acc(self) -> float | None:
        """Share of the defect pixels that were found; None where there are none."""
        return self.both / self.defect if self.defect else None

    def ap(self) -> float | None:
        """Average precision: sum of precision times gain of recall over all distinct scores, falling."""
        good, defect = (np.cumsum(row[::-1]) for row in self.scores)
        if not defect[-1]:
            return None
        gain = np.diff(defect, prepend=0)
        used = gain > 0
        return float((gain[used] / defect[-1] * (defect / np.maximum(good + defect, 1))[used]).sum())

    def auroc(self) -> float | None:
        """Probability that a defect pixel scores above a good one, ties counted half."""
        good, defect = self.scores
        if not good.sum() or not defect.sum():
            return None
        below = np.cumsum(good) - good
        # Shares, not counts: products of counts of millions of pixels would overflow.
        return float((defect / defect.sum() * ((below + good / 2) / good.sum())).sum())

    def report(self) -> dict[str, Any]:
        return {"images": self.images, "iou": self.iou, "acc": self.acc, "ap": self.ap(), "auroc": self.auroc()}


def _order(score: np.ndarray) -> np.ndarray:
    """Bins 0.._BINS-1 in the order of the scores, rounded to half precision."""
    if np.isnan(score).any():
        raise UserError("the segmenter answers with NaN; train it again with a lower learning rate")
    with np.errstate(over="ignore"):  # beyond 65504 all scores are one
        half = (score.astype(np.float16) + np.float16(0)).view(np.uint16).astype(np.int64)  # + 0: no negative zero
    return np.where(half & 0x8000, 0xFFFF - half, half + 0x8000)


def evaluate(
    model: nn.Module,
    pairs: Sequence[Labelled],
    *,
    size: int = 256,
    native: bool = False,
    batch_size: int = 8,
    bf16: bool = False,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Scores of a two-or-more-class segmenter on test pairs, all in 0..1; None where nothing can be said.

    `miou`, `acc`: of the defect pixels of the whole set, background not averaged in; `ap`, `auroc`: of the pooled
    pixels, scored by the log-odds of a defect; `miou_types`, `acc_types`: means over the defect types; `types`: the
    same figures of each type's pictures alone. Normals count in the totals, by what is found in them by mistake.
    Pictures and masks are resized to `size` as in training, or with `native` left as they are and seen in tiles.
    """
    if not pairs:
        raise UserError("no pairs to test a segmenter on; give a dataset with held-out defects")
    model = model.to(device).eval()
    views = Views(pairs, size, native)
    types: dict[str, Tally] = {}
    step = 1 if native else batch_size
    for start in range(0, len(pairs), step):
        batch = [views.plain(i) for i in range(start, min(start + step, len(pairs)))]
        images = torch.stack([to_tensor(image) for image, _ in batch])
        logits = predict(model, images.to(device), tile=size if native else None, bf16=bf16).cpu()
        found = (logits.argmax(dim=1) > 0).numpy()
        score = defect_score(logits).numpy()
        for k, (_, mask) in enumerate(batch):
            types.setdefault(pairs[start + k].kind, Tally()).add(found[k], mask > 0, score[k])
    return _summary(types, {pair.kind for pair in pairs if is_normal(pair)})


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, tile: int | None = None, bf16: bool = False) -> Tensor:
    """Float logits (B,K,H,W) of image (B,3,H,W) in [-1, 1]; with `tile` in overlapping tiles of that side."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        if tile is None:
            return model(image).float()
        return tiled(lambda part, _: model(part).float(), image, tile=tile, overlap=tile // 4)


def defect_score(logits: Tensor) -> Tensor:
    """Log-odds (B,H,W) of any defect class against the background, from logits (B,K,H,W)."""
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]


def _summary(types: dict[str, Tally], normal: set[str]) -> dict[str, Any]:
    total = Tally()
    for tally in types.values():
        total.merge(tally)
    figures = total.report()
    each = {kind: types[kind].report() for kind in sorted(types)}
    defects = [row for kind, row in each.items() if kind not in normal]
    return {
        "miou": figures.pop("iou"),
        **figures,
        "miou_types": _mean([row["iou"] for row in defects]),
        "acc_types": _mean([row["acc"] for row in defects]),
        "types": each,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
