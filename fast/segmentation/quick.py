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
from fast.segmentation.features import CELL, WIDTH, Features, FeatureStore, to_cells
from fast.segmentation.metrics import Tally, summary
from fast.segmentation.padding import on_multiples
from ldm.errors import UserError
from ldm.rng import seed_of

HIDDEN = (128, 64)
OTHERS = 1000  # views of samples that are no real defects, where there are many
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
    """(B,3,H,W) in [-1, 1] to logits (B,2,H,W), any H and W: the frozen encoder and a `PixelHead`. The two logits are
    equal at its chosen threshold. `QuickJudge.fit` trains the head, not `fast.segmentation.train`."""

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

    size: side of the square that images are resized to; None leaves them as they are, for small defects in large ones.
    augment: one of `fast.segmentation.augment.AUGMENT`.
    views: unless that is "none", random views of each real defect beside the image itself, the same in all sets.
    pool: cells that are drawn from all images, half of them with defect.
    steps, batch, lr: of the head's training on them.
    folds: parts of the training set, each predicted by a head that has not seen it; from them the threshold is chosen.
    cache: a folder that keeps the features.
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
        """Random cells of all samples and their views, read image by image."""
        pictures = Views(samples, self.size or WINDOW, native=self.size is None)
        views = self._counts(samples)
        owner = np.repeat(np.arange(len(samples)), views)
        weights = np.array([s.weight for s in samples])[owner] / np.repeat(views, views)
        areas = np.array([np.count_nonzero(pictures.plain(i)[1]) for i in range(len(samples))])[owner]
        defect, other = allot(weights, areas, self.pool, rng)
        found = []
        for number, start in enumerate(np.concatenate([[0], np.cumsum(views)[:-1]])):
            pairs = self._views(pictures, number, int(views[number]))
            wanted = [start + k for k in range(views[number]) if defect[start + k] + other[start + k]]
            features = self.store([pairs[k - start][0] for k in wanted])
            for k, one in zip(wanted, features, strict=True):
                share = shares(pairs[k - start][1], one.shape)
                found.append((*take(one, share, int(defect[k]), int(other[k]), rng), number))
        return Pool(
            torch.cat([features for features, _, _ in found]),
            torch.cat([share for _, share, _ in found]),
            np.repeat([number for *_, number in found], [len(share) for _, share, _ in found]),
        )

    def _counts(self, samples: Sequence[Labelled]) -> np.ndarray:
        """How many views of each sample there are, itself included. Real defects have as many with other samples as
        without; of those, fewer where they are many."""
        if self.augment == "none":
            return np.ones(len(samples), np.int64)
        real = np.array([not s.synthetic and not is_normal(s) for s in samples])
        others = max(1, min(self.views, OTHERS // max(1, int((~real).sum()))))
        return np.where(real, self.views, others) + 1

    def _views(self, pictures: Views, number: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """A sample's image and mask, then random views. By the content: they are the same whatever set it is in."""
        image, mask = pictures.plain(number)
        start = int(self.store.key(image)[:12], 16)
        generators = [np.random.default_rng(seed_of(start, k)) for k in range(count - 1)]
        return [(image, mask), *(pictures.draw(number, rng, self.augment) for rng in generators)]

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
    def _answers(
        self, head: PixelHead, samples: Sequence[Labelled]
    ) -> Iterator[tuple[Labelled, np.ndarray, np.ndarray]]:
        """(sample, mask (H,W), log-odds (H,W)) of each."""
        pictures = Views(samples, self.size or WINDOW, native=self.size is None)
        for number, sample in enumerate(samples):
            image, mask = pictures.plain(number)
            (features,) = self.store([image])
            odds = _to_pixels(head.image(features.as_images()), CELL)[0, 1]
            yield sample, mask, odds[: mask.shape[0], : mask.shape[1]].numpy()


def shares(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The share of defect pixels in each cell: mask (H,W) in {0,1} to float32 `shape`."""
    padded = np.zeros((shape[0] * CELL, shape[1] * CELL), np.float32)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.reshape(shape[0], CELL, shape[1], CELL).mean(axis=(1, 3))


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
    inside = np.flatnonzero(flat)
    if not len(inside):  # a window beside it
        inside = np.arange(len(flat))
    place = np.concatenate([inside[rng.integers(len(inside), size=defect)], rng.integers(len(flat), size=other)])
    row, column = np.divmod(place, share.shape[1])
    return features.read(row, column).half(), torch.from_numpy(flat[place])


def folds(samples: Sequence[Labelled], count: int, seed: int) -> list[list[int]]:
    """Numbers of the samples in `count` parts, or in as many as there are groups: whole groups, types spread evenly."""
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
