"""Where the pasted textures come from, and how DRAEM and GLASS alter them before they are pasted.

A texture is (H,W,3) uint8 RGB. Every operation draws from the generator it is given and changes none of its arguments.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from fast.data.images import is_image, natural_key, read_image, resize_image
from fast.procedural import MATERIALS, draw_surface
from fast.procedural.dataset import VERSION, picture_rng
from fast.procedural.noise import fractal
from ldm.errors import UserError

Rng = np.random.Generator
Operation = Callable[[np.ndarray, Rng], np.ndarray]
DRAWN = 64  # textures that the project draws: a material's surface and a coloured pattern in turn
SIDES = (256, 512)  # in px: a larger image gets the larger drawing, further enlarged when it is larger still


class Textures:
    """A set of textures: the images of a folder, searched with its subfolders (DTD or any other), or drawn ones.

    `path`: the folder, None to draw. Texture number k is always the same picture, whatever was drawn before it. Raises
    `UserError` for a folder that is missing or holds no image.
    """

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else Path(path).expanduser()
        self._files: list[Path] = []
        if self.path is not None:
            if not self.path.is_dir():
                raise UserError(f"{self.path}: no such folder of textures; give a folder of images, or none to draw")
            self._files = sorted((p for p in self.path.rglob("*") if is_image(p) and p.is_file()), key=natural_key)
            if not self._files:
                raise UserError(f"{self.path}: no image in the folder of textures; give another one, or none to draw")

    def __len__(self) -> int:
        return len(self._files) or DRAWN

    def picture(self, number: int, side: int = SIDES[0]) -> np.ndarray:
        """Texture `number` of `len(self)`, at the size it is stored at, or drawn `side` pixels wide and high."""
        if self._files:
            return read_image(self._files[number])
        return _drawing(number, side).copy()

    def draw(self, shape: tuple[int, int], rng: Rng, resize: str = "stretch") -> np.ndarray:
        """Any of the textures, (H,W,3) uint8 for `shape` (H,W).

        `resize`: "stretch" gives up the aspect (DRAEM, RealNet); "crop" scales until the shape is covered and keeps
        the centre (GLASS).
        """
        if resize not in ("stretch", "crop"):
            raise UserError(f"resize={resize!r} is unknown; use stretch or crop")
        picture = self.picture(int(rng.integers(len(self))), SIDES[max(shape) > SIDES[0]])
        return resize_image(picture, shape) if resize == "stretch" else _cover(picture, shape)

    def settings(self) -> dict[str, Any]:
        """What the textures are: the folder, the number of its files and a hash of their names and sizes in bytes."""
        if self.path is None:
            return {"path": None, "files": DRAWN, "drawing": VERSION}
        names = [f"{p.relative_to(self.path).as_posix()} {p.stat().st_size}" for p in self._files]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return {"path": str(self.path), "files": len(self._files), "sha256": digest}


def augment_draem(texture: np.ndarray, rng: Rng) -> np.ndarray:
    """Three different ones of DRAEM's ten operations, in the order in which they were drawn."""
    return _augment(texture, DRAEM_OPERATIONS, rng)


def augment_glass(texture: np.ndarray, rng: Rng) -> np.ndarray:
    """Three different ones of GLASS's nine operations, in the order in which they were drawn."""
    return _augment(texture, GLASS_OPERATIONS, rng)


