"""Images that EXIF turns, and masks that it does not: whether their sizes tell which way they were drawn."""

from __future__ import annotations

from pathlib import Path

from fast.data.decode import SWAPPING, turn_of
from fast.data.images import list_images

ASKED = (
    "fits its image with and without the turn that EXIF gives the image alone; if masks are drawn on upright images, "
    "say so with prepare_data.py --masks_upright, else save the images without the turn"
)


def turn_without_mask(image: Path, mask: Path) -> int:
    """How EXIF turns an image whose mask, a file or a folder, it leaves as it is (`turn_of`); 1 where it turns both or
    none, and for LabelMe's shapes, which are drawn on the upright image."""
    if mask.suffix.lower() == ".json" or (turn := turn_of(image)) == 1:
        return 1
    files = list_images(mask) if mask.is_dir() else [mask]
    return 1 if any(turn_of(file) != 1 for file in files) else turn


def fits_both_ways(turn: int, size: tuple[int, int]) -> bool:
    """Whether EXIF turns a picture of `size` (h, w), and it has that size without the turn, too."""
    return turn != 1 and (turn not in SWAPPING or size[0] == size[1])


def size_problem(mask: tuple[int, ...], image: tuple[int, int], turn: int) -> str | None:
    """What is wrong with the size (h, w) of a mask, beside that of its upright image; None where they are equal."""
    if mask == image:
        return None
    what = f"mask is {mask[1]}x{mask[0]}, its image {image[1]}x{image[0]}"
    if turn in SWAPPING and mask == image[::-1]:
        return f"{what} once EXIF turns it; turn the mask too, or save the image without its turn"
    return f"{what}; make them equal"
