"""A picture of pairs to look at: normal | mask | synthetic | difference, a row each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast.data.images import read_image, read_mask, resize_image, write_image
from fast.reports.zoom import Box, zoom_box
from fast.synthesis.records import ASKED, damaged, file_of
from fast.synthesis.triptych import normal_shown
from ldm.errors import UserError

HEADINGS = ("normal", "mask", "synthetic", "difference")
TITLE = "Counterfeits: the same masks filled with normal content, labelled normal; nothing should be seen in them"
GAP, HEAD, FOOT, MARGIN = 6, 26, 22, 18  # pixels between cells, of headings, of captions, around all
AROUND = 2.0  # side of what a zoom shows, in sides of the defect's box


@dataclass(frozen=True)
class SheetRow:
    """uint8 normal and synthetic (H,W,3), mask (H,W) in {0,1}, a caption, and how often they are magnified."""

    caption: str
    normal: np.ndarray
    mask: np.ndarray
    synthetic: np.ndarray
    factor: float = 1.0

    @property
    def line(self) -> str:
        """What stands below the row."""
        return self.caption if self.factor == 1 else f"{self.caption}, {self.factor:.1f} x"

    def cells(self) -> list[np.ndarray]:
        change = np.abs(self.synthetic.astype(np.int16) - self.normal.astype(np.int16)).max(axis=2)
        # Twice the difference in grey levels, so that a faint defect shows; black is unchanged.
        difference = np.repeat(np.minimum(change * 2, 255).astype(np.uint8)[..., None], 3, axis=2)
        white = np.repeat(self.mask[..., None] * np.uint8(255), 3, axis=2)
        return [self.normal, white, self.synthetic, difference]


def read_row(output: Path, record: dict[str, Any], zoom: bool = False, mask: np.ndarray | None = None) -> SheetRow:
    """A pair of a synthesis output by its manifest line, cut to the windows that were sampled; its normal image is
    resized as it was for synthesis, and that of a method that draws its own is the triptych's. Raises `UserError`.

    `zoom`: where the defect is small, its surroundings alone. `mask` (H,W): shown in the place of the pair's own."""
    try:
        row = _row(output, record, mask)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(file_of(output, record), f"the line of {record.get('image')}: {error!r}") from None
    box = zoom_box(row.mask, AROUND) if zoom else None
    if box is None:
        return row
    top, left, bottom, right = box
    normal, mask, synthetic = (picture[top:bottom, left:right] for picture in (row.normal, row.mask, row.synthetic))
    return SheetRow(row.caption, normal, mask, synthetic, max(row.mask.shape) / (bottom - top))


def read_counterfeit(output: Path, record: dict[str, Any], pair: dict[str, Any] | None, zoom: bool = False) -> SheetRow:
    """`read_row` of a counterfeit, whose stored mask is empty: it shows where it was filled, by the mask of the `pair`
    that it is the counterfeit of. Without that, where it changed. Raises `UserError`."""
    if pair is not None and record.get("pair_seed") is not None and record["pair_seed"] == pair.get("pair_seed"):
        try:
            mask, caption = read_mask(output / pair.get(ASKED, pair["mask"])), f"of {_named(pair)}"
        except (KeyError, TypeError) as error:
            raise damaged(file_of(output, pair), f"the line of {pair.get('image')}: {error!r}") from None
    else:
        row = read_row(output, record)  # refuses a record without a mask
        mask, caption = read_mask(output / record["mask"]), "where it changed"
        top, left = _shown(record)[:2]
        changed = (row.synthetic != row.normal).any(axis=2)
        mask[top : top + changed.shape[0], left : left + changed.shape[1]] = changed
    return read_row(output, {**record, "prompt": caption}, zoom, mask)


def _row(output: Path, record: dict[str, Any], mask: np.ndarray | None) -> SheetRow:
    synthetic = read_image(output / record["image"])
    drawn = record["normal_source"] is None
    normal = normal_shown(output, record) if drawn else read_image(record["normal_source"])
    normal = resize_image(normal, synthetic.shape[:2])
    mask = read_mask(output / record["mask"]) if mask is None else mask
    top, left, bottom, right = _shown(record)
    shown = slice(top, bottom), slice(left, right)
    return SheetRow(_named(record), normal[shown], mask[shown], synthetic[shown])


