"""The quick judge: a small pixel classifier on frozen features, trained in seconds, to compare sets of training pairs.

The encoder is never trained, so that an image's features are computed once and shared by all sets and seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast.segmentation.augment import AUGMENT
from fast.segmentation.data import Labelled, Views, is_normal
from fast.segmentation.efficientnet import CHANNELS, pretrained
from fast.segmentation.features import CELL, STRIDES, WIDTH, Cells, Features, FeatureStore, to_cells
from fast.segmentation.metrics import Tally, summary
from fast.segmentation.padding import on_multiples
from ldm.errors import UserError
from ldm.rng import seed_of

HIDDEN = (128, 64)
WINDOW = 256  # side of the training views where images keep their size


class PixelHead(nn.Module):
    """Three linear layers for each cell: standardized features, 128, 64, then the log-odds of a defect.

    The first is applied to each scale at its own resolution, and what comes out is interpolated and summed: the same
    numbers as those of interpolated features, for a fraction of the work.
    """

    mean: Tensor
    std: Tensor
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, HIDDEN[0])
        self.rest = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], 1))
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("std", torch.ones(WIDTH))
        self.register_buffer("threshold", torch.zeros(()))

    def cells(self, features: Tensor) -> Tensor:
        """Log-odds (n,) of features (n, WIDTH)."""
        return self.rest(self.first((features - self.mean) / self.std))[:, 0]

    def image(self, maps: Sequence[Tensor]) -> Tensor:
        """Log-odds (B,1,h,w) from five maps (B,C,.,.), of which the finest has h x w cells."""
        size = maps[0].shape[-2:]
        weights = (self.first.weight / self.std).split(CHANNELS, dim=1)
        offset = self.first.bias - (self.first.weight / self.std) @ self.mean
        total: Tensor = offset[:, None, None]
        for features, weight in zip(maps, weights, strict=True):
            part = F.conv2d(features, weight[:, :, None, None])
            same = part.shape[-2:] == size
            total = total + (part if same else F.interpolate(part, size=size, mode="bilinear", align_corners=False))
        return self.rest(total.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Quick(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,2,H,W), any H and W: the frozen encoder and a `PixelHead`, whose chosen threshold
    is where the two logits are equal. `train` does not train it, `QuickJudge.fit` does."""

    def __init__(self, num_classes: int = 2):
        super().__init__()
        if num_classes != 2:
            raise UserError(f"segmenter 'quick' tells defects from background only, not {num_classes} classes; use fpn")
        self.encoder = pretrained().eval().requires_grad_(False)
        self.head = PixelHead()

    def train(self, mode: bool = True) -> Quick:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(self._logits, image, 32)

    def _logits(self, x: Tensor) -> Tensor:
        odds = self.head.image(to_cells(self.encoder(x))) - self.head.threshold
        return _to_pixels(odds, CELL)


def _to_pixels(odds: Tensor, factor: int) -> Tensor:
    """Log-odds (B,1,h,w) to logits (B,2,H,W), with those of the background 0."""
    odds = F.interpolate(odds, scale_factor=factor, mode="bilinear", align_corners=False)
    return torch.cat([torch.zeros_like(odds), odds], dim=1)


