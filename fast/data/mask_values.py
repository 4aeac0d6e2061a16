"""Which values of a mask file mean defect.

Tools disagree. The rules, in this order; where none of them gives one answer, the file is refused with the question:

1. What `reading.json` names (`mask_values`, `ignore`) is obeyed; numbers mean the indices of a coloured palette.
2. Transparency: outside the opaque part is background. Where the opaque part has one colour, the drawing is the
   transparency itself: the defect is what was painted, or what was erased, whichever is the smaller part and leaves the
   picture's border free.
3. Colours, of a palette or not, are told by the colours themselves: black is background, else the colour of the border
   and of most of the picture; (224, 224, 192), VOC's "void", is ignored; all others are defects.
4. Two grey values: 0 is background and the other, whatever it is, the defect; without a 0 the border's is background.
5. Labels, flat areas of a few values: 0 is background, all others are defects. 255 (65535) beside other labels is
   "ignore" to some tools and a label to others: asked.
6. Soft edges, of antialiasing or lossy formats: values between lie beside higher ones; bright is defect, above half.
7. Neither flat nor black and white: a photograph, refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fast.data.decode import Decoded
from fast.data.mask_colours import read_colour
from fast.data.mask_greys import read_grey
from fast.data.mask_looks import MaskReading, Unclear, border_of
from fast.data.reading import NONE, Reading, Value


def interpret(decoded: Decoded, reading: Reading = NONE) -> MaskReading:
    """Read a mask by the rules above. Raises `Unclear`."""
    values, palette = decoded.values, decoded.palette
    opaque = None
    if values.ndim == 3 and values.shape[2] == 4:
        opaque = values[:, :, 3] > np.iinfo(values.dtype).max // 2
        values = values[:, :, :3]
        if opaque.all():
            opaque = None
    words = [v for v in reading.mask_values if v in ("opaque", "transparent")]
    if words:
        return _by_transparency(opaque, words)
    if palette is not None:
        if _names_indices(palette, values, reading):
            return read_grey(values, decoded.lossy, reading)
        values = palette[values]
    if values.ndim == 3 and (values == values[:, :, :1]).all():
        values = values[:, :, 0]
    if opaque is not None:
        if _one_colour(values, opaque):
            return _drawn_as_transparency(values, opaque)
        values = np.where(opaque if values.ndim == 2 else opaque[:, :, None], values, 0)
    if values.ndim == 2:
        return read_grey(values, decoded.lossy, reading)
    return read_colour(values, decoded.lossy, palette is not None, reading)


def _names_indices(palette: np.ndarray, values: np.ndarray, reading: Reading) -> bool:
    """Whether a reading means the indices of a coloured palette: it names numbers and no colours."""
    told = (*reading.mask_values, *reading.ignore)
    used = palette[np.unique(values)]
    return bool(told) and all(isinstance(v, int) for v in told) and bool((used != used[:, :1]).any())


# transparency


def _by_transparency(opaque: np.ndarray | None, words: Sequence[Value]) -> MaskReading:
    if opaque is None:
        raise Unclear(f"has no transparent part, and the defect is to be '{words[0]}'; correct reading.json")
    mask = opaque if "opaque" in words else ~opaque
    return MaskReading(mask.astype(np.uint8), "opaque, transparent", f"{words[0]} is the defect, as told")


def _one_colour(values: np.ndarray, opaque: np.ndarray) -> bool:
    drawn = values[opaque]
    return not len(drawn) or bool((drawn == drawn[0]).all())


def _drawn_as_transparency(values: np.ndarray, opaque: np.ndarray) -> MaskReading:
    drawn = values[opaque]
    seen = "one colour, opaque and transparent"
    if not len(drawn):
        return MaskReading(np.zeros(opaque.shape, np.uint8), "transparent", "all background")
    bright = int(np.max(drawn[0])) > np.iinfo(values.dtype).max // 2
    share, border = float(opaque.mean()), float(border_of(opaque).mean())
    if share <= 0.5 and (bright or border <= 0.1):
        return MaskReading(opaque.astype(np.uint8), seen, "opaque is the defect")
    if share > 0.5 and border >= 0.9 and not bright:
        return MaskReading((~opaque).astype(np.uint8), seen, "transparent is the defect")
    raise Unclear("is drawn by transparency alone; say which part is the defect with prepare_data.py --mask_values "
                  "opaque (or transparent)")  # fmt: skip
