"""Which values of a mask file mean defect.

Tools disagree. The rules, in this order; where none of them gives one answer, the file is refused with the question:

1. What `reading.json` names (`mask_values`, `ignore`) is obeyed.
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
from dataclasses import dataclass

import cv2
import numpy as np

from fast.data.decode import Decoded
from fast.data.reading import NONE, Reading, Value

LABELS = 31  # values up to this are label ids, whatever they look like
VOID = (224, 224, 192)
COLOURS = 64  # more different colours are shades
SOFT, FLAT = 0.6, 0.35  # shares of in-between pixels beside higher ones, from and up to which edges are soft or flat
TESTED = 256  # pixels from which on a photograph can be told
SET = "say what the defect is with prepare_data.py --mask_values"


class Unclear(Exception):
    """A mask that can be read in two ways, or in none; the message says why, and what settles it."""


@dataclass(frozen=True)
class MaskReading:
    """`mask` (H,W) uint8 in {0,1}; `values`: those seen, and `taken`: what they were taken for, in words."""

    mask: np.ndarray
    values: str
    taken: str


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
        values = palette[values]
    if values.ndim == 3 and (values == values[:, :, :1]).all():
        values = values[:, :, 0]
    if opaque is not None:
        if _one_colour(values, opaque):
            return _drawn_as_transparency(values, opaque)
        values = np.where(opaque if values.ndim == 2 else opaque[:, :, None], values, 0)
    if values.ndim == 2:
        return _grey(values, decoded.lossy, reading)
    return _colour(values, decoded.lossy, palette is not None, reading)


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
    share, border = float(opaque.mean()), float(_border(opaque).mean())
    if share <= 0.5 and (bright or border <= 0.1):
        return MaskReading(opaque.astype(np.uint8), seen, "opaque is the defect")
    if share > 0.5 and border >= 0.9 and not bright:
        return MaskReading((~opaque).astype(np.uint8), seen, "transparent is the defect")
    raise Unclear("is drawn by transparency alone; say which part is the defect with prepare_data.py --mask_values "
                  "opaque (or transparent)")  # fmt: skip


# colours


def _colour(values: np.ndarray, lossy: bool, indexed: bool, reading: Reading) -> MaskReading:
    eight = values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
    codes = eight.astype(np.int32) @ np.array([65536, 256, 1])
    used, counts = _count(codes)
    told = {int(v[1:], 16) for v in reading.mask_values if isinstance(v, str)}
    ignored = {int(v[1:], 16) for v in reading.ignore if isinstance(v, str)}
    names = _named(used, colours=True)
    if told:
        mask = np.isin(codes, list(told))
        return MaskReading(mask.astype(np.uint8), names, f"{_named(sorted(told), True)}: defect, as told")
    _refuse_photograph(codes, least=16)  # int32: numbers of colours, which have no middle
    few = len(used) <= COLOURS and not lossy
    if few:
        ignored |= {(VOID[0] << 16) + (VOID[1] << 8) + VOID[2]} & set(used.tolist())
    kept = [int(c) for c in used if c not in ignored]
    ground = _ground(codes, kept, counts[np.isin(used, kept)], eight, few)
    skip = np.isin(codes, list(ignored))
    away = np.abs(eight.astype(np.int16) - np.array(_rgb(ground))).max(axis=2).astype(np.uint8)
    away[skip] = 0
    if few and 0xFFFFFF in kept and ground == 0 and len(kept) > 2:
        raise Unclear(f"has black, white and other colours ({names}); is white a defect? {SET} (colours, #rrggbb)")
    shades = _count(away)[0]
    apart = indexed and not _are_shades(kept, ground)
    if few and (len(shades) <= 2 or apart or _soft_share(away) < SOFT):
        return MaskReading((away > 0).astype(np.uint8), names, _but(ground, ignored))
    _refuse_photograph(away)
    return MaskReading((away > _half(away)).astype(np.uint8), "shades of colour", _but(ground, ignored))


def _ground(codes: np.ndarray, kept: list[int], counts: np.ndarray, eight: np.ndarray, few: bool) -> int:
    """Colour of the background."""
    if 0 in kept or not kept:
        return 0
    border = _border(codes)
    if few:
        common = kept[int(np.argmax(counts))]
        if float((codes == common).mean()) > 0.5 and float((border == common).mean()) >= 0.9:
            return common
        if len(kept) == 1:  # one colour over the picture is no background
            return 0
        raise Unclear(f"has the colours {_named(kept, True)} and no black; which are defects? {SET} (#rrggbb)")
    middle = np.median(_border(eight).reshape(-1, 3), axis=0).astype(int)
    near = np.abs(_border(eight).reshape(-1, 3) - middle).max(axis=1) <= 32
    return int(middle @ np.array([65536, 256, 1])) if near.mean() >= 0.9 and middle.max() > 32 else 0


def _are_shades(kept: list[int], ground: int) -> bool:
    """True where all colours lie between the background's and one other, as antialiasing makes them."""
    colours = np.array([_rgb(c) for c in kept], float) - _rgb(ground)
    farthest = colours[np.argmax(np.linalg.norm(colours, axis=1))]
    along = colours @ farthest / max(1.0, float(farthest @ farthest))
    return bool(np.abs(colours - along[:, None] * farthest).max() <= 12)


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _but(ground: int, ignored: set[int]) -> str:
    void = f", {_named(sorted(ignored), True)} ignored" if ignored else ""
    return f"all but {_named([ground], True)} is defect{void}"


