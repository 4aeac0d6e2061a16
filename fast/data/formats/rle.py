"""Run-length codes of masks as annotation tools write them: COCO's, CVAT's and Label Studio's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def from_runs(runs: Sequence[int], size: tuple[int, int], columns: bool) -> np.ndarray:
    """Mask (H,W) uint8 in {0,1} of runs that alternate, zeros first.

    Args:
        runs: lengths in pixels; COCO's plain code and CVAT's.
        size: (H,W).
        columns: runs go down the columns (COCO) rather than along the rows (CVAT).

    Raises:
        ValueError: the runs do not fill the size.

    Example: `from_runs([1, 2, 1], (2, 2), columns=True)` is `[[0, 1], [1, 0]]`.
    """
    lengths = np.asarray(runs)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise ValueError("its run lengths are not whole numbers from 0 on")
    if int(lengths.sum()) != size[0] * size[1]:
        raise ValueError(f"its runs hold {int(lengths.sum())} pixels, the picture {size[1]}x{size[0]}")
    flat = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(size[::-1]).T) if columns else flat.reshape(size)


def to_runs(mask: np.ndarray, columns: bool) -> list[int]:
    """Runs of a mask (H,W), nonzero = 1, zeros first; the inverse of `from_runs`."""
    flat = (np.asarray(mask).T if columns else np.asarray(mask)).reshape(-1) != 0
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], ends, [flat.size]])
    runs = np.diff(bounds).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def unpack(text: str) -> list[int]:
    """Runs of COCO's compressed code: six bits a character, the lowest five first, differences to the run before
    last from the fourth run on. ValueError for other text."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its compressed runs are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its compressed runs are cut off")
    return runs


def pack(runs: Sequence[int]) -> str:
    """COCO's compressed code of runs; the inverse of `unpack`."""
    text: list[str] = []
    for i, run in enumerate(runs):
        value, more = (run - runs[i - 2] if i > 2 else run), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr((bits | 32 if more else bits) + 48))
    return "".join(text)


def from_brush(code: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Mask (H,W) uint8 in {0,1} of Label Studio's brush code: RGBA values, whose alpha above half is the region.

    Bits: 32 number of values, 5 and 4 x 4 the widths (less one) of a value and of four kinds of run lengths; then runs:
    1 bit "all the same", 2 bits the kind of length, the length less one, and one value or as many as the run is long.
    Raises ValueError for a code that is damaged or of another size.
    """
    data = np.asarray(code)
    if data.ndim != 1 or data.dtype.kind not in "iu" or ((data < 0) | (data > 255)).any():
        raise ValueError("its brush code is no list of bytes")
    bits, at = np.unpackbits(data.astype(np.uint8)), 0
    text = bits.astype(np.uint8).tobytes().translate(bytes([48, 49]) + bytes(254)).decode()

    def number(width: int) -> int:
        nonlocal at
        at += width
        if at > len(text):
            raise ValueError("its brush code is cut off")
        return int(text[at - width : at], 2)

    count, width = number(32), number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    if count != size[0] * size[1] * 4:
        raise ValueError(f"its brush code holds {count // 4} pixels, the picture {size[1]}x{size[0]}")
    if width > 8:
        raise ValueError(f"its brush code has values of {width} bits; known are up to 8")
    values, place = np.zeros(count, np.uint8), 0
    while place < count:
        same = number(1)
        end = place + number(lengths[number(2)]) + 1
        if end > count:
            raise ValueError("its brush code is damaged")
        if same:
            values[place:end] = number(width)
        else:
            many = bits[at : at + width * (end - place)]
            if many.size < width * (end - place):
                raise ValueError("its brush code is cut off")
            values[place:end] = many.reshape(-1, width) @ (1 << np.arange(width)[::-1])
            at += many.size
        place = end
    return (values.reshape(*size, 4)[:, :, 3] > 127).astype(np.uint8)
