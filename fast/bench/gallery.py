"""Pictures side by side, as the papers compare methods, samplers, steps and modules: FAST's Fig. 3, 4, 6, 7.

A line is a pair of a defect type: normal picture, mask, and what each label (a method, a sampler, a number of steps)
made of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast.data.images import resize_image, resize_mask
from fast.reports.contact_sheet import SheetRow, read_row
from fast.reports.zoom import Box, zoom_box
from fast.synthesis.records import read_records
from ldm.errors import UserError

GAP, MARGIN, PAD = 6, 12, 5  # pixels between cells, around all, around words
FRAME = (230, 159, 0)  # orange
INK, SOFT = (26, 31, 36), (90, 100, 110)


@dataclass(frozen=True)
class GalleryImage:
    """uint8 (H,W,3). `mask`: its own (H,W) in {0,1}, where it is not that of its line."""

    pixels: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Line:
    """A row of a grid: normal (H,W,3), mask (H,W) in {0,1}, and by label a picture; None for none there."""

    heading: str
    normal: np.ndarray
    mask: np.ndarray
    pictures: Mapping[str, GalleryImage | None]


def read_lines(outputs: Mapping[str, Path], *, types: Sequence[str] | None = None, per_type: int = 1) -> list[Line]:
    """The first `per_type` pairs of each type (default: every type of the first output), from outputs by label.

    Pairs of one index that were made of the same normal picture and mask stand side by side. A label that made its
    own gets its first pair of the type, with its mask. Nothing is chosen by its looks.
    Raises `UserError` for a folder that is no synthesis output, and for types that there are none of.
    """
    records = {label: _records(Path(folder)) for label, folder in outputs.items()}
    if not records:
        raise UserError("a gallery needs at least one synthesis output; give one by its label")
    # The first that was given pictures shows the line's normal picture and mask; its types are the lines'.
    leader = next((k for k, rows in records.items() if rows[0]["normal_source"] is not None), next(iter(records)))
    known = dict.fromkeys(record["type"] for record in records[leader])
    missing = [name for name in types or () if name not in known]
    if missing:
        raise UserError(f"{outputs[leader]} has no pairs of {', '.join(missing)}; it has {', '.join(known)}")
    lines = []
    for name in types or sorted(known):
        for nth, record in enumerate([r for r in records[leader] if r["type"] == name][:per_type]):
            first = _read(Path(outputs[leader]), record)
            pictures = {
                label: _matching(Path(outputs[label]), rows, record, nth, first.mask) for label, rows in records.items()
            }
            lines.append(Line(name.rpartition("/")[2], first.normal, first.mask, pictures))
    return lines


def _records(folder: Path) -> list[dict[str, Any]]:
    rows = read_records(folder)
    if not rows:
        raise UserError(f"{folder} holds no pairs; make some, or leave it out")
    return rows


def _read(folder: Path, record: dict[str, Any]) -> SheetRow:
    """A whole pair, whatever windows were sampled, so that those of several runs fit each other."""
    if record["normal_source"] is None:
        return read_row(folder, record)
    with Image.open(folder / record["image"]) as image:
        width, height = image.size
    return read_row(folder, {**record, "windows": [[0, 0, height, width]]})


def _matching(
    folder: Path, rows: list[dict[str, Any]], record: dict[str, Any], nth: int, mask: np.ndarray
) -> GalleryImage | None:
    """What was made of the same normal picture and mask; else the `nth` pair of the type, with its own mask."""
    same = ("index", "type", "normal_source")
    for row in rows:
        if row["normal_source"] is not None and all(row[key] == record[key] for key in same):
            found = _read(folder, row)
            if found.mask.shape != mask.shape:
                return GalleryImage(found.synthetic)
            return GalleryImage(found.synthetic, None if np.array_equal(found.mask, mask) else found.mask)
    of_type = [row for row in rows if row["type"] == record["type"]]
    if nth >= len(of_type):
        return None
    found = _read(folder, of_type[nth])
    return GalleryImage(found.synthetic, found.mask)


def grid(lines: Sequence[Line], *, cell: int = 160, zoom: bool = True, note: str = "") -> np.ndarray:
    """A picture (H,W,3) uint8 of the lines, a square of `cell` pixels for each picture, with headings and words.

    `zoom`: where a defect is small and a corner of the cell is free of it, that corner shows the defect's surroundings
    magnified, framed in orange as is what it shows. A label with masks of its own is marked * and its cells show them
    in a corner. Raises `UserError` for no lines.
    """
    if not lines:
        raise UserError("a gallery needs at least one line; give a type that has pairs")
    labels = list(dict.fromkeys(label for line in lines for label in line.pictures))
    own = [label for label in labels if any((p := line.pictures.get(label)) and p.mask is not None for line in lines)]
    heads = ["normal", "mask", *(label + " *" * (label in own) for label in labels)]
    notes = [
        *filter(None, [note]),
        *(["* not made with this mask but with its own, shown in the corner"] if own else []),
    ]
    bold, small = ImageFont.load_default(_points(cell)), ImageFont.load_default(max(11, _points(cell) - 2))
    words = [_wrapped(head, bold, cell) for head in heads]
    high = max(map(len, words)) * _height(bold) + 2 * PAD
    side = max(round(bold.getlength(line.heading)) for line in lines) + 2 * PAD
    width = 2 * MARGIN + side + len(heads) * (cell + GAP) - GAP
    foot = [part for text in notes for part in _wrapped(text, small, width - 2 * MARGIN)]
    height = 2 * MARGIN + high + len(lines) * (cell + GAP) - GAP + (len(foot) * _height(small) + GAP) * bool(foot)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, parts in enumerate(words):
        x, y = origin(column, 0, cell, side, high)
        for k, part in enumerate(reversed(parts)):
            draw.text((x + cell // 2, y - PAD - k * _height(bold)), part, fill=INK, font=bold, anchor="ms")
    for i, line in enumerate(lines):
        draw.text(
            (MARGIN, origin(0, i, cell, side, high)[1] + cell // 2), line.heading, fill=INK, font=bold, anchor="lm"
        )
        for column, tile in enumerate(_tiles(line, labels, cell, zoom)):
            if tile is not None:
                sheet.paste(tile, origin(column, i, cell, side, high))
    for k, part in enumerate(foot):
        y = height - MARGIN - (len(foot) - k) * _height(small)
        draw.text((MARGIN, y), part, fill=SOFT, font=small, anchor="la")
    return np.asarray(sheet)


def origin(column: int, row: int, cell: int, side: int, high: int) -> tuple[int, int]:
    """x, y of a cell's left upper corner; `side`, `high`: room for the lines' headings and for those above."""
    return MARGIN + side + column * (cell + GAP), MARGIN + high + row * (cell + GAP)


def _tiles(line: Line, labels: Sequence[str], cell: int, zoom: bool) -> list[Image.Image | None]:
    white = np.repeat((line.mask != 0)[..., None] * np.uint8(255), 3, axis=2)
    shown: list[Image.Image | None] = [_tile(line.normal, line.mask, cell, zoom), _tile(white, line.mask, cell, zoom)]
    for label in labels:
        picture = line.pictures.get(label)
        if picture is None:
            shown.append(None)
        elif picture.mask is None:
            shown.append(_tile(picture.pixels, line.mask, cell, zoom))
        else:
            shown.append(_with_mask(picture.pixels, picture.mask, cell))
    return shown


def _tile(picture: np.ndarray, mask: np.ndarray, cell: int, zoom: bool) -> Image.Image:
    """A square of `cell` pixels with the picture in its middle and, in a corner, the zoom on its defect."""
    tile, (top, left, height, width) = _fit(picture, cell)
    box = zoom_box(mask) if zoom else None
    if box is None:
        return tile
    inset = cell // 2
    scale = height / mask.shape[0], width / mask.shape[1]
    corner = free_corner(mask, inset / height, inset / width)
    if corner is None or inset / (box[2] - box[0]) < 1.25 * scale[0]:  # it would magnify hardly anything
        return tile
    ratio = picture.shape[0] / mask.shape[0], picture.shape[1] / mask.shape[1]
    t, l, b, r = (round(v * ratio[k % 2]) for k, v in enumerate(box))
    near = Image.fromarray(np.ascontiguousarray(picture[t:b, l:r])).resize((inset, inset), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(tile)
    t, l, b, r = (round(v * scale[k % 2]) for k, v in enumerate(box))
    draw.rectangle((left + l, top + t, left + r - 1, top + b - 1), outline=FRAME)
    y, x = top + corner[0] * (height - inset), left + corner[1] * (width - inset)
    tile.paste(near, (x, y))
    draw.rectangle((x, y, x + inset - 1, y + inset - 1), outline=FRAME, width=2)
    return tile


def _with_mask(picture: np.ndarray, mask: np.ndarray, cell: int) -> Image.Image:
    """The picture with its own mask, small, in the corner that hides least of the defect."""
    tile, (top, left, height, width) = _fit(picture, cell)
    inset = max(1, round(0.3 * height)), max(1, round(0.3 * width))
    share = 0.3
    corner = min(_CORNERS, key=lambda c: int(np.count_nonzero(mask[_part(mask, c, share, share)])))
    white = Image.fromarray(resize_mask(mask, inset) * np.uint8(255)).convert("RGB")
    y, x = top + corner[0] * (height - inset[0]), left + corner[1] * (width - inset[1])
    tile.paste(white, (x, y))
    ImageDraw.Draw(tile).rectangle((x, y, x + inset[1] - 1, y + inset[0] - 1), outline=FRAME, width=1)
    return tile


_CORNERS = ((1, 1), (0, 1), (1, 0), (0, 0))  # (bottom, right): right below first


def free_corner(mask: np.ndarray, high: float, wide: float) -> tuple[int, int] | None:
    """(bottom, right), each 0 or 1, of a corner with those shares of the height and width that hides no defect."""
    return next((c for c in _CORNERS if not mask[_part(mask, c, high, wide)].any()), None)


def _part(mask: np.ndarray, corner: tuple[int, int], high: float, wide: float) -> tuple[slice, slice]:
    sides = []
    for end, share, length in zip(corner, (high, wide), mask.shape, strict=True):
        size = min(length, int(np.ceil(share * length)))
        sides.append(slice(length - size, length) if end else slice(0, size))
    return sides[0], sides[1]


def _fit(picture: np.ndarray, cell: int) -> tuple[Image.Image, Box]:
    """The picture (H,W,3), as large as a square takes it, in its middle; and its top, left, height and width there."""
    scale = cell / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    top, left = (cell - height) // 2, (cell - width) // 2
    tile = Image.new("RGB", (cell, cell), "white")
    tile.paste(Image.fromarray(resize_image(picture, (height, width))), (left, top))
    return tile, (top, left, height, width)


def _points(cell: int) -> int:
    return max(12, min(22, cell // 11))


def _height(font: Any) -> int:
    return sum(font.getmetrics())


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a word that is wider is cut."""
    lines: list[str] = []
    rest = text
    while rest:
        end = len(rest)
        while end > 1 and font.getlength(rest[:end]) > width:
            end -= 1
        space = rest.rfind(" ", 0, end + 1) if end < len(rest) else -1
        lines.append(rest[: space if space > 0 else end].strip())
        rest = rest[space if space > 0 else end :].strip()
    return lines or [""]
