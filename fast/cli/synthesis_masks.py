"""Which masks the options of synthesis ask for: where they come from, and the mask of each pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fast.anomalydiffusion.mask_model import LearnedMasks
from fast.cli.synthesis_method import device_named
from fast.data.decode import image_size
from fast.data.images import resize_image, resize_mask
from fast.data.kept_masks import KeptMasks
from fast.generators.base import Generator as Method
from fast.generators.base import Placing
from fast.generators.large import LARGE, is_large
from fast.masks.proportions import check_proportions
from fast.masks.source import MADE, Masks
from fast.runtime.folders import parse_json
from fast.synthesis.maker import MaskOf
from fast.synthesis.normals import HeldOut
from fast.synthesis.options import SynthesisOptions, transplants
from fast.synthesis.pair import Pair
from fast.synthesis.sources import MaskSource, find_masks
from ldm.errors import UserError
from ldm.rng import seed_of


@dataclass(frozen=True)
class ChosenMasks:
    """`kind`: as `--masks` names it; `source`: None where the method makes its own masks; `learned`: their generator,
    for the kind of that name."""

    kind: str
    source: Masks | None = None
    learned: LearnedMasks | None = None

    def files(self, options: SynthesisOptions, held: HeldOut | None, say: bool) -> list[MaskSource]:
        """The mask files to fill, none of a defect that is `held` out. Raises `UserError`."""
        if not options.mask_path or self.source is None:
            return []
        masks, empty = find_masks(options.mask_path, self.source.read)
        for name in empty if say else []:
            print(f"refused: {name} is an empty mask")
        if held is None:
            return masks
        kept, notes = held.masks(masks, options.mask_path)
        for note in notes if say else ():
            print(f"note: {note}", flush=True)
        return kept

    def check_proportions(self, options: SynthesisOptions, pairs: Iterable[Pair]) -> None:
        """Raises `UserError` for a given mask that would be stretched over one of the pairs' images. Free shapes may:
        those that `--on_object` moves, or that make_masks.py drew or varied."""
        source = self.source
        if source is None or source.kind != "given" or source.places or _are_free(options.mask_path):
            return
        read = source.read
        met = (pair.files for pair in pairs)
        check_proportions(met, image_size, lambda path: (read(path).shape[0], read(path).shape[1]))

    def of(self, types: list[str]) -> MaskOf | None:
        """The mask (H,W) for a picture (H,W,3) and its pair, whose type is one of these by number."""
        return None if self.source is None else _mask_of(self.source, types)

    def settings(self) -> dict[str, Any]:
        """What decides a mask's bytes, beside its file."""
        learned = self.learned
        own = {} if learned is None else {"mask_weights_sha256": learned.hash, "mask_device": learned.device}
        return {"mask_kind": self.kind, **({} if self.source is None else self.source.settings()), **own}

    def rejected(self) -> int:
        """How many learned masks were not fit to be kept so far."""
        return 0 if self.learned is None else self.learned.rejected


def _are_free(folder: str | None) -> bool:
    """Whether a folder of masks says that make_masks.py drew or varied them. Raises `UserError` for a damaged note."""
    note = Path(folder or "", MADE)
    try:
        return note.is_file() and parse_json(note.read_text(encoding="utf-8"))["source"] != "given"
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{note} is damaged; make the masks again with scripts/make_masks.py") from None


def choose_masks(options: SynthesisOptions, method: type[Method]) -> ChosenMasks:
    """Raises `UserError` for masks that the method does not take."""
    kind = _mask_kind(options, method)
    if kind == "own":
        return ChosenMasks(kind)
    learned = None
    if kind == "learned":
        assert options.mask_weights is not None
        learned = LearnedMasks(options.mask_weights, device=device_named(options.device), flag="--mask_weights")
    return ChosenMasks(kind, _mask_source(options, kind, learned), learned)


def _mask_kind(options: SynthesisOptions, method: type[Method]) -> str:
    kind = options.masks or ("given" if options.mask_path else "own")
    drafted = options.draft != "none"
    if kind != "own" and (not method.takes_mask or transplants(options)):
        name = f"--draft {options.draft}" if drafted else options.method
        raise UserError(f"{name} draws its own masks; leave --mask_path and --masks out")
    if kind == "own" and options.on_object and not (issubclass(method, Placing) or drafted):
        raise UserError("--on_object is for masks that are there before the picture; add --masks perlin, say")
    return kind


def _mask_source(options: SynthesisOptions, kind: str, learned: LearnedMasks | None) -> Masks:
    def draw(rng: np.random.Generator, anomaly: str | None, shape: tuple[int, int]) -> np.ndarray:
        # A method that knows no types names its pairs by itself: any mask will do.
        assert learned is not None
        return learned.draw(rng, anomaly if anomaly in learned.types else None, shape)

    on_object = options.on_object or ("off" if kind == "given" else "auto")
    return Masks(kind, on_object=on_object, learned=draw if learned else None, read=KeptMasks())


def _mask_of(masks: Masks, types: list[str]) -> MaskOf:
    def mask_of(image: np.ndarray, pair: Pair) -> np.ndarray:
        rng = np.random.default_rng(seed_of(pair.seed, 4))  # not the seed of the defect's own noise
        if masks.kind == "given" or not is_large(image):
            return masks.draw(image, rng, pair.mask, pair.normal, types[pair.type_index])
        # A drawn mask has no finer detail than this, and drawing it at full size takes gigabytes.
        height, width = image.shape[:2]
        shrink = (height * width / LARGE) ** 0.5
        small = resize_image(image, (max(1, int(height / shrink)), max(1, int(width / shrink))))
        mask = masks.draw(small, rng, pair.mask, pair.normal, types[pair.type_index])
        return resize_mask(mask, (height, width))

    return mask_of
