"""Images and masks on disk and in memory: decode anything a camera or a labelling tool writes, resize, write safely."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from fast.data.labelme import draw_mask, image_of, load_annotation, named_image
from ldm.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LABELS = 31  # masks whose maximum is at most this hold label numbers, not grey values
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 0x0102  # EXIF and TIFF tags
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, cv2.error, Image.DecompressionBombError)


def is_image(path: str | Path) -> bool:
    """True for a file name that `read_image` knows by its suffix; hidden files (`._x.png`) are not images."""
    name = Path(path).name
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def natural_key(path: str | Path) -> list[tuple[int, int, str]]:
    """Sort key under which `a2` comes before `a10`."""
    pieces = re.split(r"([0-9]+)", Path(path).as_posix())
    return [(0, int(piece), piece) if index % 2 else (1, 0, piece) for index, piece in enumerate(pieces)]


def list_images(folder: str | Path) -> list[Path]:
    """Images directly inside `folder`, in natural order. UserError when the folder cannot be listed."""
    folder = Path(folder)
    try:
        return sorted((p for p in folder.iterdir() if is_image(p) and p.is_file()), key=natural_key)
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({_reason(error)}); check the path") from error


def looks_whole(path: str | Path) -> bool:
    """True for a PNG or JPEG file that begins and ends as such: what a full decode would find, for the price of two
    reads. UserError when the file cannot be opened."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            file.seek(-min(64, file.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot read the image ({_reason(error)}); check the path") from error
    return (head == b"\x89PNG\r\n\x1a\n" and b"IEND" in tail) or (head[:2] == b"\xff\xd8" and b"\xff\xd9" in tail)


def read_image(path: str | Path) -> np.ndarray:
    """RGB, uint8 (H, W, 3), turned upright by EXIF. 16-bit values are divided by 257, an alpha channel is dropped.

    UserError when the file is missing, truncated or no image.
    """
    values, palette = _decode(Path(path))
    if palette is not None:
        values = palette[values]
    if values.dtype == np.uint16:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif values.dtype != np.uint8:
        values = _float_to_uint8(Path(path), values)
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    return np.ascontiguousarray(values[:, :, :3])


def read_mask(path: str | Path) -> np.ndarray:
    """Defect mask, uint8 (H, W) in {0, 1}, turned upright by EXIF.

    One rule per kind of file, since tools disagree on what "defect" is stored as:
    - maximum <= 31: the values are labels (0/1, VisA's 1..n), every nonzero one is a defect;
    - a coloured palette: its indices are labels, every nonzero one is a defect (a grey palette is read as its greys);
    - else a defect is a value > 127 (16-bit: > 127 * 257), in colour in any channel; transparent is background.
    A LabelMe file (.json) is drawn (`fast.data.labelme`). UserError when the file is missing, truncated or no image.
    """
    if Path(path).suffix.lower() == ".json":
        return _drawn_mask(Path(path))
    values, palette = _decode(Path(path))
    if palette is not None:
        used = palette[np.unique(values)]
        if (used != used[:, :1]).any():
            return (values > 0).astype(np.uint8)
        values = palette[values][:, :, 0]
    if values.ndim == 3:
        alpha = values[:, :, 3:]
        values = values[:, :, :3].max(axis=2)
        if alpha.size:
            values = np.where(alpha[:, :, 0] > np.iinfo(alpha.dtype).max // 2, values, 0)
    top = values.max(initial=0)
    if values.dtype.kind == "f" and top <= 1:
        return (values > 0.5).astype(np.uint8)
    if top <= LABELS:
        return (values > 0).astype(np.uint8)
    # 0/255 masks are also found in 16-bit files; there full range means more than 255.
    return (values > (127 if top <= 255 else 127 * 257)).astype(np.uint8)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image turned upright by EXIF, from its first bytes. UserError as for `read_image`."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return image.size if turned else image.size[::-1]
    except (*BROKEN, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot read the image ({_reason(error)}); restore or remove the file") from error


def _drawn_mask(path: Path) -> np.ndarray:
    annotation = load_annotation(path)
    if annotation is None:
        raise UserError(f"{path}: no LabelMe annotation (shapes, imagePath); give the file that LabelMe saved")
    beside = list_images(path.parent)
    named = named_image(annotation)
    try:
        image = image_of(annotation, [*beside, named] if named.is_file() and named not in beside else beside)
    except UserError:
        if annotation.size is None:
            raise
        return draw_mask(annotation, None)  # an annotation that was moved away from its image
    return draw_mask(annotation, image_size(image))


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """(H, W[, 3]) uint8 to `size` (int: square; or (h, w)): area along a shrinking side, cubic along a growing one."""
    height, width = _height_width(size)
    # One axis at a time: a picture may shrink in height and grow in width.
    for axis, length in ((0, height), (1, width)):
        if image.shape[axis] == length:
            continue
        shape = (image.shape[1], length) if axis == 0 else (length, image.shape[0])
        image = cv2.resize(
            image, shape, interpolation=cv2.INTER_AREA if length < image.shape[axis] else cv2.INTER_CUBIC
        )
    return np.array(image)


def resize_mask(mask: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """(H, W) to `size` (an int for a square, or (h, w)), uint8 in {0, 1}, nonzero = defect.

    Shrinking loses no defect: a target pixel is one if any source pixel that it overlaps is. Growing is nearest.
    """
    height, width = _height_width(size)
    if mask.shape == (height, width):
        return (mask != 0).astype(np.uint8)
    # A rectangle holds a defect iff one of its columns does, so the two axes separate.
    rows = _resize_rows((mask != 0).astype(np.uint8), height)
    return np.ascontiguousarray(_resize_rows(rows.T, width).T)


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) grey in the suffix's format; whole or not at all. UserError on failure."""
    path = Path(path)
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: cannot write '{path.suffix}'; use one of {', '.join(sorted(SUFFIXES))}")
    buffer = BytesIO()
    # For PNG, a seventh larger than at the default level in a fifth of the time.
    options = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}, "PNG": {"compress_level": 1}}.get(file_format, {})
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format=file_format, **options)
    write_bytes(path, buffer.getvalue())


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write (H, W), nonzero = defect, as a 0/255 PNG; whole or not at all. UserError on failure or another suffix."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"{path}: masks are written as PNG; end the name in .png")
    write_image(path, (np.asarray(mask) != 0).astype(np.uint8) * 255)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all: `<name>.part` first, then renamed. UserError names the path and the reason."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            os.replace(part, path)
        except BaseException:  # also when interrupted: never leave half a file
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot write ({_reason(error)}); free space or choose another folder") from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Upright values (H, W[, C]) in the file's own depth; for palette files indices, and the palette (256, 3)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the image ({_reason(error)}); check the path") from error
    try:
        return _decode_pillow(data)
    except UnidentifiedImageError as error:
        what = "is empty" if not data else "is truncated or no image"
        raise UserError(f"{path}: {what}; restore or remove the file") from error
    except BROKEN as error:
        raise UserError(f"{path}: cannot read the image ({_reason(error)}); restore or remove the file") from error


