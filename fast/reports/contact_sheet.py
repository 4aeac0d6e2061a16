"""A picture of pairs to look at: normal | mask | synthetic | difference, a row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast.data.images import read_image, read_mask, resize_image, write_image
from fast.synthesis.output import normal_shown
from fast.synthesis.records import damaged, file_of

HEADINGS = ("normal", "mask", "synthetic", "difference")


@dataclass(frozen=True)
class Row:
    """uint8 normal and synthetic (H,W,3), mask (H,W) in {0,1}, and a caption."""

    caption: str
    normal: np.ndarray
    mask: np.ndarray
    synthetic: np.ndarray

    def cells(self) -> list[np.ndarray]:
        change = np.abs(self.synthetic.astype(np.int16) - self.normal.astype(np.int16)).max(axis=2)
        # Twice the difference in grey levels, so that a faint defect shows; black is unchanged.
        difference = np.repeat(np.minimum(change * 2, 255).astype(np.uint8)[..., None], 3, axis=2)
        white = np.repeat(self.mask[..., None] * np.uint8(255), 3, axis=2)
        return [self.normal, white, self.synthetic, difference]


def read_row(output: Path, record: dict[str, Any]) -> Row:
    """A pair of a synthesis output by its manifest line, cut to the windows that were sampled; its normal image is
    resized as it was for synthesis, and that of a method that draws its own is the triptych's. Raises `UserError`."""
    try:
        return _row(output, record)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(file_of(output, record), f"the line of {record.get('image')}: {error!r}") from None


def _row(output: Path, record: dict[str, Any]) -> Row:
    synthetic = read_image(output / record["image"])
    drawn = record["normal_source"] is None
    normal = normal_shown(output, record) if drawn else read_image(record["normal_source"])
    normal = resize_image(normal, synthetic.shape[:2])
    mask = read_mask(output / record["mask"])
    top, left = (min(w[axis] for w in record["windows"]) for axis in (0, 1))
    bottom, right = (max(w[axis] + w[axis + 2] for w in record["windows"]) for axis in (0, 1))
    shown = slice(top, bottom), slice(left, right)
    return Row(record["prompt"] or record["type"], normal[shown], mask[shown], synthetic[shown])


def contact_sheet(rows: Sequence[Row], path: Path, cell: int = 160, columns: int = 2) -> Path:
    """Write rows of equal cells, `columns` of them side by side, with headings and captions."""
    gap, head, foot = 6, 26, 22
    width, height = 4 * cell + 3 * gap, cell + foot
    lines = -(-len(rows) // columns)
    margin = 3 * gap
    sheet = Image.new(
        "RGB", (columns * width + (columns + 1) * margin, head + 2 * margin + lines * (height + gap)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    bold, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for c in range(columns):
        for k, heading in enumerate(HEADINGS):
            x = margin + c * (width + margin) + k * (cell + gap) + cell // 2
            draw.text((x, margin + head // 2), heading, fill="black", font=bold, anchor="mm")
    for i, row in enumerate(rows):
        line, column = divmod(i, columns)
        x, y = margin + column * (width + margin), margin + head + line * (height + gap)
        for k, picture in enumerate(row.cells()):
            fitted = _fit(picture, cell)
            at = (x + k * (cell + gap) + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2)
            sheet.paste(fitted, at)
        draw.text((x + 2, y + cell + 3), row.caption, fill=(70, 70, 70), font=small)
    write_image(path, np.asarray(sheet))
    return path


def _fit(picture: np.ndarray, cell: int) -> Image.Image:
    """A picture (H,W,3) as large as a square of `cell` pixels takes it."""
    scale = cell / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return Image.fromarray(resize_image(picture, (height, width)))
