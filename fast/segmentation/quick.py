"""The quick judge: a small pixel classifier on frozen features, trained in seconds, to compare sets of training pairs.

The encoder is never trained, so that an image's features are computed once and shared by all sets and seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fast.data.transforms import AUGMENT
from fast.features.store import CELL, FeatureStore, shares
from fast.metrics.segmentation import MetricAccumulator
from fast.segmentation.data import SegmentationSample, Views, is_normal
from fast.segmentation.pixel_head import PixelHead, to_pixels
from fast.segmentation.pool import PixelPool, allot, take
from fast.segmentation.tally import Tally
from ldm.errors import UserError
from ldm.rng import seed_of

MEASURED_STEPS = 20  # of a head's training, for `QuickJudge.costs`
OTHERS = 1000  # views of samples that are no real defects, where there are many
WINDOW = 256  # side of the training views where images keep their size


@dataclass(frozen=True)
class QuickCosts:
    """Seconds, measured: `whole` of an image that is read whole and its features, `view` of a random view and its
    features, `answer` of the answer to an image whose features are there and of its figures, `head` of the training."""

    whole: float
    view: float
    answer: float
    head: float


@dataclass
class QuickJudge:
    """Trains and tests `PixelHead`s, small pixel classifiers on the features of a frozen encoder.

    Args:
        size: side in pixels of the square that images are resized to. None leaves them as they are, for small defects
            in large images, and takes the views from windows of `WINDOW` pixels.
        augment: how views differ from the image, one of `fast.data.transforms.AUGMENT`.
        views: random views of each real defect beside the image itself, the same in all sets. Other samples have fewer
            where they are many. With augment="none" there are none.
        pool: cells that are drawn from all images and views to train on, half of them in the defects, the others
            anywhere.
        steps, batch, lr: optimizer steps of the head's training on the pool, cells in a step, and highest learning
            rate.
        folds: parts of the real defects to train on (of the synthetic ones where there are none), each predicted by a
            head that has not seen it. The threshold is chosen on what these heads predict.
        cache: a folder that keeps the features. None: they are kept in memory as far as they fit.
        device: where the encoder runs.
        store: the features, made by `cache` and `device`.

    Raises:
        UserError: when `augment` is unknown.
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

    def settings(self) -> dict[str, Any]:
        """How it sees images, as plain data, which decides its figures: those of another device are others."""
        seen = {"size": self.size, "augment": self.augment}
        return seen if self.device == "cpu" else {**seen, "device": self.device}

    def score(
        self, train_samples: Sequence[SegmentationSample], test_samples: Sequence[SegmentationSample], seed: int = 0
    ) -> dict[str, Any]:
        """Train on weighted samples (`fast.segmentation.data.merged`), test, and return the figures of
        `fast.segmentation.evaluation.evaluate`: `miou`, `ap`, `auroc`, `miou_types`, `types`, ... all in 0..1."""
        return self.test(self.fit(train_samples, seed), test_samples)

    def fit(self, samples: Sequence[SegmentationSample], seed: int = 0) -> PixelHead:
        """A trained head with its threshold. UserError where no sample has a defect."""
        if not samples or all(is_normal(s) for s in samples):
            raise UserError("no pairs with defects to train the quick judge on; give a folder that holds some")
        pool = self._pool(samples, np.random.default_rng(seed_of(seed, 1)))
        head = self._train(pool, seed)
        if (threshold := self._threshold(samples, pool, seed)) is not None:
            head.threshold.fill_(threshold)
        return head

    def test(self, head: PixelHead, samples: Sequence[SegmentationSample]) -> dict[str, Any]:
        """Figures of a head on test samples, as `score` returns them."""
        if not samples:
            raise UserError("no pairs to test a segmenter on; give a dataset with held-out defects")
        threshold, tally = float(head.threshold), Tally()
        for sample, mask, odds in self.answers(head, samples):
            tally.add(sample, odds > threshold, mask, odds)
        return {**tally.report(), "threshold": threshold}

    def costs(self, samples: Sequence[SegmentationSample]) -> QuickCosts:
        """What a training and a test take, measured on a few real defects. Whole images and their views are told apart:
        where images keep their size, one is a window of the other. Raises `UserError`."""
        self.store([np.zeros((64, 64, 3), np.uint8)])  # whose time would be the encoder's loading
        clock, views = time.perf_counter, int(self._counts(samples).sum()) - len(samples)
        start = clock()
        pictures = self._pictures(samples)
        for number in range(len(samples)):
            self.store([pictures.plain(number)[0]])
        read = clock()
        pool = self._pool(samples, np.random.default_rng(0))  # reads the images once more
        ends = [clock()]
        for count in (1, 1, 1 + MEASURED_STEPS):  # a training has a beginning of its own, the first one more
            head = self._train(pool, 0, count)
            ends.append(clock())
        figures = MetricAccumulator()
        for _, mask, odds in self.answers(head, samples):
            figures.add(odds > 0, mask, odds)
        figures.best_threshold()
        begin, whole = ends[2] - ends[1], ends[3] - ends[2]
        return QuickCosts(
            whole=(read - start) / len(samples),
            view=(ends[0] - read) / max(1, views),
            answer=(clock() - ends[3]) / len(samples),
            head=(1 + self.folds) * (begin + max(0.0, whole - begin) / MEASURED_STEPS * (self.steps - 1)),
        )

    def seconds(self, costs: QuickCosts, real: int, others: int, test: int) -> float:
        """What a training on so many real defects and other samples, and a test on so many images, take. The real ones
        are answered too, for the threshold."""
        whole = real + others + test
        return (
            costs.whole * whole
            + costs.view * (self.looks(real, others) - real - others)
            + (costs.answer * (real + test) + costs.head)
        )

    def looks(self, real: int, others: int) -> int:
        """How many views a training on so many real defects and other samples looks at."""
        return real * (self._views_of_real + 1) + others * (self._views_of_others(others) + 1)

    # training

    def _pictures(self, samples: Sequence[SegmentationSample]) -> Views:
        return Views(samples, self.size or WINDOW, native=self.size is None)

    def _pool(self, samples: Sequence[SegmentationSample], rng: np.random.Generator) -> PixelPool:
        """Random cells of all samples and their views, read image by image."""
        pictures = self._pictures(samples)
        views = self._counts(samples)
        owner = np.repeat(np.arange(len(samples)), views)
        weights = np.array([s.weight for s in samples])[owner] / np.repeat(views, views)
        areas = np.array([np.count_nonzero(pictures.plain(i)[1] == 1) for i in range(len(samples))])[owner]
        defect, other = allot(weights, areas, self.pool, rng)
        found = []
        for number, start in enumerate(np.concatenate([[0], np.cumsum(views)[:-1]])):
            pairs = self._views(pictures, number, int(views[number]))
            wanted = [start + k for k in range(views[number]) if defect[start + k] + other[start + k]]
            features = self.store([pairs[k - start][0] for k in wanted])
            for k, one in zip(wanted, features, strict=True):
                share = shares(pairs[k - start][1], one.shape)
                found.append((*take(one, share, int(defect[k]), int(other[k]), rng), number))
        return PixelPool(
            torch.cat([features for features, _, _ in found]),
            torch.cat([share for _, share, _ in found]),
            np.repeat([number for *_, number in found], [len(share) for _, share, _ in found]),
        )

    def _counts(self, samples: Sequence[SegmentationSample]) -> np.ndarray:
        """How many views of each sample there are, itself included. Real defects have as many with other samples as
        without; of those, fewer where they are many."""
        real = np.array([not s.synthetic and not is_normal(s) for s in samples])
        return np.where(real, self._views_of_real, self._views_of_others(int((~real).sum()))) + 1

    @property
    def _views_of_real(self) -> int:
        return 0 if self.augment == "none" else self.views

    def _views_of_others(self, count: int) -> int:
        return 0 if self.augment == "none" else max(1, min(self.views, OTHERS // max(1, count)))

    def _views(self, pictures: Views, number: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """A sample's image and mask, then random views. By the content: they are the same whatever set it is in."""
        image, mask = pictures.plain(number)
        start = int(self.store.key(image)[:12], 16)
        generators = [np.random.default_rng(seed_of(start, k)) for k in range(count - 1)]
        return [(image, mask), *(pictures.draw(number, rng, self.augment) for rng in generators)]

    def _train(self, pool: PixelPool, seed: int, steps: int | None = None) -> PixelHead:
        steps = self.steps if steps is None else steps
        chosen = torch.Generator().manual_seed(seed_of(seed, 2))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            head = PixelHead()
            features = pool.features.float()
            head.mean.copy_(features.mean(dim=0))
            head.std.copy_(features.std(dim=0) + 1e-3)
            optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr, weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
            for _ in range(steps):
                rows = torch.randint(len(pool.share), (self.batch,), generator=chosen)
                loss = F.binary_cross_entropy_with_logits(head.cells(features[rows]), pool.share[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return head.eval()

    def _threshold(self, samples: Sequence[SegmentationSample], pool: PixelPool, seed: int) -> float | None:
        """The log-odds with the highest IoU on training images, each predicted by a head that has seen neither its part
        nor a pair made from it: real ones, or where there are none the synthetic ones. None where they make no two
        parts."""
        judged = [i for i, s in enumerate(samples) if not s.synthetic and not is_normal(s)]
        judged = judged or [i for i, s in enumerate(samples) if not is_normal(s)]
        parts = folds([samples[i] for i in judged], self.folds, seed)
        if len(parts) < 2:
            return None
        total = MetricAccumulator()
        for number, part in enumerate(parts):
            out = {judged[i] for i in part}
            files = {p.resolve() for i in out for p in (samples[i].image, samples[i].mask) if isinstance(p, Path)}
            kept = pool.of([i for i, s in enumerate(samples) if i not in out and not s.sources & files])
            if not bool((kept.share > 0).any()):
                return None
            head = self._train(kept, seed_of(seed, number))
            for _, mask, odds in self.answers(head, [samples[i] for i in sorted(out)]):
                total.add(odds > 0, mask, odds)
        return total.best_threshold()

    @torch.no_grad()
    def answers(
        self, head: PixelHead, samples: Sequence[SegmentationSample]
    ) -> Iterator[tuple[SegmentationSample, np.ndarray, np.ndarray]]:
        """(sample, labels (H,W), log-odds (H,W)) of each."""
        pictures = self._pictures(samples)
        for number, sample in enumerate(samples):
            image, mask = pictures.plain(number)
            (features,) = self.store([image])
            odds = to_pixels(head.image(features.as_images()), CELL)[0, 1]
            yield sample, mask, odds[: mask.shape[0], : mask.shape[1]].numpy()


def folds(samples: Sequence[SegmentationSample], count: int, seed: int) -> list[list[int]]:
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
