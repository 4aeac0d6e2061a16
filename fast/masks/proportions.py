"""Whether a mask file is of an image's proportions: only then may it be scaled to the image as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fast.data.images import natural_key
from ldm.errors import UserError

Shape = tuple[int, int]  # (height, width) in pixels
ShapeOf = Callable[[Path], Shape]


def alike(mask: Shape, image: Shape) -> bool:
    """Whether one is the other scaled by one factor, as far as whole pixels of the smaller of the two can tell."""
    small, large = sorted([mask, image], key=lambda shape: shape[0] * shape[1])
    # From either side, what the other would be: a rounded short side says little about the long one.
    return any(abs(small[i] - large[i] * small[1 - i] / large[1 - i]) <= 1 for i in (0, 1))


def check_proportions(pairs: Iterable[tuple[Path, Path]], image_shape: ShapeOf, mask_shape: ShapeOf) -> None:
    """Look at the (normal image, mask) files that are to meet. Raises `UserError` for the first, by name, where the
    mask would be stretched. `image_shape`, `mask_shape`: of a file; each file is looked at once."""
    met = set(pairs)
    images = {path: image_shape(path) for path in {image for image, _ in met}}
    masks = {path: mask_shape(path) for path in {mask for _, mask in met}}
    stretched = [(image, mask) for image, mask in met if not alike(masks[mask], images[image])]
    if stretched:
        image, mask = min(stretched, key=lambda pair: (natural_key(pair[0]), natural_key(pair[1])))
        (height, width), (rows, columns) = masks[mask], images[image]
        raise UserError(
            f"the mask {mask} ({width} x {height} pixels) would be stretched over {image} ({columns} x {rows}): "
            "give masks of the images' proportions, or --masks augmented, which takes them for free shapes to be "
            "moved, or --size N, which makes a square of every image and mask"
        )
