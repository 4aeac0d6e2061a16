"""Grey or colour, 8 or 16 bits: what a picture file holds, and that as 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fast.data.decode import Decoded, decode
from fast.data.reading import reading_of
from ldm.errors import UserError

DEPTHS = (8, 10, 12, 14, 16)  # of cameras, whose values lie in the low bits of 16


@dataclass(frozen=True)
class PictureMode:
    """`grey`: one channel, or three that are equal; `container`: 8 or 16 bits per value in the file (32-bit files count
    as what they hold); `bits`: those in use."""

    grey: bool
    container: int
    bits: int

    @property
    def name(self) -> str:
        deep = "8 bit" if self.container == 8 else f"{self.bits} bit in 16" if self.bits < 16 else "16 bit"
        return f"{'grey' if self.grey else 'colour'}, {deep}"


def mode_of(path: Path, decoded: Decoded) -> PictureMode:
    """The mode of a decoded file. UserError when its values have no known range.

    Bits in use of 16: what `reading.json` says, or the file (a PNG's sBIT chunk), or the least of 8, 10, 12, 14 and 16
    that hold its highest value.
    """
    values = decoded.values if decoded.palette is None else decoded.palette[np.unique(decoded.values)][None]
    channels = values[:, :, :3] if values.ndim == 3 else values[:, :, None]
    grey = bool((channels == channels[:, :, :1]).all())
    if values.dtype == np.uint8:
        return PictureMode(grey, 8, 8)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    whole = values.dtype.kind in "iu"
    if not low >= 0 or not high <= (65535 if whole else 1):
        raise UserError(
            f"{path}: 32-bit values from {low:g} to {high:g} have no known range; save it with 8 or 16 bits"
        )
    if not whole:
        return PictureMode(grey, 8, 8)
    told = reading_of(path).bits
    if told is not None and int(high) >> told:
        raise UserError(f"{path}: holds the value {int(high)}, above the {told} bits of reading.json; correct it")
    own = decoded.bits if decoded.bits is not None and not int(high) >> decoded.bits else None
    bits = told or own or next(b for b in DEPTHS if not int(high) >> b)
    return PictureMode(grey, 16, bits)


def to_uint8(path: Path, decoded: Decoded) -> np.ndarray:
    """(H,W,3) uint8 RGB of a decoded file; the highest value of its depth becomes 255. UserError as for `mode_of`."""
    values = decoded.values if decoded.palette is None else decoded.palette[decoded.values]
    if values.dtype != np.uint8:
        values = _eight(values, mode_of(path, decoded))
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    return np.ascontiguousarray(values[:, :, :3])


def read_with_mode(path: str | Path) -> tuple[np.ndarray, PictureMode]:
    """An image as by `read_image`, and its file's own mode."""
    decoded = decode(Path(path))
    return to_uint8(Path(path), decoded), mode_of(Path(path), decoded)


def _eight(values: np.ndarray, mode: PictureMode) -> np.ndarray:
    if values.dtype.kind == "f":
        return np.rint(values * 255).astype(np.uint8)
    full = 2**mode.bits - 1
    if mode.bits == 8:
        return values.astype(np.uint8)
    table = (np.arange(full + 1, dtype=np.int64) * 510 + full) // (2 * full)  # v * 255 / full, halves up
    return table.astype(np.uint8)[values]
