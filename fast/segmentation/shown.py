"""Pairs, and what a network finds in them, as a notebook shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
import torch
from markupsafe import Markup
from torch import nn

from fast.data.images import resize_image, resize_mask
from fast.data.shown import FIGURE, IMAGE, SMALL, data_url, figure, outlined
from fast.segmentation.data import SegmentationSample, from_output
from fast.segmentation.evaluation import answers

SHOWN = 18  # pairs that a set shows
ROW = Markup('<div style="display:flex;flex-wrap:wrap;gap:8px">{}</div>')


class Pairs(list[SegmentationSample]):
    """Image-mask pairs that a notebook shows as pictures: a list, and so is a part of it."""

    @classmethod
    def read(cls, folder: str | Path) -> Pairs:
        """Those of a synthesis output, without rejected ones. Raises `UserError`."""
        return cls(from_output(folder)[0])

    @overload
    def __getitem__(self, place: SupportsIndex) -> SegmentationSample: ...

    @overload
    def __getitem__(self, place: slice) -> Pairs: ...

    def __getitem__(self, place: SupportsIndex | slice) -> SegmentationSample | Pairs:
        found = super().__getitem__(place)
        return Pairs(found) if isinstance(found, list) else found

    def answered(self, network: nn.Module, size: int = 256) -> Answers:
        """What a trained network finds in them, which sees them as squares of `size` pixels."""
        return Answers(self, network, size)

    def _repr_html_(self) -> str:
        step = max(1, len(self) // SHOWN)
        figures = [figure(*s.read(), s.kind.strip("/"), SMALL, cut=True) for s in self[::step][:SHOWN]]
        return str(Markup("<p>{} pairs</p>").format(len(self)) + ROW.format(Markup("").join(figures)))


class Answers:
    """Pairs beside what a network finds: `masks`, (size,size) in {0,1} each. A notebook shows both outlines."""

    def __init__(self, pairs: Sequence[SegmentationSample], network: nn.Module, size: int = 256):
        self.pairs, self.size = list(pairs), size
        with torch.inference_mode():
            found = answers(network.eval(), self.pairs, size, False, 8, False, _device(network))
            self.masks = [(logits.argmax(dim=0) > 0).numpy().astype(np.uint8) for _, _, logits in found]

    def _repr_html_(self) -> str:
        figures: list[Markup] = []
        for sample, mask in list(zip(self.pairs, self.masks, strict=True))[:SHOWN]:
            image, labels = sample.read()
            square, true = resize_image(image, self.size), resize_mask(labels == 1, self.size)
            pictures = Markup("").join(
                IMAGE.format(url=data_url(outlined(square, m)), height=SMALL, alt=alt)
                for m, alt in ((true, "defect"), (mask, "found"))
            )
            words = f"{sample.kind.strip('/')}: defect | found"
            figures.append(FIGURE.format(width=2 * SMALL + 8, pictures=pictures, words=words))
        return str(ROW.format(Markup("").join(figures)))


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
