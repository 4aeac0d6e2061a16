"""CutPaste: a piece of the picture itself, its colours changed a little, laid elsewhere in the same picture."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fast.generators.base import Generator
from fast.generators.blend import ImageMask, changed_pair, check_change, check_range, given_mask
from fast.generators.textures import brightness, contrast, hue, saturation
from ldm.errors import UserError

Rng = np.random.Generator
VARIANTS = ("patch", "scar", "union")
REFERENCE = 256  # side in px of the picture that the scars' sizes are given for


class CutPaste(Generator):
    """CutPaste (Li et al. 2021): a piece of the picture, its colours changed a little, is pasted elsewhere in it.

    The pasted piece is the mask, to the pixel, and outside it every byte is the image's. Source and target places are
    independent and uniform. A given mask takes the shape's place: each of its connected parts is filled with the same
    shape cut at a random place of the image. The method knows no types and learns nothing.

    Args:
        variant: "patch" pastes an upright rectangle, "scar" a small one that is turned. "union" draws one of the two.
        area: range of a patch's area as a share of the image, drawn uniformly.
        aspect: range of a patch's width / height, drawn log-uniformly.
        scar_width, scar_length: ranges of a scar's sides, drawn uniformly, in px of a picture whose shorter side has
            256.
        scar_turn: the greatest turn of a scar to either side, 0 to 90 degrees.
        jitter: how far colours may change, 0 to 0.5. Brightness, contrast and saturation get factors of 1 +- jitter,
            and the hue turns by up to +- jitter of the circle.
        min_change: the least mean absolute difference inside the mask, in grey levels. A pair below it is drawn anew,
            and if 20 draws stay below, the one that changes most is kept. 0: none is drawn anew, as published.

    Raises:
        UserError: when an option is unknown or out of range.
    """

    name = "cutpaste"

    def __init__(
        self,
        variant: str = "union",
        area: Sequence[float] = (0.02, 0.15),
        aspect: Sequence[float] = (0.3, 1 / 0.3),
        scar_width: Sequence[float] = (2, 16),
        scar_length: Sequence[float] = (10, 25),
        scar_turn: float = 45.0,
        jitter: float = 0.1,
        min_change: float = 3.0,
    ):
        if variant not in VARIANTS:
            raise UserError(f"variant={variant!r} is unknown; use one of {', '.join(VARIANTS)}")
        if not 0 <= jitter <= 0.5:
            raise UserError(f"jitter={jitter} is out of range; give 0 to 0.5")
        if not 0 <= scar_turn <= 90:
            raise UserError(f"scar_turn={scar_turn} is out of range; give 0 to 90 degrees")
        self.variant, self.jitter, self.scar_turn = variant, float(jitter), float(scar_turn)
        self.area = check_range("area", area, 1e-4, 1)
        self.aspect = check_range("aspect", aspect, 0.01, 100)
        self.scar_width = check_range("scar_width", scar_width, 1, REFERENCE / 2)
        self.scar_length = check_range("scar_length", scar_length, 1, REFERENCE / 2)
        self.min_change = check_change(min_change)

    def synthesize(self, image: np.ndarray, mask: np.ndarray | None, rng: Rng, anomaly: str | None = None) -> ImageMask:
        """See `Generator.synthesize`."""
        given = None if mask is None else given_mask(mask, image)

        def draw() -> ImageMask:
            if given is not None:
                return self._fill(image, given, rng)
            scar = self.variant == "scar" or (self.variant == "union" and rng.random() < 0.5)
            return self._scar(image, rng) if scar else self._patch(image, rng)

        return changed_pair(draw, image, self.min_change)

    def settings(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "area": list(self.area),
            "aspect": list(self.aspect),
            "scar_width": list(self.scar_width),
            "scar_length": list(self.scar_length),
            "scar_turn": self.scar_turn,
            "jitter": self.jitter,
            "min_change": self.min_change,
        }

    def _patch(self, image: np.ndarray, rng: Rng) -> ImageMask:
        height, width = rectangle(image.shape[:2], rng.uniform(*self.area), _log_uniform(self.aspect, rng))
        piece = _jitter(_cut(image, height, width, rng), self.jitter, rng)
        return _paste(image, piece, np.ones((height, width), np.uint8), rng)

    def _scar(self, image: np.ndarray, rng: Rng) -> ImageMask:
        scale = min(image.shape[:2]) / REFERENCE
        width, height = (max(1, round(rng.uniform(*r) * scale)) for r in (self.scar_width, self.scar_length))
        piece = _jitter(_cut(image, height, width, rng), self.jitter, rng)
        piece, shape = turned(piece, rng.uniform(-self.scar_turn, self.scar_turn))
        return _paste(image, piece, shape, rng)

    def _fill(self, image: np.ndarray, mask: np.ndarray, rng: Rng) -> ImageMask:
        """Parts one by one: a mask that spans the image as a whole could not be moved inside it."""
        filled = image.copy()
        count, parts, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for part in range(1, count):
            left, top, width, height = (int(v) for v in boxes[part][:4])
            window = slice(top, top + height), slice(left, left + width)
            inside = parts[window] == part
            filled[window][inside] = _cut(image, height, width, rng)[inside]
        inside = mask != 0
        filled[inside] = _jitter(filled[inside][None], self.jitter, rng)[0]
        return filled, mask.copy()


def rectangle(shape: tuple[int, int], share: float, aspect: float) -> tuple[int, int]:
    """Height and width in px of a rectangle that covers this share of the image.

    Its width / height is as near to `aspect` as fits into the image.
    """
    area = share * shape[0] * shape[1]
    height = max(1, round(min(max((area / aspect) ** 0.5, area / shape[1]), shape[0])))
    return height, min(max(1, round(area / height)), shape[1])


def turned(piece: np.ndarray, degrees: float) -> ImageMask:
    """A piece (h,w,3) turned on a canvas that holds all of it, (H,W,3), and which pixels it covers, (H,W) in {0,1}."""
    height, width = piece.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    cover = cv2.warpAffine(np.ones((height, width), np.float32), turn, size)
    # The piece's border is repeated outwards, so that no black mixes into it; the edge is hard, so that mask and
    # change are the same pixels. A piece of a pixel or two may nowhere cover half of one.
    canvas = cv2.warpAffine(piece, turn, size, borderMode=cv2.BORDER_REPLICATE)
    return canvas, (cover >= min(0.5, float(cover.max()))).astype(np.uint8)


def _log_uniform(limits: tuple[float, float], rng: Rng) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _window(image: np.ndarray, height: int, width: int, rng: Rng) -> tuple[slice, slice]:
    """Any place of a window fully inside the image."""
    top, left = (int(rng.integers(n - m + 1)) for n, m in zip(image.shape[:2], (height, width), strict=True))
    return slice(top, top + height), slice(left, left + width)


def _cut(image: np.ndarray, height: int, width: int, rng: Rng) -> np.ndarray:
    return image[_window(image, height, width, rng)].copy()


def _paste(image: np.ndarray, piece: np.ndarray, shape: np.ndarray, rng: Rng) -> ImageMask:
    """`piece` (h,w,3), where `shape` (h,w) is nonzero, anywhere in a copy of `image`; and the mask of it."""
    piece, shape = piece[: image.shape[0], : image.shape[1]], shape[: image.shape[0], : image.shape[1]]
    window = _window(image, shape.shape[0], shape.shape[1], rng)
    pasted, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    mask[window] = shape
    pasted[window][shape != 0] = piece[shape != 0]
    return pasted, mask


def _jitter(piece: np.ndarray, most: float, rng: Rng) -> np.ndarray:
    """Brightness, contrast, saturation and hue, in random order, each changed by up to `most`."""
    for operation in rng.permutation(4):
        amount = rng.uniform(-most, most)
        if most:
            piece = (
                (brightness, contrast, saturation)[operation](piece, 1 + amount)
                if operation < 3
                else hue(piece, amount)
            )
    return piece