# grey levels and labels


def _grey(values: np.ndarray, lossy: bool, reading: Reading) -> MaskReading:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Unclear("holds values that are no numbers; save it with 8 or 16 bits")
        if values.max(initial=0) <= 1 and values.min(initial=0) >= 0:
            values = np.rint(values * 255).astype(np.uint8)
        elif (values == np.rint(values)).all() and np.abs(values).max() < 2**31:
            values = values.astype(np.int32)
        else:
            raise Unclear("holds fractions above 1, which are no labels; save it with 8 or 16 bits")
    used = _count(values)[0]
    seen = _named(used)
    told = {v for v in reading.mask_values if isinstance(v, int)}
    ignored = {v for v in reading.ignore if isinstance(v, int)} & set(used.tolist())
    if ignored:
        values = np.where(np.isin(values, list(ignored)), 0, values)
        used = _count(values)[0]
    void = f", {_named(sorted(ignored))} ignored" if ignored else ""
    if told:
        return _told(values, used, told, lossy, seen, void)
    if len(used) and used[0] < 0:
        raise Unclear(
            f"holds the negative value {used[0]}; if it means 'ignore', say prepare_data.py --ignore={used[0]}"
        )
    if len(used) <= 2:
        mask, taken = _two(values, [int(v) for v in used], bool(ignored))
        return MaskReading(mask, seen, taken + void)
    soft = _is_soft(values, used, lossy, bool(ignored))
    if not soft:
        return MaskReading((values > 0).astype(np.uint8), seen, f"labels: all but 0 are defects{void}")
    _refuse_photograph(values)
    limit = _half(values)
    return MaskReading((values > limit).astype(np.uint8), f"{used[0]}..{used[-1]}", f"above {limit} is defect{void}")


def _told(values: np.ndarray, used: np.ndarray, told: set[int], lossy: bool, seen: str, void: str) -> MaskReading:
    """The defect's values are known; soft edges belong to the nearer end."""
    taken = f"{_named(sorted(told))}: defect, as told{void}"
    ends = {int(used[0]), int(used[-1])}
    if len(used) > 2 and told <= ends and (lossy or _soft_share(values) >= SOFT):
        bright = values > _half(values)
        return MaskReading((bright if int(used[-1]) in told else ~bright).astype(np.uint8), seen, taken)
    if lossy and len(used) > 2:
        raise Unclear(f"is of a lossy format, which keeps no labels; the defect's value may be {used[0]} or {used[-1]}")
    return MaskReading(np.isin(values, list(told)).astype(np.uint8), seen, taken)


