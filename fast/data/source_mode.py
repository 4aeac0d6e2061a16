"""An edited picture back in the mode of the file it was made from: grey stays grey, 16 bits stay 16."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fast.data.decode import decode
from fast.data.depth import mode_of, to_uint8
from fast.data.images import resize_image, write_bytes, write_image


def keep_grey(made: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """`made` (H,W,3) uint8 without colour where `normal`, any picture (h,w,3) of the same camera, has none."""
    if (normal != normal[:, :, :1]).any():
        return made
    return np.repeat(cv2.cvtColor(np.ascontiguousarray(made), cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class Stored:
    """A picture as it is to be stored: `array` (H,W) or (H,W,3), uint8 or uint16 with `bits` in use; and as it then
    reads, `seen` (H,W,3) uint8."""

    array: np.ndarray
    bits: int
    seen: np.ndarray

    def write(self, path: Path) -> None:
        """A PNG, whole or not at all. UserError on failure."""
        if self.array.dtype == np.uint8:
            write_image(path, self.array)
        else:
            write_bytes(path, self.png())

    def png(self) -> bytes:
        """PNG of an array of 16 bits; those in use are told by its sBIT chunk."""
        planes = self.array if self.array.ndim == 2 else self.array[:, :, ::-1]
        done, data = cv2.imencode(".png", planes, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done
        whole, body = data.tobytes(), b"sBIT" + bytes([self.bits]) * (1 if planes.ndim == 2 else 3)
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return whole[:33] + chunk + whole[33:]  # behind the header, which is 33 bytes long


def like_source(made: np.ndarray, source: str | Path | None) -> Stored:
    """An edited picture in the mode and depth of the file that it was made from.

    What was not changed equals the file (resized alike) in every bit. What was changed keeps the file's finest
    structure under the change, so that neither colour nor low bits tell where it is. An alpha channel is dropped.

    Args:
        made: uint8 (H,W,3), the picture that `read_image(source)` gives with some pixels changed, or resized and then
            changed.
        source: the file that it was made from. None: the picture stays as it is.

    Raises:
        UserError: when the source cannot be read.
    """
    if source is None:
        return Stored(made, 8, made)
    path = Path(source)
    decoded = decode(path)
    mode, plain = mode_of(path, decoded), to_uint8(path, decoded)
    raw = decoded.values if decoded.palette is None else plain
    raw = raw[:, :, :3] if raw.ndim == 3 else raw
    if raw.dtype.kind == "f" or (raw.dtype != np.uint8 and mode.container == 8):
        raw = plain[:, :, 0] if raw.ndim == 2 else plain
    if plain.shape != made.shape:
        raw, plain = (resize_image(np.ascontiguousarray(a), (made.shape[0], made.shape[1])) for a in (raw, plain))
    seen = keep_grey(made, plain) if mode.grey else made
    if raw.ndim == 2:
        made, plain = seen[:, :, 0], plain[:, :, 0]
    else:
        made = seen
    if raw.dtype == np.uint8:
        return Stored(np.ascontiguousarray(made), 8, seen)
    step = int(np.gcd.reduce(decoded.values.ravel()))
    return Stored(_deep(raw, made, plain, 2**mode.bits - 1, step), mode.bits, seen)


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
