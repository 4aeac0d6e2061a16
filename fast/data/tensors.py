"""Images and masks between uint8 arrays and tensors, and masks on latent cells."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def latent_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Pixel mask (B,1,H,W) in {0,1} to latent cells (B,1,h,w): a cell is defect if any of its pixels is.

    Thresholding an averaged mask, as the releases do, erases hairline cracks and pinholes.
    """
    return F.adaptive_max_pool2d(mask.float(), (size[0], size[1]))


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (H,W,3) to float (3,H,W) in [-1, 1]."""
    # A copy: a decoded picture may be read-only, which tensors are not.
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 127.5 - 1.0


def to_image(tensor: Tensor) -> np.ndarray:
    """float (3,H,W), about [-1, 1], to uint8 (H,W,3)."""
    scaled = ((tensor.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(1, 2, 0).numpy()
