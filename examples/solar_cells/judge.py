"""The segmenter of the demonstration, and its scores."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from fast.data.images import resize_image
from fast.data.tensors import to_tensor
from fast.segmentation.data import SegmentationSample
from fast.segmentation.pixel_head import Quick
from fast.segmentation.quick import QuickJudge

SIZE = 320  # side that cells of 300 px are seen at
BATCH = 16


def train(samples: Sequence[SegmentationSample], seed: int = 0, pool: int = 150_000, steps: int = 1500) -> Quick:
    """The quick judge on the frozen encoder, as a network."""
    network = Quick().eval()
    network.head = QuickJudge(size=SIZE, augment="none", pool=pool, steps=steps, folds=1).fit(samples, seed)
    return network


@torch.no_grad()
def odds(network: torch.nn.Module, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Log-odds of a defect, float32 (H,W) each, of images uint8 (H,W,3)."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        logits = network(torch.stack([to_tensor(resize_image(image, SIZE)) for image in batch]))
        for image, one in zip(batch, (logits[:, 1] - logits[:, 0]).numpy(), strict=True):
            found.append(cv2.resize(one, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR))
    return found
