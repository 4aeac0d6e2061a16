"""Networks that halve a picture several times, on pictures of any size."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def on_multiples(network: Callable[[Tensor], Tensor], image: Tensor, multiple: int) -> Tensor:
    """`network` (B,C,h,w) -> (B,D,h,w) of image (B,C,H,W), its edge repeated to the right and bottom until the sides
    are multiples, and the result cut to H and W again."""
    height, width = image.shape[-2:]
    missing = (0, -width % multiple, 0, -height % multiple)
    padded = F.pad(image, missing, mode="replicate") if any(missing) else image
    return network(padded)[..., :height, :width]
