"""Masks told by their colours: rule 3 of `fast.data.mask_values`."""

from __future__ import annotations

import numpy as np

from fast.data.mask_looks import (
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
from fast.data.reading import Reading

VOID = (224, 224, 192)
COLOURS = 64  # more different colours are shades


def read_colour(values: np.ndarray, lossy: bool, indexed: bool, reading: Reading) -> MaskReading:
    eight = values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8)
    codes = eight.astype(np.int32) @ np.array([65536, 256, 1])
    used, counts = count(codes)
    told = {int(v[1:], 16) for v in reading.mask_values if isinstance(v, str)}
    ignored = {int(v[1:], 16) for v in reading.ignore if isinstance(v, str)}
    names = named(used, colours=True)
    if told:
        mask, skip = np.isin(codes, list(told)), np.isin(codes, list(ignored))
        taken = f"{named(sorted(told), True)}: defect, as told"
        return MaskReading(mask.astype(np.uint8), names, taken, skip if skip.any() else None)
    if reading.mask_values and not lossy:
        raise Unclear(f"has the colours {names}, not the values told; {SET} (colours, #rrggbb)")
    refuse_photograph(codes, least=16)  # int32: numbers of colours, which have no middle
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
    shades = count(away)[0]
    apart = indexed and not _are_shades(kept, ground)
    void = skip if skip.any() else None
    if few and (len(shades) <= 2 or apart or soft_share(away) < SOFT):
        return MaskReading((away > 0).astype(np.uint8), names, _but(ground, ignored), void)
    refuse_photograph(away)
    return MaskReading((away > half(away)).astype(np.uint8), "shades of colour", _but(ground, ignored), void)


def _ground(codes: np.ndarray, kept: list[int], counts: np.ndarray, eight: np.ndarray, few: bool) -> int:
    """Colour of the background."""
    if 0 in kept or not kept:
        return 0
    border = border_of(codes)
    if few:
        common = kept[int(np.argmax(counts))]
        if float((codes == common).mean()) > 0.5 and float((border == common).mean()) >= 0.9:
            return common
        if len(kept) == 1:  # one colour over the picture is no background
            return 0
        raise Unclear(f"has the colours {named(kept, True)} and no black; which are defects? {SET} (#rrggbb)")
    middle = np.median(border_of(eight).reshape(-1, 3), axis=0).astype(int)
    near = np.abs(border_of(eight).reshape(-1, 3) - middle).max(axis=1) <= 32
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
    void = f", {named(sorted(ignored), True)} ignored" if ignored else ""
    return f"all but {named([ground], True)} is defect{void}"
