"""A batch as FAST and the methods beside it train on: two latents with masks and types."""

from typing import Any

import torch

from ldm.rng import generator


def batch() -> dict[str, Any]:
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 10:30, 20:41] = 1
    mask[1, :, 5, 5] = 1
    latent = torch.randn(2, 4, 16, 16, generator=generator(9))
    return {"latent": latent, "mask": mask, "type": torch.tensor([0, 5]), "seed": torch.tensor([11, 12])}
