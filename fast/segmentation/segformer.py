"""SegFormer-B0 (Xie et al., 2021) from transformers, made from its configuration: nothing is downloaded."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.utils import logging

from fast.segmentation.padding import on_multiples
from ldm.checkpoint import read_state_dict
from ldm.errors import UserError

# Colours that the published encoder was trained on, for values in 0..1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEADS = ("decode_head.", "classifier.")


class SegFormer(nn.Module):
    """(B,3,H,W) in [-1, 1] to logits (B,num_classes,H,W), any H and W; inside they are computed at a quarter.

    `weights`: a `.safetensors` file with the encoder under transformers' names (`mit-b0`, or a whole SegFormer-B0); a
    head in it is not used. Raises `UserError` when the encoder is not all there.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int = 2, weights: str | os.PathLike[str] | None = None):
        super().__init__()
        options: dict[str, Any] = {"num_labels": num_classes, "decoder_hidden_size": 256}
        config = SegformerConfig(**options)  # its defaults are MiT-B0
        self.network = SegformerForSemanticSegmentation(config) if weights is None else _with_encoder(config, weights)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return on_multiples(self._logits, image, 32)

    def _logits(self, x: Tensor) -> Tensor:
        quarter = self.network(pixel_values=((x + 1) / 2 - self.mean) / self.std).logits
        return F.interpolate(quarter, size=x.shape[-2:], mode="bilinear", align_corners=False)


def _with_encoder(config: SegformerConfig, weights: str | os.PathLike[str]) -> SegformerForSemanticSegmentation:
    """transformers knows how the names in published files map to those of its present version."""
    given = read_state_dict(weights)
    encoder = {name: tensor for name, tensor in given.items() if not name.startswith(HEADS)}
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the new head, which is meant
    try:
        loaded: Any = SegformerForSemanticSegmentation.from_pretrained(
            None, config=config, state_dict=encoder, output_loading_info=True
        )
    except (RuntimeError, ValueError) as error:  # tensors of another shape
        raise UserError(
            f"{weights} is no MiT-B0 encoder ({str(error).strip().splitlines()[0]}); give mit-b0's weights"
        ) from None
    finally:
        logging.set_verbosity(level)
    network, report = loaded
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(HEADS))
    surplus = sorted(report["unexpected_keys"])
    if missing or surplus:
        raise UserError(
            f"{weights} is no MiT-B0 encoder: {len(missing)} names missing, {len(surplus)} unknown "
            f"({', '.join((missing + surplus)[:2])}, ...); give mit-b0's weights under transformers' names"
        )
    return network.float()
