"""A segmenter on the pairs, and what it and the controls say of a whole cell."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from scipy import stats

from fast.data.images import resize_image
from fast.masks import to_tensor
from fast.segmentation.data import Labelled
from fast.segmentation.quick import Quick, QuickJudge

SIZE = 320
TOP = 0.01  # share of a cell's pixels whose mean score is the cell's
BATCH = 16


def train(samples: Sequence[Labelled], seed: int = 0, pool: int = 150_000, steps: int = 1500) -> Quick:
    """The quick judge on the frozen encoder, as a network."""
    judge = QuickJudge(size=SIZE, augment="none", pool=pool, steps=steps, folds=1)
    network = Quick().eval()
    network.head = judge.fit(samples, seed)
    return network


@torch.no_grad()
def odds(network: torch.nn.Module, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Log-odds of a defect, float32 (H,W) each, of images uint8 (H,W,3)."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        logits = network(torch.stack([to_tensor(resize_image(image, SIZE)) for image in batch]))
        for image, one in zip(batch, (logits[:, 1] - logits[:, 0]).numpy(), strict=True):
            found.append(cv2.resize(one, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    return found


def highest(scores: np.ndarray, share: float = TOP) -> float:
    """Mean of the highest `share` of a map (H,W), of one pixel at least."""
    count = max(1, round(share * scores.size))
    return float(np.partition(scores.reshape(-1), -count)[-count:].mean())


def darkest_spot(image: np.ndarray) -> float:
    """Control: how dark the darkest place of the blurred image is, uint8 (H,W); higher = darker."""
    side = min(image.shape)
    soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), side / 40)
    edge = side // 10
    return -float(soft[edge:-edge, edge:-edge].min())


def darkness(image: np.ndarray) -> float:
    """Control: how dark the whole image is; higher = darker."""
    return -float(image.mean())


def auroc(defective: np.ndarray, functional: np.ndarray) -> float:
    """Chance that a defective cell scores above a functional one; ties count half."""
    u = stats.mannwhitneyu(defective, functional).statistic
    return float(u / (len(defective) * len(functional)))