def _named(record: dict[str, Any]) -> str:
    return str(record.get("prompt") or record["type"].lstrip("/"))  # "/crack" where the part has no name


def _shown(record: dict[str, Any]) -> Box:
    """The part of the picture that was sampled."""
    windows = record["windows"]
    top, left = (min(w[axis] for w in windows) for axis in (0, 1))
    return top, left, max(w[0] + w[2] for w in windows), max(w[1] + w[3] for w in windows)


def check_place(path: Path, flag: str, output: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """UserError for a sheet that would lie among the pairs of an output, or among the pictures that they stand on."""
    place = path.resolve()
    if output.resolve() in place.parents:
        raise UserError(f"{flag} {path} lies in {output}; choose a file outside that folder")
    if place.parent in {Path(source).resolve().parent for row in records if (source := row.get("normal_source"))}:
        raise UserError(f"{flag} {path} lies among the normal images and would pass for one; choose another folder")


def contact_sheet(
    rows: Sequence[SheetRow], path: Path, cell: int = 160, columns: int = 2, counterfeits: Sequence[SheetRow] = ()
) -> Path:
    """Write rows of equal cells, `columns` of them side by side, with headings and captions; those of counterfeits
    below, under a title of their own."""
    height, width = cell + FOOT + GAP, 4 * cell + 3 * GAP
    lines, more = -(-len(rows) // columns), -(-len(counterfeits) // columns)
    title = 2 * HEAD if counterfeits else 0
    size = (columns * (width + MARGIN) + MARGIN, HEAD + 2 * MARGIN + (lines + more) * height + title)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    bold = ImageFont.load_default(15)
    for c in range(columns):
        for k, heading in enumerate(HEADINGS):
            x = MARGIN + c * (width + MARGIN) + k * (cell + GAP) + cell // 2
            draw.text((x, MARGIN + HEAD // 2), heading, fill="black", font=bold, anchor="mm")
    below = MARGIN + HEAD + lines * height
    if counterfeits:
        draw.text((MARGIN, below + title // 2), TITLE, fill="black", font=bold, anchor="lm")
    for place, part in ((MARGIN + HEAD, rows), (below + title, counterfeits)):
        for i, row in enumerate(part):
            line, column = divmod(i, columns)
            _draw_cells(sheet, row.cells(), row.line, (MARGIN + column * (width + MARGIN), place + line * height), cell)
    write_image(path, np.asarray(sheet))
    return path


def side_by_side(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]], path: Path, cell: int = 240, columns: int = 2
) -> Path:
    """Write rows of pictures (H,W,3) next to each other, `columns` rows side by side, each picture over its caption; of
    one that is too long the end is shown."""
    width = max(map(len, rows)) * (cell + GAP) - GAP
    height, lines = cell + FOOT + GAP, -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * (width + MARGIN) + MARGIN, 2 * MARGIN + lines * height), "white")
    for i, row in enumerate(rows):
        line, column = divmod(i, columns)
        for k, (caption, picture) in enumerate(row):
            at = MARGIN + column * (width + MARGIN) + k * (cell + GAP), MARGIN + line * height
            _draw_cells(sheet, [picture], caption, at, cell, cell)
    write_image(path, np.asarray(sheet))
    return path


def _draw_cells(
    sheet: Image.Image,
    pictures: Sequence[np.ndarray],
    caption: str,
    at: tuple[int, int],
    cell: int,
    width: int | None = None,
) -> None:
    """Pictures in a row of cells over a caption, of which as much is shown from its end as `width` pixels take."""
    x, y = at
    for k, picture in enumerate(pictures):
        shown = Image.fromarray(fitted(picture, cell))
        left = x + k * (cell + GAP) + (cell - shown.width) // 2
        sheet.paste(shown, (left, y + (cell - shown.height) // 2))
    small, draw = ImageFont.load_default(12), ImageDraw.Draw(sheet)
    end, text = caption, caption
    while width is not None and end and draw.textlength(text, small) > width:
        end = end[1:]
        text = f"...{end}"
    draw.text((x + 2, y + cell + 3), text, fill=(70, 70, 70), font=small)


def fitted(picture: np.ndarray, cell: int) -> np.ndarray:
    """A picture (H,W,3) as large as a square of `cell` pixels takes it."""
    scale = cell / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return resize_image(picture, (height, width))
