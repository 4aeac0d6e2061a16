"""Where the masks of a synthesis come from: files as they are or varied, drawn shapes, a learned generator."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fast.data.content import hash_of
from fast.data.images import read_mask, resize_mask
from fast.masks.augment import AugmentOptions, augmented
from fast.masks.foreground import foreground, read_region, rule_of
from fast.masks.place import INSIDE, placed, share_inside
from fast.masks.shapes import SHAPES, drawn
from fast.masks.vote import Votes
from ldm.errors import UserError

OF_FILES = ("given", "augmented")
KINDS = (*OF_FILES, *SHAPES, "mixed", "learned")
MADE = "masks.json"  # in a folder that make_masks.py has filled: what it was asked for
REDRAWS = 20  # of Perlin noise that misses the object

# A mask (H,W), nonzero = defect, of a defect type (None: any) for a picture of shape (H,W).
LearnedMask = Callable[[np.random.Generator, str | None, tuple[int, int]], np.ndarray]


class Masks:
    """Makes the masks of pictures: from files, by drawing, or by a learned generator.

    Args:
        kind: "given" (files as they are), "augmented" (files varied), "perlin", "scratch", "blob", "crack", "spots",
            "mixed" (any of these five), or "learned" (what `learned` returns).
        files: masks that "given" and "augmented" choose from, where `draw` is given none.
        on_object: "off", a rule of `foreground` such as "auto", or the path of a region file or of a folder with a
            region for each picture. Defects are then kept on the object.
        inside: share of a defect (above 0, up to 1) that then has to lie on the object.
        augment: how "augmented" varies masks. None: the defaults.
        learned: the callable that "learned" needs.
        read: decodes a mask file.

    Raises:
        UserError: when the kind is unknown, `learned` is missing, `inside` is out of range, or `on_object` is no rule
            and no path.
    """

    def __init__(
        self,
        kind: str = "given",
        files: Sequence[Path] = (),
        on_object: str | Path = "off",
        inside: float = INSIDE,
        augment: AugmentOptions | None = None,
        learned: LearnedMask | None = None,
        read: Callable[[Path], np.ndarray] = read_mask,
    ):
        if kind not in KINDS:
            raise UserError(f"mask source {kind!r} is unknown; use one of {', '.join(KINDS)}")
        if kind == "learned" and learned is None:
            raise UserError("mask source 'learned' needs a generator of masks; give one, or another source")
        if not 0 < inside <= 1:
            raise UserError(f"the share of a defect on the object is {inside}; it must lie in (0, 1]")
        self.kind, self.files, self.inside, self.learned, self.read = kind, list(files), inside, learned, read
        self.augment = augment or AugmentOptions()
        self.rule, self.path = _meant(on_object)
        self.votes = Votes([])
        self.whole: dict[Path, bool] = {}  # by image file: whether it was taken whole for the object

    def settings(self) -> dict[str, str]:
        """What decides a mask's bytes, beside its file and the picture: a region file or folder by its content."""
        return {"on_object": hash_of(self.path) if self.path is not None else self.rule or "off"}

    @property
    def places(self) -> bool:
        """Whether masks are moved onto the object."""
        return self.rule is not None or self.path is not None

    def survey(self, files: Sequence[Path]) -> None:
        """Names the images that masks will be drawn for: with `auto` those of a folder vote on where the object is."""
        self.votes = Votes(files)

    def region(self, image: np.ndarray, image_path: Path | None = None) -> np.ndarray | None:
        """Where defects may lie in a picture (H,W,3), (H,W) in {0,1}, all ones where it has no ground; None with
        `on_object` off. Raises `UserError`."""
        if self.path is not None:
            return read_region(self.path, image_path, (image.shape[0], image.shape[1]))
        if self.rule is None:
            return None
        vote = self.votes.of(image_path) if self.rule == "auto" else None
        found = foreground(image, self.rule) if vote is None else vote.estimate(image).mask
        if image_path is not None:
            self.whole[image_path] = bool(found.all())
        return found

    def draw(
        self,
        image: np.ndarray,
        rng: np.random.Generator,
        file: Path | None = None,
        image_path: Path | None = None,
        anomaly: str | None = None,
    ) -> np.ndarray:
        """A mask (H,W) uint8 in {0,1} for a picture, never empty, that depends on the arguments alone.

        A file is resized to the picture as it is when `kind` is "given" and `on_object` is off. With `on_object` it
        moves only if it does not lie on the object.

        Args:
            image: the picture, uint8 (H,W,3).
            rng: draws everything random.
            file: the mask file for "given" and "augmented". None: one of `files`.
            image_path: names the picture among the regions of a folder.
            anomaly: the defect type, for "learned". None: any.

        Raises:
            UserError: when a file or region cannot be used, or the learned generator makes an empty mask.
        """
        region = self.region(image, image_path)
        mask = self._made((image.shape[0], image.shape[1]), rng, file, anomaly)
        if region is None or region.all():
            return mask
        if self.kind == "perlin":
            return self._cut(mask, region, rng)
        if self.kind == "given" and share_inside(mask, region) >= self.inside:
            return mask
        return placed(mask, region, rng, self.inside)

    def _made(
        self, shape: tuple[int, int], rng: np.random.Generator, file: Path | None, anomaly: str | None
    ) -> np.ndarray:
        if self.kind in OF_FILES:
            if file is None and not self.files:
                raise UserError(f"mask source {self.kind!r} needs mask files; give a folder of masks")
            file = self.files[int(rng.integers(len(self.files)))] if file is None else file
            mask = self.read(file)
            if not mask.any():
                raise UserError(f"{file}: the mask is empty; defect pixels must be white")
            return augmented(mask, shape, rng, self.augment) if self.kind == "augmented" else resize_mask(mask, shape)
        if self.learned is None or self.kind != "learned":
            return drawn(self.kind, shape, rng)
        mask = resize_mask(self.learned(rng, anomaly, shape), shape)
        if not mask.any():
            raise UserError("the learned generator made an empty mask; train it for longer, or use another mask source")
        return mask

    def _cut(self, mask: np.ndarray, region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What of Perlin noise lies on the object: it covers the picture, so it is cut where others are moved."""
        for _ in range(REDRAWS):
            if (mask & region).any():
                return mask & region
            mask = drawn("perlin", (mask.shape[0], mask.shape[1]), rng)
        return placed(mask, region, rng, self.inside)


def _meant(on_object: str | Path) -> tuple[str | None, Path | None]:
    """The rule or the path that `on_object` names."""
    if on_object == "off":
        return None, None
    if Path(on_object).exists():
        return None, Path(on_object)
    if isinstance(on_object, Path) or "/" in on_object or Path(on_object).suffix:
        raise UserError(f"{on_object}: no such region file or folder; check the path, or name a rule such as auto")
    rule_of(on_object)
    return on_object, None
