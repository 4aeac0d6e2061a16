"""Whether a segmenter that has not seen an image-mask pair finds its defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from fast.masks.changed import around
from fast.segmentation.data import SegmentationSample, merged
from fast.segmentation.quick import QuickJudge, folds

LARGE = 640  # pixels: of images with a longer side only a window around the defect is looked at
WINDOW = 256  # its side in pixels, larger where the defect is
NEAR = 32  # pixels around the mask: what a segmenter finds farther off is not the pair's fault


def quick_judge() -> QuickJudge:
    """The judge of the pairs: images keep their size, and each is looked at once."""
    return QuickJudge(size=None, augment="none", pool=20_000, steps=300, folds=2)


def in_window(sample: SegmentationSample) -> SegmentationSample:
    """A sample of a large image with what lies around its defect alone, as arrays; another as it is."""
    image, labels = sample.read()
    if max(labels.shape) <= LARGE:
        return sample
    _, _, width, height = cv2.boundingRect((labels == 1).astype(np.uint8))
    box = around(labels == 1, max(32, -(-(WINDOW - min(width, height)) // 2)))
    return replace(sample, image=image[box].copy(), mask=labels[box].copy())


def agreement(
    pairs: Sequence[SegmentationSample], real: Sequence[SegmentationSample], judge: QuickJudge, seed: int = 0
) -> list[float | None]:
    """For each pair the IoU of its mask with what a segmenter finds that was trained on the other half of the pairs
    and of the `real` training defects, in equal shares; what it finds within `NEAR` pixels of the mask's bounding box
    counts. None where there are no two halves.

    Halves are made of whole groups (`SegmentationSample.group`): of pairs on one normal image, of one physical part.
    """
    halves, real_halves = folds(pairs, 2, seed), folds(real, 2, seed)
    found: list[float | None] = [None] * len(pairs)
    if len(halves) < 2:
        return found
    for own, other in ((0, 1), (1, 0)):
        beside = [real[i] for i in real_halves[other]] if len(real_halves) == 2 else []
        made = [pairs[i] for i in halves[other]]
        head = judge.fit(merged(made, beside, real_share=0.5 if beside else None), seed)
        answers = judge.answers(head, [pairs[i] for i in halves[own]])
        for i, (_, labels, odds) in zip(halves[own], answers, strict=True):
            near = around(labels == 1, NEAR)
            shown, true = (odds > float(head.threshold))[near] & (labels[near] != 255), labels[near] == 1
            either = np.logical_or(shown, true).sum()
            found[i] = float(np.logical_and(shown, true).sum() / either) if either else None
    return found
