"""Of the options of synthesis those of methods that place defects themselves, as pairs or as drafts."""

from pathlib import Path
from typing import Any

import numpy as np

from fast.generators import method_class
from fast.generators.base import Placing
from fast.masks.source import Masks
from fast.synthesis.maker import MaskOf
from fast.synthesis.options import SynthesisOptions, draft_methods
from fast.synthesis.pair import Pair


def own_flags(options: SynthesisOptions, name: str) -> dict[str, Any]:
    """Options of a method, or of the one that makes drafts, that have flags of their own. Of a folder of regions each
    comes with its picture."""
    flags: dict[str, Any] = {}
    if options.material is not None and name != "transplant":
        flags["material"] = options.material
    if name == "transplant":
        flags |= {"defects": options.defects or options.data_root, "split": options.split or "third"}
    if issubclass(method_class(name), Placing):
        flags["on_object"] = "off" if given_regions(options) else options.on_object or "auto"
    return flags


def flags_of_drafts(options: SynthesisOptions, draft: str) -> dict[str, Any]:
    return {k: v for name in draft_methods(draft) for k, v in own_flags(options, name).items()}


def given_regions(options: SynthesisOptions) -> Masks | None:
    """A folder of regions, one for each picture, if one is given."""
    folder = options.on_object
    return Masks("mixed", on_object=folder) if folder is not None and Path(folder).is_dir() else None


def region_of_picture(regions: Masks) -> MaskOf:
    """Where the defects of a method that places them may lie in a picture."""

    def region_of(image: np.ndarray, pair: Pair) -> np.ndarray:
        region = regions.region(image, pair.normal)
        assert region is not None
        return region

    return region_of
