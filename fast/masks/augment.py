"""Real masks moved, turned, mirrored, scaled and bent, without a hairline falling apart."""

from dataclasses import dataclass

import cv2
import numpy as np

from fast.data.images import resize_mask
from fast.masks.lines import broad_of, draw_lines, narrow_of
from ldm.errors import UserError

TRIES = 8
LEAST = 0.25  # share of the defect that has to be left of it after the picture's edge has cut it


@dataclass(frozen=True)
class AugmentOptions:
    """`turn`: by any angle; `scale`: smallest and largest factor; `bend`: deviation of the bending, as a share of the
    defect's extent, at most 0.1 so that nothing folds. `move`: anywhere in the picture, else about its place."""

    move: bool = True
    turn: bool = True
    mirror: bool = True
    scale: tuple[float, float] = (0.7, 1.4)
    bend: float = 0.06

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"scale is {self.scale}; give two factors above 0, the smaller first")
        if not 0 <= self.bend <= 0.1:
            raise UserError(f"bend is {self.bend}; it must lie in [0, 0.1]")


class _Bend:
    """The way from a canvas of the result (side, side) back to the mask, and forth."""

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator, options: AugmentOptions):
        factor = float(np.exp(rng.uniform(*np.log(options.scale))))
        angle = rng.uniform(0, 2 * np.pi) if options.turn else 0.0
        flip = -1.0 if options.mirror and rng.random() < 0.5 else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.back = turn @ np.diag([flip, 1.0]) / factor
        self.factor, self.centre = factor, (np.array(shape[::-1]) - 1) / 2
        extent = float(np.hypot(*shape))
        reach = 3 * options.bend * extent
        self.side = int(np.ceil(factor * (extent + 2 * reach))) + 6
        # Between pixels as the mask's centre is, or what is only moved would be blurred by half a pixel.
        self.middle = self.side // 2 - 1 + self.centre % 1
        # A lattice of about three cells per extent: the mask bends as a whole and does not crumple.
        knots = np.clip(rng.standard_normal((4, 4, 2)), -1.5, 1.5) * options.bend * extent
        self.bent = cv2.resize(knots.astype(np.float32), (self.side, self.side), interpolation=cv2.INTER_CUBIC)

    def sources(self) -> np.ndarray:
        """Where in the mask each pixel of the canvas comes from: (side, side, 2) as x, y."""
        y, x = np.mgrid[: self.side, : self.side]
        straight = (np.stack([x, y], axis=-1) - self.middle) @ self.back.T + self.centre
        return np.asarray(straight + self.bent, np.float32)

    def targets(self, points: np.ndarray) -> np.ndarray:
        """Where points (k,2) of the mask, as x, y, come to lie on the canvas: (k,2)."""
        forth = np.linalg.inv(self.back)
        at = (points - self.centre) @ forth.T + self.middle
        for _ in range(12):  # the bending is a contraction: its inverse is a fixed point
            x, y = at.astype(np.float32).T[..., None]
            moved = cv2.remap(self.bent, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
            at = (points - self.centre - moved) @ forth.T + self.middle
        return np.asarray(at)


def _warped(mask: np.ndarray, way: _Bend) -> np.ndarray:
    """A mask (h,w) on the canvas of `way`, (side, side) uint8: broad parts by the distance to their outline, narrow
    ones as lines between the centres of neighbouring pixels, which stay joined under any bending."""
    padded = np.pad(mask, 2)
    broad = broad_of(padded)
    out = np.zeros((way.side, way.side), np.uint8)
    if broad.any():
        field = cv2.distanceTransform(broad, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - broad, cv2.DIST_L2, 5)
        x, y = (way.sources()[..., i] + np.float32(2) for i in (0, 1))
        level = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-9)
        out[level > 0] = 1
    draw_lines(narrow_of(padded, broad), lambda points: way.targets(points - 2.0), out)
    return out


def _cropped(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask that holds its defect, and its top left corner (row, column)."""
    left, top, width, height = cv2.boundingRect(mask)
    return mask[top : top + height, left : left + width], (top, left)


def _pasted(part: np.ndarray, shape: tuple[int, int], top: int, left: int) -> np.ndarray:
    """A part (h,w) in an empty mask of `shape`; what would lie outside is cut off."""
    out = np.zeros(shape, np.uint8)
    above, before = max(0, -top), max(0, -left)
    seen = part[above : max(0, shape[0] - top), before : max(0, shape[1] - left)]
    out[max(0, top) : max(0, top) + seen.shape[0], max(0, left) : max(0, left) + seen.shape[1]] = seen
    return out


def augmented(
    mask: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, options: AugmentOptions | None = None
) -> np.ndarray:
    """A mask (h,w), nonzero = defect, varied, in a picture of `shape`: (H,W) uint8 in {0,1}, never empty.

    Where the picture's edge keeps cutting most of it off, the plain mask. Raises `UserError` for an empty mask.
    """
    options = options or AugmentOptions()
    whole = resize_mask(mask, shape)
    if not whole.any():
        raise UserError("a mask to augment is empty; defect pixels must be nonzero")
    part, corner = _cropped(whole)
    for _ in range(TRIES):
        varied, _ = _cropped(_warped(part, _Bend((part.shape[0], part.shape[1]), rng, options)))
        room = [whole.shape[i] - varied.shape[i] for i in (0, 1)]
        if options.move:
            # What is larger than the picture covers it on that side.
            at = [int(rng.integers(min(0, space), max(0, space) + 1)) for space in room]
        else:
            at = [corner[i] + (part.shape[i] - varied.shape[i]) // 2 for i in (0, 1)]
        out = _pasted(varied, shape, at[0], at[1])
        if out.sum() > LEAST * varied.sum():
            return out
    return whole
