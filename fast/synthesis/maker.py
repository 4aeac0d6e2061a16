"""What makes pairs, as the rest of the program sees it, and what it is handed: masks and drafts."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fast.data.images import read_mask, resize_mask
from fast.synthesis.pair import Pair, SynthesizedSample

MaskOf = Callable[[np.ndarray, Pair], np.ndarray]


def given_mask(image: np.ndarray, pair: Pair) -> np.ndarray:
    """The pair's mask file for a picture (H,W,3), of its size: (H,W) in {0,1}."""
    return resize_mask(read_mask(pair.files[1]), image.shape[:2])


@dataclass(frozen=True)
class Draft:
    """A first version of a pair, which sampling starts from: image (H,W,3) uint8 and mask (H,W) in {0,1}. `filled`
    (H,W) in {0,1}: where the image differs from the normal, if that is more than the mask. `origin`: which real defects
    took part, for the manifest. `look`: the word for what was drawn, empty where nothing was."""

    image: np.ndarray
    mask: np.ndarray
    origin: dict[str, str] = field(default_factory=dict)
    look: str = ""
    filled: np.ndarray | None = None


class DraftOf(Protocol):
    """Makes drafts, each a function of the picture, the pair's seed and `settings`."""

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        """A draft for a picture (H,W,3) uint8, in a given mask (H,W) if there is one. Raises `UserError`."""

    def settings(self) -> Mapping[str, Any]:
        """What decides a draft's bytes."""


class Maker(Protocol):
    """What makes pairs: the windows of a method on a latent base, or a method that takes whole pictures.

    `size`: side of the square that pictures are resized to; None: they are not.
    """

    @property
    def size(self) -> int | None: ...

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]: ...

    def stop(self) -> None: ...

    def prompt(self, type_index: int) -> str: ...

    def settings(self) -> dict[str, Any]: ...
