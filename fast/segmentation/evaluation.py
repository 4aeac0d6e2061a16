"""A segmenter's answers on test pairs, and what they are worth."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fast.data.mask_looks import IGNORED
from fast.data.tensors import to_tensor
from fast.metrics.segmentation import ClassMetricAccumulator, defect_score
from fast.segmentation.data import SegmentationSample, Views
from fast.segmentation.tally import Tally
from fast.windows.tiling import tiled
from ldm.errors import UserError

LEAST = 1e-30  # a probability whose logarithm is still a number


def evaluate(
    model: nn.Module,
    pairs: Sequence[SegmentationSample],
    *,
    size: int = 256,
    native: bool = False,
    batch_size: int = 8,
    bf16: bool = False,
    device: str | torch.device = "cpu",
    labels: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Test a segmenter of two or more classes on pairs and return its scores.

    A pixel counts as found where the most probable class is not the background. With two classes that is a probability
    of a defect above 0.5. Pixels that a mask says to ignore count in no figure. Pictures without a defect count in the
    totals, by what is found in them by mistake.

    Args:
        model: the network, which is moved to `device` and put into evaluation mode.
        pairs: test pairs. Where the network tells types apart, `SegmentationSample.label` is a pair's own class.
        size: side in pixels of the square that pictures and masks are resized to, as in training, or with `native` of
            the tiles.
        native: leave pictures at their own size. The network sees them in overlapping tiles.
        batch_size: pictures at a time. With `native` it is always one.
        bf16: compute matrix products in bfloat16.
        device: where the network runs.
        labels: {class: name} of a network with several defect classes, which adds how well it tells them apart.

    Returns:
        Figures by name, in 0..1, and None where nothing can be said:
        - `miou`, `acc`, `f1`: IoU, recall and F1 of the defect pixels of the whole set. The background is not averaged
          in.
        - `aacc`: the share of all pixels that are told right.
        - `pro_at_half`: mean recall of the regions, the connected defects.
        - `ap`, `auroc`, `f1_max`: average precision, area under the ROC curve and largest F1 over all thresholds, of
          the pooled pixels scored by the log-odds of a defect.
        - `pro`: area under the per-region overlap of these scores up to a false-positive rate of 0.3, divided by 0.3.
        - `miou_types`, `acc_types`: means over the defect types.
        - `types`: the figures of each type's pictures alone.
        - `images`: the number of pictures, which is no share.
        - `unmarked`: the pictures in which most was found where nothing is marked, see `Unmarked.report`.
        - `parts`: the pixel counts of each physical part, see `Parts.report`.
        - with `labels` also those of `ClassMetricAccumulator.report`.

    Raises:
        UserError: when there are no pairs, `labels` do not fit the network's classes and the pairs, or the network
            answers with NaN.
    """
    if not pairs:
        raise UserError("no pairs to test a segmenter on; give a dataset with held-out defects")
    model = model.to(device).eval()
    classes: ClassMetricAccumulator | None = None
    tally = Tally()
    for pair, mask, logits in answers(model, pairs, size, native, batch_size, bf16, device):
        predicted = logits.argmax(dim=0).numpy()
        score = defect_score(logits[None])[0].numpy()
        tally.add(pair, predicted > 0, mask, score)
        if labels is not None:
            classes = classes or _classes(pairs, labels, len(logits))
            known = mask != IGNORED
            classes.add(predicted[known], mask[known].astype(np.int64) * pair.label)
    found = tally.report()
    return found if classes is None or labels is None else {**found, **classes.report(labels)}


def answers(
    model: nn.Module,
    pairs: Sequence[SegmentationSample],
    size: int,
    native: bool,
    batch_size: int,
    bf16: bool,
    device: str | torch.device,
) -> Iterator[tuple[SegmentationSample, np.ndarray, Tensor]]:
    """Each pair, its labels (H,W), 0, 1 or 255, at the resolution of the evaluation, and logits (K,H,W) on the CPU."""
    views = Views(pairs, size, native)
    step = 1 if native else batch_size
    for start in range(0, len(pairs), step):
        batch = [views.plain(i) for i in range(start, min(start + step, len(pairs)))]
        images = torch.stack([to_tensor(image) for image, _ in batch])
        logits = predict(model, images.to(device), tile=size if native else None, bf16=bf16).cpu()
        for k, (_, mask) in enumerate(batch):
            yield pairs[start + k], mask, logits[k]


def _classes(pairs: Sequence[SegmentationSample], labels: Mapping[int, str], count: int) -> ClassMetricAccumulator:
    """An empty tally; UserError where the names fit neither the segmenter's `count` classes nor the pairs."""
    wrong = sorted(k for k in labels if not 0 < k < count)
    if wrong:
        raise UserError(f"labels name class {wrong[0]}, but the segmenter has the defect classes 1..{count - 1}")
    strange = sorted({pair.label for pair in pairs if pair.mask is not None} - labels.keys())
    if strange:
        raise UserError(f"a test pair has class {strange[0]}, which labels do not name; name it or leave the pair out")
    return ClassMetricAccumulator(count)


@torch.no_grad()
def predict(model: nn.Module, image: Tensor, tile: int | None = None, bf16: bool = False) -> Tensor:
    """Float logits (B,K,H,W) of image (B,3,H,W) in [-1, 1]; with `tile` those of the probabilities that overlapping
    tiles of that side give, blended: what whoever runs the exported network has."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        if tile is None:
            return model(image).float()
        shares = tiled(lambda part, _: model(part).float().softmax(dim=1), image, tile=tile, overlap=tile // 4)
        return shares.clamp_min(LEAST).log()