@dataclass
class QuickJudge:
    """Trains and tests `PixelHead`s on frozen features.

    `size`: side of the square that images are resized to; None leaves them as they are, for large images with small
    defects. `augment`: one of `fast.segmentation.augment.AUGMENT`; unless it is "none" there are `views` random views of
    each training image, the same in all sets, beside the image itself. `pool` cells are drawn, `steps` of `batch` taken; `folds`: parts of
    the training set in turn predicted by a head that has not seen them, from which the threshold is chosen.
    `cache`: a folder that keeps the features. Never sees a test image before it is tested.
    """

    size: int | None = 256
    augment: str = "classical"
    views: int = 4
    pool: int = 40_000
    steps: int = 400
    batch: int = 1024
    lr: float = 2e-3
    folds: int = 3
    cache: Path | None = None
    device: str = "cpu"
    store: FeatureStore = field(init=False)

    def __post_init__(self) -> None:
        if self.augment not in AUGMENT:
            raise UserError(f"augment={self.augment} is unknown; use one of {', '.join(AUGMENT)}")
        self.store = FeatureStore(self.cache, self.device)

    def score(
        self, train_samples: Sequence[Labelled], test_samples: Sequence[Labelled], seed: int = 0
    ) -> dict[str, Any]:
        """Train on weighted samples (`fast.segmentation.data.merged`), test, and return the figures of
        `fast.segmentation.metrics.evaluate`: `miou`, `ap`, `auroc`, `miou_types`, `types`, ... all in 0..1."""
        return self.test(self.fit(train_samples, seed), test_samples)

    def fit(self, samples: Sequence[Labelled], seed: int = 0) -> PixelHead:
        """A trained head with its threshold. UserError where no sample has a defect."""
        if not samples or all(is_normal(s) for s in samples):
            raise UserError("no pairs with defects to train the quick judge on; give a folder that holds some")
        pool = self._pool(samples, np.random.default_rng(seed_of(seed, 1)))
        head = self._train(pool, seed)
        if (threshold := self._threshold(samples, pool, seed)) is not None:
            head.threshold.fill_(threshold)
        return head

    def test(self, head: PixelHead, samples: Sequence[Labelled]) -> dict[str, Any]:
        """Figures of a head on test samples, as `score` returns them."""
        if not samples:
            raise UserError("no pairs to test a segmenter on; give a dataset with held-out defects")
        types: dict[str, Tally] = {}
        for sample, mask, odds in self._answers(head, samples):
            types.setdefault(sample.kind, Tally()).add(odds > float(head.threshold), mask > 0, odds)
        return summary(types, {s.kind for s in samples if is_normal(s)}) | {"threshold": float(head.threshold)}

    # training

    def _pool(self, samples: Sequence[Labelled], rng: np.random.Generator) -> Pool:
        views, weights, owners = [], [], []
        for number, (sample, found) in enumerate(zip(samples, self._views(samples), strict=True)):
            views += found
            weights += [sample.weight / len(found)] * len(found)
            owners += [number] * len(found)
        return draw(views, np.array(weights), np.array(owners), self.pool, rng)

    def _views(self, samples: Sequence[Labelled]) -> Iterator[list[View]]:
        """Of each sample: itself, then random views."""
        pictures = Views(samples, self.size or WINDOW, native=self.size is None)
        for number in range(len(samples)):
            image, mask = pictures.plain(number)
            pairs = [(image, mask)]
            if self.augment != "none":
                # By the content: a sample's views are the same whatever set it is in.
                start = int(self.store.key(image)[:12], 16)
                generators = [np.random.default_rng(seed_of(start, k)) for k in range(self.views)]
                pairs += [pictures.draw(number, rng, self.augment) for rng in generators]
            features = self.store([one for one, _ in pairs])
            yield [View(f, shares(m, f.shape)) for f, (_, m) in zip(features, pairs, strict=True)]

    def _train(self, pool: Pool, seed: int) -> PixelHead:
        chosen = torch.Generator().manual_seed(seed_of(seed, 2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = PixelHead()
            features = pool.features.float()
            head.mean.copy_(features.mean(dim=0))
            head.std.copy_(features.std(dim=0) + 1e-3)
            optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr, weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.steps)
            for _ in range(self.steps):
                rows = torch.randint(len(pool.share), (self.batch,), generator=chosen)
                loss = F.binary_cross_entropy_with_logits(head.cells(features[rows]), pool.share[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return head.eval()

    def _threshold(self, samples: Sequence[Labelled], pool: Pool, seed: int) -> float | None:
        """The log-odds with the highest IoU on training images, each predicted by a head that has seen neither its part
        nor a pair made from it: real ones, or where there are none the synthetic ones. None where they make no two
        parts."""
        judged = [i for i, s in enumerate(samples) if not s.synthetic and not is_normal(s)]
        judged = judged or [i for i, s in enumerate(samples) if not is_normal(s)]
        parts = folds([samples[i] for i in judged], self.folds, seed)
        if len(parts) < 2:
            return None
        total = Tally()
        for number, part in enumerate(parts):
            out = {judged[i] for i in part}
            files = {p.resolve() for i in out for p in (samples[i].image, samples[i].mask) if isinstance(p, Path)}
            kept = pool.of([i for i, s in enumerate(samples) if i not in out and not s.sources & files])
            if not bool((kept.share > 0).any()):
                return None
            head = self._train(kept, seed_of(seed, number))
            for _, mask, odds in self._answers(head, [samples[i] for i in sorted(out)]):
                total.add(odds > 0, mask > 0, odds)
        return total.best_threshold()

    @torch.no_grad()
    def _answers(self, head: PixelHead, samples: Sequence[Labelled]) -> list[tuple[Labelled, np.ndarray, np.ndarray]]:
        """(sample, mask (H,W), log-odds (H,W)) of each."""
        pictures = Views(samples, self.size or WINDOW, native=self.size is None)
        found = []
        for number, sample in enumerate(samples):
            image, mask = pictures.plain(number)
            (features,) = self.store([image])
            odds = _to_pixels(head.image(_as_maps(features)), CELL)[0, 1]
            found.append((sample, mask, odds[: mask.shape[0], : mask.shape[1]].numpy()))
        return found


@dataclass
class View:
    """A training image: its features, and of each cell the share of defect pixels, float32 (rows, columns) in 0..1."""

    features: Features
    share: np.ndarray


def shares(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The share of defect pixels in each cell: mask (H,W) in {0,1} to float32 `shape`."""
    padded = np.zeros((shape[0] * CELL, shape[1] * CELL), np.float32)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.reshape(shape[0], CELL, shape[1], CELL).mean(axis=(1, 3))


def _as_maps(features: Features) -> list[Tensor]:
    """(1,C,h,w) of each scale."""
    sides = [tuple(side * CELL // stride for side in features.shape) for stride in STRIDES]
    return [rows.float().T.reshape(1, -1, *side).contiguous() for rows, side in zip(features.maps, sides, strict=True)]


@dataclass
class Pool:
    """Cells to train on: float16 features (n, WIDTH), share of defect pixels (n,), number of the sample (n,)."""

    features: Tensor
    share: Tensor
    owner: np.ndarray

    def of(self, samples: Sequence[int]) -> Pool:
        """The cells of these samples alone."""
        rows = torch.from_numpy(np.flatnonzero(np.isin(self.owner, samples)))
        return Pool(self.features[rows], self.share[rows], self.owner[rows.numpy()])


def draw(views: Sequence[View], weights: np.ndarray, owner: np.ndarray, count: int, rng: np.random.Generator) -> Pool:
    """`count` random cells of training views: half of them with defect, half from anywhere.

    Views are drawn by their weights. For the first half those of one weight share what falls to them by the square root
    of their number of defect cells: a gash says more than a pinhole, but not as much as its area.
    """
    cells = Cells([v.features for v in views])
    share = np.concatenate([v.share.reshape(-1) for v in views])
    starts = np.concatenate([[0], np.cumsum([v.share.size for v in views])])
    defect = np.flatnonzero(share > 0)
    bounds = np.searchsorted(defect, starts)
    roots = np.sqrt(np.diff(bounds))
    for weight in np.unique(weights):
        same = weights == weight
        roots[same] *= weight * same.sum() / max(roots[same].sum(), 1e-9)
    first = rng.choice(len(views), count // 2, p=roots / roots.sum())
    other = rng.choice(len(views), count - count // 2, p=weights / weights.sum())
    place = np.concatenate([defect[rng.integers(bounds[first], bounds[first + 1])],
                            rng.integers(starts[other], starts[other + 1])])  # fmt: skip
    image = np.concatenate([first, other])
    row, column = np.divmod(place - starts[image], cells.shapes[image, 1])
    parts = [slice(i, i + 4096) for i in range(0, count, 4096)]
    features = torch.cat([cells.read(image[p], row[p], column[p]).half() for p in parts])
    return Pool(features, torch.from_numpy(share[place]), owner[image])


def folds(samples: Sequence[Labelled], count: int, seed: int) -> list[list[int]]:
    """Numbers of the samples in `count` parts, or as many as there are groups: whole groups, every type spread evenly."""
    groups: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault(sample.group or f"\0{number}", []).append(number)
    order = sorted(groups.values())
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: samples[group[0]].kind)  # stable: shuffled within a type
    parts: list[list[int]] = [[] for _ in range(min(count, len(order)))]
    for number, group in enumerate(order):
        parts[number % len(parts)] += group
    return parts
