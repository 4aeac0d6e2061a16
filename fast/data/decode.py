"""Picture files as arrays in their own mode and depth: whatever a camera or a labelling tool writes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from fast.data.packed import is_packed, named, read_bytes, remedy
from ldm.errors import LFS_REMEDY, UserError, is_lfs_pointer

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".j2k"}
    | {".pgm", ".ppm", ".pbm", ".pnm"}
)
ORIENTATION, BITS_PER_SAMPLE, WIDTH, LENGTH = 0x0112, 0x0102, 0x0100, 0x0101  # EXIF and TIFF tags
SWAPPING = (5, 6, 7, 8)  # turns that make a wide picture tall
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, cv2.error, Image.DecompressionBombError)
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")
# A line camera writes pictures above Pillow's limit. What gives a trap away is its size on disk: real ones take a byte
# for less than a hundred pixels, an empty one at the highest compression for 900.
LARGE, PIXELS_PER_BYTE = 89_478_485, 1000
PNG = b"\x89PNG"  # the beginning of such a file
RESTORE = "restore or remove the file"


@dataclass(frozen=True)
class Decoded:
    """Upright `values` (H,W) or (H,W,C) of a file, RGB or RGBA, in the file's own depth.

    `palette`: for a file of indices the colours (256,3) uint8 of those that occur. `lossy`: the format changes values.
    `bits`: how many of 16 are in use, if the file says so.
    """

    values: np.ndarray
    palette: np.ndarray | None
    lossy: bool
    bits: int | None = None


def decode(path: Path) -> Decoded:
    """Decode a picture file wholly. UserError when it is missing, truncated, no picture, or holds several."""
    what, restore = named(path), remedy(path, RESTORE)
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{what} cannot read the image ({reason(error)}); {remedy(path, 'check the path')}") from error
    if is_lfs_pointer(data[:64]):
        raise UserError(f"{what} {LFS_REMEDY}")
    try:
        return _decode_pillow(data)
    except UnidentifiedImageError as error:
        raise UserError(f"{what} is {'truncated or no image' if data else 'empty'}; {restore}") from error
    except _Refused as error:
        raise UserError(f"{what} {error}") from None
    except (*BROKEN, OverflowError) as error:
        raise UserError(f"{what} cannot read the image ({reason(error)}); {restore}") from error
    except MemoryError as error:
        raise UserError(f"{what} there is not enough memory to decode it; make it smaller") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image turned upright by EXIF, from its first bytes. UserError as for `decode`."""
    Image.MAX_IMAGE_PIXELS = None
    path = Path(path)
    restore = remedy(path, RESTORE)
    try:
        with Image.open(BytesIO(read_bytes(path)) if is_packed(path) else path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in SWAPPING
            width, height = _stored_size(image)
            return (width, height) if turned else (height, width)
    except UnidentifiedImageError as error:
        raise UserError(f"{named(path)} cannot read the image (it is truncated or no image); {restore}") from error
    except BROKEN as error:
        raise UserError(f"{named(path)} cannot read the image ({reason(error)}); {restore}") from error


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of the pixels in the file; of a TIFF Pillow's `size` may be that of the upright picture."""
    tags = getattr(image, "tag_v2", {})
    return (tags[WIDTH], tags[LENGTH]) if WIDTH in tags and LENGTH in tags else image.size


def turn_of(path: Path) -> int:
    """How EXIF turns or mirrors a picture, a key of `TURNS`; 1, not at all, for what cannot be read."""
    try:
        with Image.open(path) as image:
            turn = image.getexif().get(ORIENTATION, 1)
            return turn if turn in TURNS else 1
    except (*BROKEN, UnidentifiedImageError):
        return 1


def may_be_deep(path: Path) -> bool:
    """Whether a picture file may hold more than 8 bits a value, by its first bytes; False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
        if head.startswith(PNG):
            return len(head) > 24 and head[24] == 16
        with Image.open(path) as image:
            if image.format == "TIFF":
                return max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))) > 8
            large = image.format == "PPM" and path.stat().st_size > 6 * image.width * image.height
            return image.mode.startswith(("I", "F")) or large
    except (*BROKEN, UnidentifiedImageError):
        return False


def reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


class _Refused(Exception):
    """A picture that is whole, and yet of no use; the message says why and what to do."""


def _decode_pillow(data: bytes) -> Decoded:
    Image.MAX_IMAGE_PIXELS = None  # our rule instead
    with Image.open(BytesIO(data)) as image:
        pixels = image.width * image.height
        if pixels > LARGE and pixels > PIXELS_PER_BYTE * len(data):
            raise _Refused(
                f"{image.width}x{image.height} pixels in {len(data)} bytes hold next to nothing and would fill the "
                "memory; crop the picture, or save it uncompressed if it is real"
            )
        _one_picture(image)
        deep = _is_deep_colour(image, data)
        image.load()  # a full decode: truncated files fail here, not during training
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1), TURNS[1])
        lossy = image.format in LOSSY
        if image.mode == "P" and "transparency" not in image.info:
            indices, palette = np.asarray(image), np.zeros((256, 3), np.uint8)
            palette[indices.ravel()] = np.asarray(image.convert("RGB")).reshape(-1, 3)
            return Decoded(turn(indices), palette, lossy)
        if deep and (values := _decode_opencv(data)) is not None:
            return Decoded(turn(values), None, lossy, _significant(data))
        # Pillow opens a 16-bit grey PNG or PGM as mode I.
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM", "JPEG2000")):
            return Decoded(turn(np.asarray(image).astype(np.uint16)), None, lossy, _significant(data))
        if image.mode in ("L", "RGB", "RGBA", "I", "F"):
            return Decoded(turn(np.asarray(image)), None, lossy)
        other = {"1": "L", "P": "RGBA", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA"}
        return Decoded(turn(np.asarray(image.convert(other.get(image.mode, "RGB")))), None, lossy)


def _one_picture(image: Image.Image) -> None:
    """Refuse a file of several equal pictures; a camera's preview behind the picture does no harm."""
    count = getattr(image, "n_frames", 1)
    if count < 2 or image.format == "MPO":
        return
    size = image.size
    image.seek(1)
    second = image.size
    image.seek(0)
    if second == size:
        raise _Refused(f"holds {count} pictures; save each as a file of its own")


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """16 bits per channel, which Pillow cuts to the high byte. A turned TIFF stays with Pillow: OpenCV turns it too."""
    if not image.mode.startswith("RGB"):
        return False
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        return tags.get(ORIENTATION, 1) == 1 and max(tags.get(BITS_PER_SAMPLE, (8,))) == 16
    if image.format == "PPM":
        return int.from_bytes(data[:2], "big") == 0x5036 and len(data) > 6 * image.width * image.height
    return image.format == "PNG" and data[24] == 16


def _significant(data: bytes) -> int | None:
    """Bits in use by a PNG's sBIT chunk, which stands before the pixels."""
    if not data.startswith(PNG):
        return None
    place = 8
    while place + 8 <= len(data) and data[place + 4 : place + 8] not in (b"IDAT", b"PLTE"):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"sBIT":
            return max(data[place + 8 : place + 8 + min(length, 3)], default=None)
        place += 12 + length
    return None


def _decode_opencv(data: bytes) -> np.ndarray | None:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim == 2:
        return values
    order = cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(values, order)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
