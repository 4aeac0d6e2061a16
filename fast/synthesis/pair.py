"""A pair on its way: what is to be made, what was made, and its line of the manifest."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fast.synthesis.options import COUNTERFEIT_STRENGTH


@dataclass(frozen=True)
class Pair:
    """One image-mask pair to make. `seed` fixes its noise; it depends on the run's seed and the index alone.

    `normal`, `mask`: files; None where the method, or a source of masks, draws its own. `counterfeit`: normal content
    goes into the mask, see `fast.synthesis.counterfeit`.
    """

    index: int
    normal: Path | None
    mask: Path | None
    type_index: int
    seed: int
    counterfeit: bool = False

    @property
    def files(self) -> tuple[Path, Path]:
        """(normal, mask) of a pair that has both."""
        assert self.normal is not None
        assert self.mask is not None
        return self.normal, self.mask


@dataclass(frozen=True)
class PairImages:
    """What is stored of a pair: `image` (H,W,3) uint8 and `mask` (H,W) in {0,1}.

    `normal`: the normal image (h,w,3) within `shown`, the rows and columns that the triptych shows, no larger than it
    takes them. `asked`: the mask (H,W) that was to be changed, where `mask` is less: what of it really changed, or what
    people would outline of it.
    """

    normal: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    shown: tuple[slice, slice] = (slice(None), slice(None))
    asked: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class SynthesizedSample(PairImages):
    """A finished pair.

    `windows`: (top, left, height, width) of those that were sampled; `seconds` it took. `origin`: which real defects
    took part, for the manifest. `prompt_index`: whose prompt it was made by, where that is not its type's. `rejected`:
    why the pair is not to be used; empty for one that is.
    """

    pair: Pair
    windows: list[tuple[int, int, int, int]]
    seconds: float
    origin: dict[str, Any] = field(default_factory=dict)
    prompt_index: int | None = None
    rejected: str = ""


def record(made: SynthesizedSample, prompt: str, common: dict[str, Any]) -> dict[str, Any]:
    """The manifest line of a pair: everything needed to make it again."""
    pixels, fake = int(made.mask.sum()), made.pair.counterfeit
    drafted = common.get("draft", "none") != "none" and common["strength"] < 1
    strength = common["strength"] if drafted else COUNTERFEIT_STRENGTH
    return {
        "index": made.pair.index,
        "image": f"image/{made.pair.index:06d}.png",
        "mask": f"mask/{made.pair.index:06d}.png",
        "normal_source": made.pair.normal and str(made.pair.normal),
        "mask_source": made.pair.mask and str(made.pair.mask),
        "prompt": "" if fake else prompt,
        **({} if made.asked is None else {"mask_asked": f"mask_asked/{made.pair.index:06d}.png"}),
        **({"rejected": made.rejected} if made.rejected else {}),
        "pair_seed": made.pair.seed,
        **made.origin,
        **common,
        "windows": made.windows,
        "defect_pixels": 0 if fake else pixels,
        **({"counterfeit": True, "strength": strength, "filled_pixels": pixels} if fake else {}),
        "seconds": round(made.seconds, 4),
    }
