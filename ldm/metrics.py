"""Measures that trainings and reports share."""

import torch
from torch import Tensor

FLOOR = 1e-10  # of the mean squared error over the peak's square: equal images have 100 dB


def decibels(error: Tensor, peak: float) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100, of mean squared errors; `peak`: the range of the values, 2 for
    images in [-1, 1], 255 for bytes. Of an error of 0.04 in [-1, 1] it is 10 log10(4 / 0.04) = 20 dB."""
    return 10 * torch.log10(peak**2 / error.clamp_min(FLOOR * peak**2))