def _decode_pillow(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    with Image.open(BytesIO(data)) as image:
        deep = _is_deep_colour(image, data)
        image.load()  # a full decode: truncated files fail here, not during training
        turn = _TURNS.get(image.getexif().get(ORIENTATION, 1), _TURNS[1])
        if image.mode == "P":
            indices, palette = np.asarray(image), np.zeros((256, 3), np.uint8)
            palette[indices.ravel()] = np.asarray(image.convert("RGB")).reshape(-1, 3)
            return turn(indices), palette
        if deep and (values := _decode_opencv(data)) is not None:
            return turn(values), None
        # Older Pillow opens a 16-bit grey PNG as mode I.
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            return turn(np.asarray(image).astype(np.uint16)), None
        if image.mode in ("L", "RGB", "RGBA", "I", "F"):
            return turn(np.asarray(image)), None
        grey = {"1": "L", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA"}
        return turn(np.asarray(image.convert(grey.get(image.mode, "RGB")))), None


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """16 bits per channel, which Pillow cuts to the high byte. A turned TIFF stays with Pillow: OpenCV turns it too."""
    if not image.mode.startswith("RGB"):
        return False
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        return tags.get(ORIENTATION, 1) == 1 and max(tags.get(BITS_PER_SAMPLE, (8,))) == 16
    return image.format == "PNG" and data[24] == 16


def _decode_opencv(data: bytes) -> np.ndarray | None:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim == 2:
        return values
    order = cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(values, order)


def _float_to_uint8(path: Path, values: np.ndarray) -> np.ndarray:
    """32-bit files have no fixed range: accept [0, 1] floats and integers of 8 or 16 bits, refuse to guess others."""
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    whole = values.dtype.kind in "iu"
    if not low >= 0 or not high <= (65535 if whole else 1):
        raise UserError(
            f"{path}: 32-bit values from {low:g} to {high:g} have no known range; save it with 8 or 16 bits"
        )
    scale = (1 if high <= 255 else 1 / 257) if whole else 255
    return np.rint(values * scale).astype(np.uint8)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size {size} must be positive")
    return int(height), int(width)


def _resize_rows(mask: np.ndarray, length: int) -> np.ndarray:
    rows, target = mask.shape[0], np.arange(length)
    if length >= rows:
        return mask[(2 * target + 1) * rows // (2 * length)]
    # Target row i overlaps source rows floor(i n / m) .. ceil((i + 1) n / m) - 1; integers keep the bounds exact.
    first, stop = target * rows // length, -(-(target + 1) * rows // length)
    total = np.concatenate([np.zeros((1, mask.shape[1]), np.int64), np.cumsum(mask, axis=0, dtype=np.int64)])
    return (total[stop] > total[first]).astype(np.uint8)


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
