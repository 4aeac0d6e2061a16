"""One pair at a time: normal images, masks, methods with their weights loaded once, and real defects beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from fast.artifact import Artifact, find_artifact, text_encoder
from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.data.layouts import holds_dataset, open_dataset
from fast.data.source_mode import keep_grey
from fast.generators import LATENT, create
from fast.generators.base import Generator
from fast.generators.latent import LatentGenerator
from fast.generators.transplant import training_side
from fast.latent.prompts import is_vocabulary
from fast.masks.shapes import SHAPES
from fast.masks.source import Masks
from fast.synthesis.defect_types import category_of
from fast.synthesis.normals import HeldOut, ask_split
from fast.synthesis.options import DRAFT_STRENGTH
from fast.synthesis.recipe import recipe_for
from fast.synthesis.sources import NormalSource, find_normals
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.hashing import is_hash

PLAIN = ("procedural", "cutpaste")  # methods that need nothing but a normal image
SHAPE_NAMES = ("mixed", *SHAPES)
SHOWN = 8  # real defects beside a pair


@dataclass(frozen=True)
class Wish:
    """A pair to make. `kind`: "category/word" of `Workbench.types`; `mask` (H,W), nonzero = defect, of the normal
    image's size, or None for the method's own; the rest as of `SamplingOptions`, None as the weights recommend."""

    method: str
    kind: str
    normal: int
    mask: np.ndarray | None = None
    scale: float | None = None
    steps: int | None = None
    draft: str = "none"
    strength: float = DRAFT_STRENGTH
    seed: int = 0


@dataclass(frozen=True)
class WishedPair:
    """A finished pair: uint8 normal and image (H,W,3), mask (H,W) in {0,1}. `settings`: what made it; `origin`: which
    real defects took part, for the manifest; `filled` (H,W): where the image was changed, if that is more than the
    mask."""

    wish: Wish
    normal: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    filled: np.ndarray | None = None


class Workbench:
    """What the page's first half does, without the page.

    `data_root`: normal images; `weights`: a run's folder, an artifact, `mini`, or None for the methods that learn
    nothing; `defects`: a dataset with real defects, of which the training side of `split` is shown and cut out, and no
    normal image of a part on the other side is used (None: `data_root`, if it is a dataset). Raises `UserError`.
    """

    def __init__(
        self,
        data_root: str,
        weights: str | None = None,
        defects: str | None = None,
        split: str | None = None,
        device: str = "auto",
    ):
        self.normals: list[NormalSource] = find_normals(data_root)
        self.root, self.device, self.split, self._lock = data_root, device, split or "third", Lock()
        self.artifacts = _artifacts(weights)
        self.defects = defects or (data_root if _has_defects(data_root) else None)
        self._real = [] if self.defects is None else _real(self.defects, self.split)
        self.notes: list[str] = []  # of normals that are left out
        of_a_split = [a.path for a in self.artifacts.values() if is_hash(read_metadata(a.path).get("split"))]
        if self.defects is None and split is None and of_a_split:
            ask_split(of_a_split[0], data_root, self.normals)
        if self.defects is not None:
            self.normals, self.notes = HeldOut(self.defects, self.split).normals(self.normals)
        self._loaded: dict[str, Generator] = {}

    @property
    def names(self) -> list[str]:
        """What the normal images are called; each once."""
        names = [n.path.name for n in self.normals]
        return [name if names.count(name) == 1 else str(n.path) for name, n in zip(names, self.normals, strict=True)]

    @property
    def methods(self) -> list[str]:
        return [*self.artifacts, *PLAIN, *(["transplant"] if self._real else [])]

    @property
    def drafts(self) -> list[str]:
        """What `fast` can start from here."""
        return ["none", "procedural", *(["transplant"] if self._real else [])]

    def types(self, method: str) -> list[str]:
        """Types that a method can make here, "category/word"; of `cutpaste`, which knows none, its name."""
        if method in self.artifacts:
            return self._types_of(self.artifacts[method])
        if method == "transplant":
            return list(dict.fromkeys(s.kind for s in self._real))
        return [f"/{word}" for word in self._generator(method).words] or [f"/{method}"]

    def _types_of(self, artifact: Artifact) -> list[str]:
        if not artifact.open_types:
            return list(artifact.types)
        encoder = text_encoder(artifact)
        category = category_of(self.normals, self.root, lambda name: is_vocabulary(encoder, name))
        words = [t.split("/", 1)[1] for t in artifact.types]
        words += [w for s in self._real if (w := s.kind.rpartition("/")[2]) not in words and is_vocabulary(encoder, w)]
        return list(dict.fromkeys(f"{category}/{word}" for word in words))

    def recommended(self, method: str) -> tuple[float, int] | None:
        """Guidance and steps that weights recommend; None for a method without."""
        if method not in self.artifacts:
            return None
        recipe = recipe_for(self.artifacts[method])
        return recipe.scale, recipe.steps

    def read_normal(self, number: int) -> np.ndarray:
        """(H,W,3) uint8. Raises `UserError`."""
        if not 0 <= number < len(self.normals):
            raise UserError(f"there is no normal image number {number}; choose one of {len(self.normals)}")
        return read_image(self.normals[number].path)

    def draw_mask(self, number: int, shape: str, seed: int, on_object: bool = True) -> np.ndarray:
        """A drawn mask (H,W) in {0,1} for a normal image, placed on the object. Raises `UserError`."""
        masks = Masks(shape, on_object="auto" if on_object else "off")
        masks.survey([n.path for n in self.normals])
        image = self.read_normal(number)
        return masks.draw(image, np.random.default_rng(seed), None, self.normals[number].path)

    def load_mask(self, number: int, file: Path) -> np.ndarray:
        """A mask file scaled to a normal image of the same proportions, (H,W) in {0,1}. Raises `UserError`."""
        mask, (height, width) = read_mask(file), self.read_normal(number).shape[:2]
        if not mask.any():
            raise UserError(f"{file.name}: the mask is empty; defect pixels must be white")
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(height, width) * max(1.0, mask.shape[0] / height):
            raise UserError(f"{file.name} is {mask.shape[1]} x {mask.shape[0]} pixels, the normal image {width} x "
                            f"{height}: other proportions; give a mask of this image")  # fmt: skip
        return resize_mask(mask, (height, width))

    def make(self, wish: Wish) -> WishedPair:
        """The pair that somebody wishes for. One at a time; the weights stay loaded. Raises `UserError`."""
        if wish.method not in self.methods:
            raise UserError(f"method {wish.method!r} is not to be had here; use one of {', '.join(self.methods)}")
        if wish.kind not in self.types(wish.method):
            raise UserError(f"{wish.method} has no type {wish.kind!r}; choose one of the list")
        if wish.seed < 0:
            raise UserError(f"the seed is {wish.seed}; give a number from 0")
        normal = self.read_normal(wish.normal)
        mask = None if wish.mask is None or not wish.mask.any() else wish.mask
        with self._lock:
            generator, start = self._ready(wish, mask), time.perf_counter()
            known = wish.kind if wish.kind in generator.types or generator.words else None
            made = generator.pair(normal, mask, np.random.default_rng(wish.seed), known)
            seconds, settings = time.perf_counter() - start, generator.settings()
        shown = resize_image(normal, made.image.shape[:2])
        image = keep_grey(made.image, normal)  # as it is stored
        return WishedPair(wish, shown, image, made.mask, seconds, settings, made.origin, made.filled)

    def _ready(self, wish: Wish, mask: np.ndarray | None) -> Generator:
        generator = self._generator(wish.method)
        if isinstance(generator, LatentGenerator):
            if wish.draft == "none" and mask is None:
                raise UserError(f"{wish.method} fills a mask: paint, load or draw one, or choose a draft")
            if wish.draft == "transplant" and mask is not None:
                raise UserError("a transplanted draft brings its own mask: clear the mask, or choose another draft")
            generator.change(
                scale=wish.scale, steps=wish.steps, draft=wish.draft, draft_options=self._draft_options(wish.draft),
                strength=wish.strength if wish.draft != "none" else DRAFT_STRENGTH,
            )  # fmt: skip
        elif mask is not None and not generator.takes_mask:
            raise UserError(f"{wish.method} brings its own masks: clear the mask, or choose another method")
        return generator

    def _draft_options(self, draft: str) -> dict[str, Any]:
        return {"defects": self.defects, "split": self.split} if draft == "transplant" else {}

    def _generator(self, method: str) -> Generator:
        if method not in self._loaded:
            options: dict[str, Any] = {}
            if method in self.artifacts:
                artifact = self.artifacts[method]
                types = self._types_of(artifact) if artifact.open_types else None
                options = {"weights": artifact.path, "types": types, "device": self.device}
            elif method == "transplant":
                options = self._draft_options(method)
            self._loaded[method] = create(method, **options)
        return self._loaded[method]

    def real(self, kind: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Real defects of a type (or of the same word on another part), evenly chosen: file name, image, mask."""
        word = kind.rpartition("/")[2]
        found = [s for s in self._real if s.kind == kind] or [s for s in self._real if s.kind.endswith(f"/{word}")]
        step = max(1, len(found) // SHOWN)
        read = [(Path(s.name).name, *s.read()) for s in found[::step][:SHOWN]]
        return [(name, image, (labels == 1).astype(np.uint8)) for name, image, labels in read]


def _artifacts(weights: str | None) -> dict[str, Artifact]:
    """The trained methods among some weights. Raises `UserError` where there is none."""
    if weights is None:
        return {}
    found, errors = {}, []
    for method in LATENT:
        try:
            found[method] = find_artifact(weights, None, method)
        except UserError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _has_defects(root: str) -> bool:
    folder = Path(root).expanduser()
    return holds_dataset(folder) and bool(open_dataset(folder).defects)


def _real(defects: str, split: str) -> Sequence[Any]:
    from fast.segmentation.data import from_samples

    return [s for s in from_samples(training_side(defects, split, None).samples) if s.mask is not None]
