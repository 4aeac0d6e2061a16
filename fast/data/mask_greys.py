"""Masks of grey levels, label ids or fractions: rules 4 to 7 of `fast.data.mask_values`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fast.data.mask_looks import (
    FLAT,
    SET,
    SOFT,
    MaskReading,
    Unclear,
    border_of,
    count,
    half,
    named,
    refuse_photograph,
    soft_share,
)
from fast.data.reading import Reading, Value

LABELS = 31  # values up to this are label ids, whatever they look like


def read_grey(values: np.ndarray, lossy: bool, reading: Reading) -> MaskReading:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise Unclear("holds values that are no numbers; save it with 8 or 16 bits")
        if values.max(initial=0) <= 1 and values.min(initial=0) >= 0:
            values = np.rint(values * 255).astype(np.uint8)
        elif (values == np.rint(values)).all() and np.abs(values).max() < 2**31:
            values = values.astype(np.int32)
        else:
            raise Unclear("holds fractions above 1, which are no labels; save it with 8 or 16 bits")
    used = count(values)[0]
    seen = named(used)
    ignored = _greys(reading.ignore, values) & set(used.tolist())
    if not ignored:
        return _decided(values, used, seen, lossy, reading, "")
    skip = np.isin(values, list(ignored))
    values = np.where(skip, 0, values)
    void = f", {named(sorted(ignored))} ignored"
    return replace(_decided(values, count(values)[0], seen, lossy, reading, void), ignored=skip)


def _greys(told: Sequence[Value], values: np.ndarray) -> set[int]:
    """The grey levels among values of a reading, grey colours too."""
    scale = 257 if values.dtype == np.uint16 else 1
    colours = [v[1:] for v in told if isinstance(v, str) and v.startswith("#") and v[1:3] == v[3:5] == v[5:7]]
    return {v for v in told if isinstance(v, int)} | {int(v[:2], 16) * scale for v in colours}


def _decided(values: np.ndarray, used: np.ndarray, seen: str, lossy: bool, reading: Reading, void: str) -> MaskReading:
    """Read what is left after the ignored values, which are 0 here; `void` names them."""
    if reading.mask_values:
        return _told(values, used, _greys(reading.mask_values, values), lossy, seen, void)
    if len(used) and used[0] < 0:
        raise Unclear(
            f"holds the negative value {used[0]}; if it means 'ignore', say prepare_data.py --ignore={used[0]}"
        )
    if len(used) <= 2:
        mask, taken = _two(values, [int(v) for v in used], bool(void))
        return MaskReading(mask, seen, taken + void)
    soft = _is_soft(values, used, lossy, bool(void))
    if not soft:
        return MaskReading((values > 0).astype(np.uint8), seen, f"labels: all but 0 are defects{void}")
    refuse_photograph(values)
    limit = half(values)
    return MaskReading((values > limit).astype(np.uint8), f"{used[0]}..{used[-1]}", f"above {limit} is defect{void}")


def _told(values: np.ndarray, used: np.ndarray, told: set[int], lossy: bool, seen: str, void: str) -> MaskReading:
    """The defect's values are known; soft edges belong to the nearer end."""
    taken = f"{named(sorted(told))}: defect, as told{void}" if told else f"no defect of the colours told{void}"
    ends = {int(used[0]), int(used[-1])}
    if len(used) > 2 and told and told <= ends and (lossy or soft_share(values) >= SOFT):
        bright = values > half(values)
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
    border = border_of(values)
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
        refuse_photograph(values, least=8)
        _needs_zero(used)
        return False
    between = used[(used > 0) & (used < top)]
    full = top in (255, 65535)
    if full and not without_ignored and (between <= LABELS).all():
        raise _ask_about(top, used)
    share = soft_share(values)
    if share >= SOFT and top >= 128:
        return True
    if share > FLAT or (share >= SOFT and len(used) > 16):
        refuse_photograph(values)
        raise Unclear(f"has the values {named(used)}, labels or shades; {SET} VALUE,VALUE,...")
    if full:
        raise _ask_about(top, used)
    _needs_zero(used)
    refuse_photograph(values)
    return False


def _needs_zero(used: np.ndarray) -> None:
    if used[0] != 0:
        raise Unclear(f"has the labels {named(used)} and no 0 for the background; {SET} VALUE,VALUE,...")


def _ask_about(top: int, used: np.ndarray) -> Unclear:
    rest = [int(v) for v in used if v not in (0, top)]
    shown = ",".join(map(str, rest)) if len(rest) <= 6 else "VALUE,VALUE,..."
    return Unclear(f"has the labels {named(used)}; is {top} a defect or ignored? say prepare_data.py --ignore {top}, "
                   f"or --mask_values {shown},{top}")  # fmt: skip
