"""What a method that makes image-mask pairs looks like from outside, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np

from fast.data.index import DatasetIndex
from fast.generators.blend import given_mask
from fast.masks.foreground import Ground
from fast.runtime.project import named
from ldm.errors import UserError

Split = DatasetIndex | str | Path


@dataclass(frozen=True)
class MadePair:
    """An image-mask pair, and what it was made from.

    Args:
        image: the picture with its defect, (H,W,3) uint8, or (H,W) where a grey picture was given.
        mask: (H,W) uint8 in {0,1}.
        origin: what the manifest tells of the pair, such as the image of the real defect that took part, under
            `defect_source`. Empty where there is none.
        filled: where the picture was changed, (H,W) in {0,1}, for a mask that marks less, as people mark less than the
            soft edge of a defect. None: within the mask.
    """

    image: np.ndarray
    mask: np.ndarray
    origin: dict[str, str] = field(default_factory=dict)
    filled: np.ndarray | None = None


class Generator(ABC):
    """One method that makes image-mask pairs, behind the interface that all methods share.

    The options of a method are its constructor's keywords. These attributes describe it:

    Args:
        name: the name that `create` knows it by.
        own_masks: True for a method that makes a mask where none is given.
        takes_mask: False for a method that draws its own masks and ignores a given one.
        takes_image: False for a method that draws its own pictures and ignores what a given one shows.
        types: the defect types "category/anomaly" that it tells apart. Empty for a method that knows none.
        categories: the parts that it tells apart. Empty for a method that knows none.
        words: the names of defects that it makes on any part.
        native: True where defects have the scale of the picture as it was taken, so that pairs are resized once they
            are made.
        rejected: how many of its own masks were empty so far and drawn again.
    """

    name: ClassVar[str]
    own_masks: bool = True
    takes_mask: ClassVar[bool] = True
    takes_image: ClassVar[bool] = True
    types: Sequence[str] = ()
    categories: Sequence[str] = ()
    words: Sequence[str] = ()
    native: ClassVar[bool] = False
    rejected: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Every method's `synthesize` and `pair` check their arrays first, and take grey ones."""
        super().__init_subclass__(**kwargs)
        if "synthesize" in vars(cls):
            cls.synthesize = _checked(cls.synthesize, _grey_arrays)  # type: ignore[method-assign]
        if "pair" in vars(cls):
            cls.pair = _checked(cls.pair, _grey_pair)  # type: ignore[method-assign]

    def fit(self, split: Split) -> None:  # noqa: B027 (methods that learn nothing have nothing to add)
        """Learn from normals and defects; a method that learns nothing does nothing.

        Args:
            split: a dataset narrowed to what training may see, or the path of one, of which the training third is
                taken.
        """

    @abstractmethod
    def synthesize(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make one pair: an image with a defect in it, and its mask, which is never empty.

        The result is a function of the arguments and of `settings`. Where a network takes part it also depends, by
        rounding, on torch's number of threads, which the commands set to one. Safe to call from several threads. The
        arrays are not changed.

        Args:
            image: a normal picture, (H,W,3) uint8, or (H,W) in grey, of which the made one is grey too.
            mask: (H,W), nonzero = defect. None: the method makes its own.
            rng: everything random about the pair is drawn from it.
            anomaly: one of `types`, or a name that `check_word` accepts. None: any of `types` or `words`.

        Returns:
            The image uint8, and its mask (H,W) uint8 in {0,1}.

        Raises:
            UserError: when an argument is not as described, or the method cannot make such a pair.
        """

    def normal(self, rng: np.random.Generator, anomaly: str | None = None) -> np.ndarray:
        """The defect-free picture (H,W,3) uint8 that `synthesize` would start from, for an `rng` in the same state.

        Only methods that draw their own pictures (`takes_image` is False) have it.
        """
        raise NotImplementedError

    def check_word(self, anomaly: str) -> None:  # noqa: B027 (methods without words have nothing to check)
        """Raise `UserError` for a type "category/word" if the method has `words` and cannot make this one."""

    def pair(
        self, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> MadePair:
        """What `synthesize` makes of the same arguments, together with what it was made from."""
        again = deepcopy(rng)
        made, found = self.synthesize(image, mask, rng, anomaly)
        return MadePair(made, found, self.origin(again, anomaly))

    def origin(self, rng: np.random.Generator, anomaly: str | None = None) -> dict[str, str]:
        """The real defect that `synthesize` uses for an `rng` in the same state, if it does not depend on the picture.

        Returns:
            Its image under `defect_source`. Else empty, and `pair` tells which it was.
        """
        return {}

    def settings(self) -> dict[str, Any]:
        """Everything that decides the bytes of a pair beside the arguments of `synthesize`, as plain data.

        That is options and hashes of weights. Two runs with the same settings are the same run.
        """
        return {}


T = TypeVar("T")


def _checked(own: Callable[..., T], to_grey: Callable[[T], T]) -> Callable[..., T]:
    """A method's `synthesize` or `pair` for arrays that may be anything. Raises `UserError`."""

    @wraps(own)
    def checked(
        self: Generator, image: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator, *rest: Any, **named: Any
    ) -> T:
        if not self.takes_image:
            return own(self, image, mask, rng, *rest, **named)
        check_arrays(image, mask, rng)
        if image.ndim == 3:
            return own(self, image, mask, rng, *rest, **named)
        return to_grey(own(self, np.repeat(image[..., None], 3, axis=2), mask, rng, *rest, **named))

    return checked


def _grey_arrays(made: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return cv2.cvtColor(made[0], cv2.COLOR_RGB2GRAY), made[1]  # a grey pixel comes back as the very same grey


def _grey_pair(made: MadePair) -> MadePair:
    return replace(made, image=cv2.cvtColor(made.image, cv2.COLOR_RGB2GRAY))


def check_arrays(image: Any, mask: Any, rng: Any) -> None:
    """Check what `synthesize` is given.

    Raises:
        UserError: when `image` is not uint8 of shape (H,W,3) or (H,W), `mask` is neither None nor (H,W) of finite
            numbers, or `rng` is no `numpy.random.Generator`.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = f"{image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(
            f"image of type {given}: pixels must be uint8, 0 to 255; give numpy.rint(255 * image).astype(numpy.uint8) "
            "for values from 0 to 1"
        )
    if (image.ndim != 2 and not (image.ndim == 3 and image.shape[2] == 3)) or 0 in image.shape:
        raise UserError(f"image of shape {image.shape}: give (height, width, 3), RGB, or (height, width), grey")
    if mask is not None and (not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "buif"):
        raise UserError(f"mask of shape {np.shape(mask)}: give (height, width), nonzero = defect, or None")
    if mask is not None and mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise UserError("mask holds NaN or infinity; give numbers, nonzero = defect")
    if not isinstance(rng, np.random.Generator):
        raise UserError(f"rng of type {type(rng).__name__}: give numpy.random.default_rng(seed)")


class Placing(Generator):
    """A method that finds places on the object by itself where no mask is given.

    Args:
        ground: says what of a picture is the object, as the option `on_object` asks. None: all of it.
    """

    ground: Ground | None = None

    def synthesize(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: np.random.Generator,
        anomaly: str | None = None,
        region: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Generator.synthesize`, with one more argument.

        Args:
            region: where defects may lie when no mask is given, (H,W), nonzero = object. None: as the option
                `on_object` says.
        """
        made = self.pair(image, mask, rng, anomaly, region)
        return made.image, made.mask

    @abstractmethod
    def pair(
        self,
        image: np.ndarray,
        mask: np.ndarray | None,
        rng: np.random.Generator,
        anomaly: str | None = None,
        region: np.ndarray | None = None,
    ) -> MadePair:
        """As `Generator.pair`; `region` as in `synthesize`."""

    def object_in(self, image: np.ndarray, region: np.ndarray | None) -> np.ndarray:
        """Where defects may lie in a picture (H,W,3): the `region` if one is given, else the object.

        Returns:
            (H,W) uint8 in {0,1}.

        Raises:
            UserError: when `region` is empty or not of the picture's size.
        """
        if region is not None:
            return given_mask(region, image)
        return np.ones(image.shape[:2], np.uint8) if self.ground is None else self.ground.of(image)

    def look(self, rng: np.random.Generator, anomaly: str | None, in_mask: bool) -> str:
        """The word for what `synthesize` draws of this type, in a given mask or not, for an `rng` in the same state.

        It is empty for a method that draws nothing.
        """
        return ""


class Learned(Generator):
    """A method with weights, which it loads from a training or learns with `fit`.

    Args:
        weights: the folder of a run, one artifact `<artifact>-<step>.safetensors`, or the string "mini" for the shipped
            base (`./mini` and a `Path` mean a folder). None: call `fit` or `load` before use.
        step: the step of the artifact. None: the last.
        recipe: the recipe that trains it. None: `configs/methods/<name>.yaml`.
        folder: the folder of the run that `fit` makes. None: `logs/<name>`.
        overrides: what of the recipe `fit` changes, as `section.key=value`.
        training: options of `main.py` for `fit` by name, such as {"max_steps": 500, "devices": 1}, see
            `fast.runtime.options.TrainingOptions`.
    """

    artifact: ClassVar[str]
    learns_defects: ClassVar[bool] = True  # False: its weights see normal images alone

    def __init__(
        self,
        weights: str | Path | None = None,
        step: int | None = None,
        recipe: str | Path | None = None,
        folder: str | Path | None = None,
        overrides: Sequence[str] = (),
        training: Mapping[str, Any] | None = None,
    ):
        self.recipe, self.folder, self.overrides, self.training = recipe, folder, list(overrides), dict(training or {})
        if weights is not None:
            self.load(Path(named(weights)), step)

    @abstractmethod
    def load(self, weights: Path, step: int | None = None) -> None:
        """Take the weights of a run's folder or of one artifact.

        Raises:
            UserError: when there are none, or they are not this method's.
        """

    def fit(self, split: Split) -> None:
        from fast.generators.training import train  # heavy

        self.load(train(self.name, split, self.recipe, self.folder, self.overrides, self.training))
