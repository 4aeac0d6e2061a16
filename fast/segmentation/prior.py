"""How common a segmenter takes defect pixels to be: training does not draw them as often as pictures show them.

Windows are taken around defects, rare types are drawn as often as common ones, and pairs come beside the real pictures.
A network that learned from such draws gives a defect the odds that it has among them. Divided by how much more (or
less) common defect pixels were there than in the real pictures, those become the odds in pictures like the real ones
(Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002). What the
loss weighs stays: the weight of a defect pixel and Dice raise the odds on purpose. So do types among each other.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fast.data.mask_looks import IGNORED
from fast.segmentation.data import Views, is_normal

PRIORS = ("real", "drawn")  # as common as in the real pictures, or as in what training draws


class PixelShare:
    """Counts defect pixels and others; those to ignore are neither."""

    def __init__(self) -> None:
        self.defect = self.others = 0

    def add(self, labels: np.ndarray) -> None:
        """labels: uint8 (H,W), 0, 1, or 255 for ignored."""
        defect = int(np.count_nonzero(labels == 1))
        self.defect += defect
        self.others += int(np.count_nonzero(labels != IGNORED)) - defect

    @property
    def odds(self) -> float | None:
        """Defect pixels to one other pixel; None where there are none of either."""
        return self.defect / self.others if self.defect and self.others else None


def oversampling(drawn: PixelShare, views: Views) -> float:
    """How many times as common, in odds, defect pixels are in what training drew as in the real pictures.

    Both sides are of pictures with a defect alone. The share of normal images among the draws says how much false
    alarms on them matter, and is not to be corrected.

    Args:
        drawn: the pixels of the training views of pictures with a defect.
        views: the training pairs. The real pictures with a defect count, each seen once and whole, or where there are
            none the synthetic ones.

    Returns:
        The ratio of the odds, or 1 where either side tells nothing.
    """
    shown = [number for number, sample in enumerate(views.samples) if not is_normal(sample)]
    real = [number for number in shown if not views.samples[number].synthetic]
    whole = PixelShare()
    for number in real or shown:
        whole.add(views.plain(number)[1])
    return drawn.odds / whole.odds if drawn.odds and whole.odds else 1.0


class Corrected(nn.Module):
    """A trained network whose odds of a defect, of any type, are divided by a number.

    It takes images (B,3,H,W) in [-1, 1] to float32 logits (B,K,H,W). The order of the scores within a view stays.

    Args:
        network: the trained network.
        oversampling: what the odds are divided by, above 0, see the function `oversampling`.
    """

    shift: Tensor

    def __init__(self, network: nn.Module, oversampling: float):
        super().__init__()
        self.network, self.oversampling = network, float(oversampling)
        self.register_buffer("shift", torch.tensor(math.log(oversampling)), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image).float()
        return torch.cat([logits[:, :1] + self.shift, logits[:, 1:]], dim=1)


def corrected(network: nn.Module, oversampling: float) -> Corrected:
    """Wrap a trained network in `Corrected`, in evaluation mode and on the device where it is."""
    return Corrected(network, oversampling).to(next(network.parameters()).device).eval()


def uncorrected(network: nn.Module) -> nn.Module:
    """The network itself, without the `Corrected` around it if there is one."""
    return network.network if isinstance(network, Corrected) else network