def grey_as(image: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """`texture` without its colours where `image`, (H,W,3) of a grey camera, has none either; else as it is."""
    return saturation(texture, 0) if (image == image[..., :1]).all() else texture


def _augment(texture: np.ndarray, operations: tuple[Operation, ...], rng: Rng) -> np.ndarray:
    for number in rng.choice(len(operations), 3, replace=False):
        texture = operations[number](texture, rng)
    return texture


@cache  # at most `DRAWN` for each of `SIDES`; two threads may both draw one: the same picture
def _drawing(number: int, side: int) -> np.ndarray:
    rng = picture_rng(0, "texture", "texture", number)
    if number % 2:
        return _pattern(rng, side)
    return np.asarray(draw_surface(MATERIALS[number // 2 % len(MATERIALS)], rng, side))


def _pattern(rng: Rng, side: int) -> np.ndarray:
    """Clouds, bent stripes or a bent lattice in a few random colours, with some grain."""
    clouds = fractal(rng, side, side * float(np.exp(rng.uniform(np.log(0.03), np.log(0.5)))))
    kind, waves, bend = rng.integers(3), 2 * np.pi * rng.uniform(4, 24), rng.uniform(0, 1.5)
    turn, (y, x) = rng.uniform(0, np.pi), np.mgrid[:side, :side] / side
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    stripes, rungs = np.sin(waves * along + bend * clouds), np.sin(waves * across + bend * clouds)
    field = (clouds / 2, stripes, stripes * rungs)[kind] + rng.uniform(0, 0.2) * rng.standard_normal((side, side))
    count = int(rng.integers(2, 5))
    colours = np.clip(rng.uniform(20, 235, (count, 1)) + 30 * rng.standard_normal((count, 3)), 0, 255)
    places = np.linspace(-1, 1, len(colours))
    return np.stack([np.interp(field, places, colours[:, c]) for c in range(3)], -1).round().astype(np.uint8)


def _cover(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = (max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale)))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return resize_image(picture, size)[top : top + height, left : left + width].copy()


def _pillow(operation: Callable[..., Image.Image], image: np.ndarray, *values: Any) -> np.ndarray:
    return np.asarray(operation(Image.fromarray(np.ascontiguousarray(image)), *values))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Grey levels times `factor`."""
    return _bytes(image * np.float64(factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Distance from the mean grey of the picture times `factor`."""
    mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    return _bytes(mean + factor * (image - mean))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Distance from each pixel's own grey times `factor`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float64)
    return _bytes(grey + factor * (image - grey))


def hue(image: np.ndarray, turn: float, saturate: float = 0) -> np.ndarray:
    """Hue turned by `turn` of the circle; `saturate`, [-1, 1], added to the saturation."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turn) % 360
    # What is grey has no hue: a saturation added to it would turn it red.
    hsv[..., 1] = np.where(hsv[..., 1] > 0, np.clip(hsv[..., 1] + saturate, 0, 1), 0)
    return _bytes(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _gamma(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _bytes(255 * (image / 255) ** rng.uniform(0.5, 2, 3))


def _lightness(image: np.ndarray, rng: Rng) -> np.ndarray:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = _bytes(lab[..., 0] * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _sharpness(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _pillow(lambda picture, by: ImageEnhance.Sharpness(picture).enhance(by), image, rng.uniform(0.1, 1.9))


def _hue_and_saturation(image: np.ndarray, rng: Rng) -> np.ndarray:
    return hue(image, rng.uniform(-50, 50) / 255, rng.uniform(-50, 50) / 255)


def _solarize(image: np.ndarray, rng: Rng) -> np.ndarray:
    threshold = int(rng.integers(32, 129))
    return _pillow(ImageOps.solarize, image, threshold) if rng.random() < 0.5 else image.copy()


def _posterize(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _pillow(ImageOps.posterize, image, int(rng.integers(1, 9)))


def _invert(image: np.ndarray, rng: Rng) -> np.ndarray:
    return 255 - image


def _autocontrast_cut(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _pillow(ImageOps.autocontrast, image, int(rng.integers(21)))  # per cent cut at either end


def _autocontrast(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _pillow(ImageOps.autocontrast, image)


def _equalize(image: np.ndarray, rng: Rng) -> np.ndarray:
    return _pillow(ImageOps.equalize, image)


def _rotate(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Up to 45 degrees either way; the corners are mirrored (black in both releases, which is no texture)."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(-45, 45), 1)
    return np.asarray(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101))


def _contrast(image: np.ndarray, rng: Rng) -> np.ndarray:
    return contrast(image, rng.uniform(0.8, 1.2))


def _brightness(image: np.ndarray, rng: Rng) -> np.ndarray:
    return brightness(image, rng.uniform(0.8, 1.2))


def _saturation_and_hue(image: np.ndarray, rng: Rng) -> np.ndarray:
    return hue(saturation(image, rng.uniform(0.8, 1.2)), rng.uniform(-0.2, 0.2))


def _mirror(image: np.ndarray, rng: Rng) -> np.ndarray:
    return image[:, ::-1].copy()


def _turn_over(image: np.ndarray, rng: Rng) -> np.ndarray:
    return image[::-1].copy()


def _grey(image: np.ndarray, rng: Rng) -> np.ndarray:
    return saturation(image, 0)


DRAEM_OPERATIONS: tuple[Operation, ...] = (
    _gamma,
    _lightness,
    _sharpness,
    _hue_and_saturation,
    _solarize,
    _posterize,
    _invert,
    _autocontrast_cut,
    _equalize,
    _rotate,
)
GLASS_OPERATIONS: tuple[Operation, ...] = (
    _contrast,
    _brightness,
    _saturation_and_hue,
    _mirror,
    _turn_over,
    _grey,
    _autocontrast,
    _equalize,
    _rotate,
)