def _two(values: np.ndarray, used: list[int], without_ignored: bool) -> tuple[np.ndarray, str]:
    if used in ([], [0]):
        return np.zeros(values.shape, np.uint8), "all background"
    if len(used) == 1:
        return np.ones(values.shape, np.uint8), f"{used[0]} is the defect"
    low, high = used
    if low == 0:
        return (values == high).astype(np.uint8), f"{high} is the defect"
    if low <= LABELS and high in (255, 65535) and not without_ignored:
        raise Unclear(f"has the values {low}, {high} and no 0; is {high} a defect or ignored? say prepare_data.py "
                      f"--mask_values {high} or --ignore {high}")  # fmt: skip
    border = _border(values)
    for ground, other in ((low, high), (high, low)):
        if float((border == ground).mean()) >= 0.9 and float((values == ground).mean()) > 0.5:
            return (values == other).astype(np.uint8), f"{other} is the defect, {ground} the border's"
    raise Unclear(f"has the values {low}, {high} and no 0; {SET} {high} (or {low})")


def _is_soft(values: np.ndarray, used: np.ndarray, lossy: bool, without_ignored: bool) -> bool:
    """True for grey shades, False for labels. Raises `Unclear` where it may be either."""
    top = int(used[-1])
    if lossy:
        return True
    if top <= LABELS:
        _refuse_photograph(values, least=8)
        _needs_zero(used)
        return False
    between = used[(used > 0) & (used < top)]
    full = top in (255, 65535)
    if full and not without_ignored and (between <= LABELS).all():
        raise _ask_about(top, used)
    share = _soft_share(values)
    if share >= SOFT and top >= 128:
        return True
    if share > FLAT or (share >= SOFT and len(used) > 16):
        _refuse_photograph(values)
        raise Unclear(f"has the values {_named(used)}, labels or shades; {SET} VALUE,VALUE,...")
    if full:
        raise _ask_about(top, used)
    _needs_zero(used)
    _refuse_photograph(values)
    return False


def _needs_zero(used: np.ndarray) -> None:
    if used[0] != 0:
        raise Unclear(f"has the labels {_named(used)} and no 0 for the background; {SET} VALUE,VALUE,...")


def _ask_about(top: int, used: np.ndarray) -> Unclear:
    rest = [int(v) for v in used if v not in (0, top)]
    shown = ",".join(map(str, rest)) if len(rest) <= 6 else "VALUE,VALUE,..."
    return Unclear(f"has the labels {_named(used)}; is {top} a defect or ignored? say prepare_data.py --ignore {top}, "
                   f"or --mask_values {shown},{top}")  # fmt: skip


def _soft_share(values: np.ndarray) -> float:
    """Share of the pixels between lowest and highest value that touch a higher one: edges do, labels' areas do not."""
    plain = values.astype(np.float32)
    between = (plain > plain.min()) & (plain < plain.max())
    if not between.any():
        return 0.0
    higher = cv2.dilate(plain, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) > plain
    return float(higher[between].mean())


def _half(values: np.ndarray) -> int:
    top = int(values.max())
    full = 255 if top <= 255 else 65535
    return 127 * (full // 255) if top > 0.75 * full else top // 2


def _refuse_photograph(values: np.ndarray, least: int = 32) -> None:
    """Raise `Unclear` for grey values, or numbers of colours, that are neither flat nor dark and bright."""
    used, counts = _count(values)
    if values.size < TESTED or len(used) < least:
        return
    flat = float(np.sort(counts)[-2:].sum()) / values.size
    same = np.concatenate([(values[1:] == values[:-1]).ravel(), (values[:, 1:] == values[:, :-1]).ravel()])
    if flat < 0.4 or float(same.mean()) < 0.5 or (values.dtype != np.int32 and _is_shaded(values, float(used[-1]))):
        raise Unclear("looks like a photograph, not like a mask; give the mask, in which defects differ from the rest")


def _is_shaded(values: np.ndarray, top: float) -> bool:
    """True where much is neither dark nor bright, or where areas, away from their edges, are not bright."""
    above, below = values > 0.25 * top, values < 0.75 * top
    inner = cv2.erode(above.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return float((above & below).mean()) > 0.3 or (float(inner.mean()) > 0.02 and float(below[inner].mean()) > 0.3)


def _count(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur, and how often."""
    if values.dtype not in (np.uint8, np.uint16):
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.ravel())
    used = np.flatnonzero(counts)
    return used, counts[used]


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _named(used: np.ndarray | Sequence[int], colours: bool = False) -> str:
    """Values in words, the first and the last where they are many."""
    words = [f"#{int(v):06x}" if colours else str(int(v)) for v in used]
    return ", ".join(words if len(words) <= 8 else [*words[:4], "...", words[-1]])
