"""What the pages show of pictures: small enough to look at, and what segmenters find in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fast.data.images import resize_image, resize_mask
from fast.data.mask_looks import IGNORED
from fast.data.tensors import to_tensor
from fast.segmentation.data import SegmentationSample
from fast.segmentation.evaluation import predict

SHOWN_PAIRS, SHOWN_TESTS = 2, 2  # of each defect type
LARGEST = 512  # side of a picture on a page


def smaller(image: np.ndarray) -> np.ndarray:
    """An image (H,W,3), or a mask (H,W) in {0,1}, that is no larger than a page shows it."""
    factor = min(1.0, LARGEST / max(image.shape[:2]))
    side = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
    return resize_image(image, side) if image.ndim == 3 else resize_mask(image, side)


@torch.no_grad()
def seen(
    sample: SegmentationSample, networks: Mapping[str, nn.Module], size: int | None, tile: int | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A picture (H,W,3), its true mask (H,W), and what each network finds in it, by name, as a page shows them.
    `size`: side of the square that they see it as (None: it keeps its size); `tile`: side of the tiles that they see it
    in (None: as a whole). Pixels to ignore are not found."""
    image, mask = sample.read()
    truth, ignored = ((mask == label).astype(np.uint8) for label in (1, IGNORED))
    if size is not None:
        image, truth, ignored = resize_image(image, size), resize_mask(truth, size), resize_mask(ignored, size)
    found = {}
    for name, network in networks.items():
        logits = predict(network, to_tensor(image)[None], tile=tile)
        where = (logits[0].argmax(0).numpy() > 0) & (ignored == 0)
        found[name] = smaller(where.astype(np.uint8)) > 0
    return smaller(image), smaller(truth), found
