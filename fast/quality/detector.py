"""A detector of synthesis: a small network told to find the masks that were filled with normal content.

It sees the pixels as they are, for what gives a filled mask away is fine: smoothness, another grain, a seam. The nearer
it is to chance on parts it was not trained on, the less there is for a segmenter to learn instead of the defects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fast.metrics.segmentation import MetricAccumulator


class TraceNet(nn.Module):
    """Images (B,3,H,W), about -2 to 2 -> log-odds (B,1,H,W) that a pixel was made; it sees 31 pixels around each."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.body = nn.Sequential(
            _conv(3, width), *(_conv(width, width, apart) for apart in (1, 2, 4, 6)), _conv(width, width)
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(images))
        return found


def _conv(given: int, width: int, apart: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution whose taps are so many pixels apart. Mirrored beyond the edge: zeros would tell where it is,
    and masks rarely lie there."""
    conv = nn.Conv2d(given, width, 3, padding=apart, dilation=apart, bias=False, padding_mode="reflect")
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


@dataclass(frozen=True)
class DetectionScores:
    """How well masks were found, areas of all test images summed: average precision and area under the ROC curve, in
    0..1, and what chance gives for the precision (the share of the masks' pixels); for the curve it is 0.5."""

    ap: float
    auroc: float
    chance: float


def detect(
    train: Sequence[tuple[np.ndarray, np.ndarray]],
    test: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int = 0,
    steps: int = 300,
    batch: int = 12,
    side: int = 64,
) -> DetectionScores:
    """Train on `train` and find the masks of `test`: images (H,W,3) uint8 of one size with masks (H,W), nonzero = made.

    Views of `side` pixels, mirrored and turned; half of them hold a pixel of the mask. `test` must
    be of other parts, or what a part looks like is learned by heart.
    """
    rng = np.random.default_rng(seed)
    images = _float(np.stack([image for image, _ in train]))
    masks = torch.from_numpy(np.stack([mask != 0 for _, mask in train])).float()[:, None]
    weight = ((1 - masks.mean()) / masks.mean()).sqrt()  # masks are few pixels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = TraceNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        network.train()
        for _ in range(steps):
            views = [_view(images, masks, min(side, *images.shape[2:]), rng) for _ in range(batch)]
            x, y = (torch.stack(part) for part in zip(*views, strict=True))
            odds = network(x.contiguous(memory_format=torch.channels_last))
            loss = F.binary_cross_entropy_with_logits(odds, y, pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _tested(network.eval(), test)


def _view(images: Tensor, masks: Tensor, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random square of a random image (3,side,side) and of its mask (1,side,side)."""
    number = int(rng.integers(len(images)))
    height, width = images.shape[2:]
    top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
    if rng.random() < 0.5 and len(points := torch.nonzero(masks[number, 0])):
        y, x = points[int(rng.integers(len(points)))].tolist()
        top = int(np.clip(y - rng.integers(side), 0, height - side))
        left = int(np.clip(x - rng.integers(side), 0, width - side))
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    views = []
    for whole in (images[number], masks[number]):
        view = torch.rot90(whole[:, top : top + side, left : left + side], turns, (1, 2))
        views.append(view.flip(2) if mirrored else view)
    return views[0], views[1]


@torch.no_grad()
def _tested(network: TraceNet, test: Sequence[tuple[np.ndarray, np.ndarray]]) -> DetectionScores:
    total, made, pixels = MetricAccumulator(), 0, 0
    for image, mask in test:
        odds = network(_float(image[None]))[0, 0].numpy()
        own = (mask != 0).astype(np.uint8)
        total.add(odds > 0, own, odds)
        made, pixels = made + int(own.sum()), pixels + own.size
    ap, auroc = total.ap(), total.auroc()
    if ap is None or auroc is None:
        raise ValueError("no test image holds both: pixels inside and outside of a mask")
    return DetectionScores(ap, auroc, made / pixels)


def _float(images: np.ndarray) -> Tensor:
    """uint8 (N,H,W,3) to (N,3,H,W), each image's own mean taken away: brightness tells the part, not the synthesis."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return (x - x.mean((1, 2, 3), keepdim=True)) / 32
