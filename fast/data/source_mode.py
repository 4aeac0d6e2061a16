"""An edited picture back in the mode of the file it was made from: grey stays grey, 16 bits stay 16."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from fast.data.decode import decode
from fast.data.depth import mode_of, to_uint8
from fast.data.images import read_image, resize_image, write_bytes, write_image


def keep_grey(made: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """`made` (H,W,3) uint8 without colour where `normal`, any picture (h,w,3) of the same camera, has none."""
    if (normal != normal[:, :, :1]).any():
        return made
    return np.repeat(cv2.cvtColor(np.ascontiguousarray(made), cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def like_source(made: np.ndarray, source: str | Path) -> tuple[np.ndarray, int]:
    """An edited picture in the mode and depth of the file it was made from, and the bits in use.

    `made`: (H,W,3) uint8, the picture that `read_image(source)` gives with some pixels changed, or resized and then
    changed. Returns (H,W) or (H,W,3), uint8 or uint16. What was not changed equals the file (resized alike) in every
    bit; what was changed keeps the file's finest structure under the change, so that neither colour nor low bits tell
    where it is. An alpha channel is dropped. UserError when the source cannot be read.
    """
    path = Path(source)
    decoded = decode(path)
    mode, plain = mode_of(path, decoded), to_uint8(path, decoded)
    raw = decoded.values if decoded.palette is None else plain
    raw = raw[:, :, :3] if raw.ndim == 3 else raw
    if raw.dtype.kind == "f" or (raw.dtype != np.uint8 and mode.container == 8):
        raw = plain[:, :, 0] if raw.ndim == 2 else plain
    if plain.shape != made.shape:
        raw, plain = (resize_image(np.ascontiguousarray(a), (made.shape[0], made.shape[1])) for a in (raw, plain))
    if mode.grey:
        made = keep_grey(made, plain)
    if raw.ndim == 2:
        made, plain = made[:, :, 0], plain[:, :, 0]
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(np.where(made == plain, raw, made)), 8
    return _deep(raw, made, plain, 2**mode.bits - 1, int(np.gcd.reduce(decoded.values.ravel()))), mode.bits


def _deep(raw: np.ndarray, made: np.ndarray, plain: np.ndarray, full: int, step: int) -> np.ndarray:
    """`raw` values up to `full`, changed as `made` differs from `plain` (both uint8), and read as `made` then.

    `step`: what all of the file's values are multiples of, as cameras leave it that put 12 bits into the upper ones.
    """
    step, value = max(1, step), made.astype(np.float64)
    wanted = raw + (value - plain) * full / 255
    low = np.maximum(np.ceil((2 * value - 1) * full / 510), 0)  # of the values that are read as `made`
    high = np.minimum(np.ceil((2 * value + 1) * full / 510) - 1, full)
    first, last = np.ceil(low / step) * step, np.floor(high / step) * step
    stepped = np.clip(np.rint(wanted / step) * step, first, last)
    return np.where(first <= last, stepped, np.clip(np.rint(wanted), low, high)).astype(np.uint16)


def write_like_source(path: Path, made: np.ndarray, source: str | Path | None) -> np.ndarray:
    """Write an edited picture (H,W,3) uint8 as PNG in the mode of the file it was made from (see `like_source`), as it
    is where there is none. Returns it as it now reads, (H,W,3) uint8. UserError on failure."""
    if source is None:
        write_image(path, made)
        return made
    array, bits = like_source(made, source)
    if array.dtype == np.uint8:
        write_image(path, array)
        return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else array
    write_bytes(path, encode_deep(array, bits))
    return read_image(path)


def encode_deep(array: np.ndarray, bits: int) -> bytes:
    """PNG of (H,W) or (H,W,3) RGB uint16; `bits` in use are told by its sBIT chunk."""
    done, data = cv2.imencode(".png", array if array.ndim == 2 else array[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    png = data.tobytes()
    body = b"sBIT" + bytes([bits]) * (1 if array.ndim == 2 else 3)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]  # behind the header, which is 33 bytes long
