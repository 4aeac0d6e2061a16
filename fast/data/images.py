"""Images and masks on disk and in memory: decode anything a camera or a labelling tool writes, resize, write safely."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fast.data.decode import SUFFIXES, decode, image_size, reason
from fast.data.depth import to_uint8
from fast.data.labelme import image_of, load_annotation, named_image
from fast.data.labelme_masks import draw_labels
from fast.data.mask_looks import IGNORED, MaskReading, Unclear
from fast.data.mask_values import interpret
from fast.data.reading import reading_of
from ldm.errors import UserError

WRITTEN = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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
        raise UserError(f"{folder}: cannot list the folder ({reason(error)}); check the path") from error


def list_files(folder: str | Path, enter: Callable[[Path], bool] | None = None) -> list[Path]:
    """Files in a folder and the folders in it (those for which `enter` is true, at the first level), hidden ones left
    out, in natural order. UserError when a folder cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            paths = sorted((Path(e.path) for e in entries if not e.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({reason(error)}); check its permissions") from error
    below = [p for p in paths if p.is_dir() and not _leads_back(p) and (enter is None or enter(p))]
    return [p for p in paths if p.is_file()] + [p for inner in below for p in list_files(inner)]


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.resolve() in (path.parent.resolve(), *path.parent.resolve().parents)


def read_image(path: str | Path) -> np.ndarray:
    """RGB, uint8 (H, W, 3), turned upright by EXIF. An alpha channel is dropped.

    16-bit values are divided by what their depth allows at most, see `fast.data.depth.mode_of`.
    UserError when the file is missing, truncated, no image, or holds several.
    """
    return to_uint8(Path(path), decode(Path(path)))


def read_mask(path: str | Path) -> np.ndarray:
    """Defect mask, uint8 (H, W) in {0, 1}, turned upright by EXIF; see `read_mask_as`."""
    return read_mask_as(path).mask


def read_mask_as(path: str | Path) -> MaskReading:
    """Defect mask, and what its values were taken for by the rules of `fast.data.mask_values`.

    A folder holds the parts of one mask (MVTec LOCO), a `.json` is a LabelMe file and drawn (`fast.data.labelme`).
    UserError when a file is missing, truncated, no image, or can be meant in two ways.
    """
    path = Path(path)
    if path.is_dir():
        return _joined(path)
    if path.suffix.lower() == ".json":
        labels = _drawn_labels(path)
        mask, ignored = (labels == 1).astype(np.uint8), labels == IGNORED
        return MaskReading(mask, "LabelMe shapes", "all shapes are defects", ignored if ignored.any() else None)
    try:
        return interpret(decode(path), reading_of(path))
    except Unclear as error:
        raise UserError(f"{path}: {error}") from None


def read_labels(path: str | Path) -> np.ndarray:
    """`read_mask` with the pixels that mean neither: uint8 (H, W), 0 background, 1 defect, `IGNORED` (255) neither."""
    return read_mask_as(path).labels


def _joined(folder: Path) -> MaskReading:
    parts = [read_mask_as(p) for p in list_images(folder)]
    if not parts or len({p.mask.shape for p in parts}) > 1:
        what = "parts of different sizes" if parts else "no mask"
        raise UserError(f"{folder}: {what} in it; restore the files")
    skipped = [p.ignored for p in parts if p.ignored is not None]
    ignored = np.logical_or.reduce(skipped) if skipped else None
    return MaskReading(np.maximum.reduce([p.mask for p in parts]), parts[0].values, parts[0].taken, ignored)


def _drawn_labels(path: Path) -> np.ndarray:
    annotation = load_annotation(path)
    if annotation is None:
        raise UserError(f"{path}: no LabelMe annotation (shapes, imagePath); give the file that LabelMe saved")
    named = named_image(annotation)
    stems = (named, path.parent / named.name, path)
    likely = {named, path.parent / named.name}
    likely |= {p.with_suffix(end) for p in stems for suffix in SUFFIXES for end in (suffix, suffix.upper())}
    width = reading_of(path).line_width
    try:
        image = image_of(annotation, sorted(p for p in likely if is_image(p) and p.is_file()))
    except UserError:
        if annotation.size is None:
            raise
        return draw_labels(annotation, None, width)  # an annotation that was moved away from its image
    return draw_labels(annotation, image_size(image), width)


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


def resize_labels(labels: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """`resize_mask` of label maps of `read_labels`: where a target pixel is no defect, it is ignored if any source
    pixel that it overlaps is."""
    mask, ignored = resize_mask(labels == 1, size), labels == IGNORED
    if ignored.any():
        mask[(resize_mask(ignored, size) > 0) & (mask == 0)] = IGNORED
    return mask


def check_suffix(path: Path) -> None:
    """UserError for a name by which no image is written."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(f"{path}: cannot write '{path.suffix}'; use one of {', '.join(WRITTEN)}")


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) grey in the suffix's format; whole or not at all. UserError on failure."""
    path = Path(path)
    check_suffix(path)
    write_bytes(path, encoded(array, Image.registered_extensions()[path.suffix.lower()]))


def encoded(array: np.ndarray, file_format: str = "PNG") -> bytes:
    """A file of uint8 (H, W, 3) RGB or (H, W) grey, as `write_image` writes it."""
    buffer = BytesIO()
    # For PNG, a seventh larger than at the default level in a fifth of the time.
    options = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}, "PNG": {"compress_level": 1}}.get(file_format, {})
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format=file_format, **options)
    return buffer.getvalue()


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
        raise UserError(f"{path}: cannot write ({reason(error)}); free space or choose another folder") from error


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
