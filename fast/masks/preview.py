"""Masks over pictures, to look at before anything is synthesized."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast.data.images import resize_image, resize_mask

DEFECT, OBJECT = (255, 40, 40), (60, 210, 255)  # RGB
TINT = 0.4  # opacity of the defect's colour
EVERYTHING = "everything"  # said of an image that is taken whole for the object
SMALL = 12  # px; a defect below this is ringed
GAP, FOOT = 8, 18


def overlay(image: np.ndarray, mask: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """A picture (H,W,3) uint8 with its mask (H,W), nonzero = defect, tinted and outlined, small ones ringed, and with
    the outline of the object's region (H,W): (H,W,3) uint8. Nothing below a defect's own pixels is hidden."""
    out = image.copy()
    found = (mask != 0).astype(np.uint8)
    tinted = out[found == 1] * (1 - TINT) + np.array(DEFECT) * TINT
    out[found == 1] = np.rint(tinted).astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    if region is not None and not region.all():
        ground = (region != 0).astype(np.uint8)
        out[(ground == 1) & (cv2.erode(ground, square) == 0) & (found == 0)] = OBJECT
    # Around the defect, not on it: of a hairline nothing would be left to see.
    out[(found == 0) & (cv2.dilate(found, square) == 1)] = DEFECT
    # Each in its own ring only where it stands alone: a swarm of specks is seen without.
    count, labels = cv2.connectedComponents(cv2.dilate(found, np.ones((SMALL + 1, SMALL + 1), np.uint8)))
    for i in range(1, count):
        left, top, wide, high = cv2.boundingRect(((labels == i) & (found == 1)).astype(np.uint8))
        if max(wide, high) < SMALL:
            cv2.circle(out, (left + wide // 2, top + high // 2), SMALL, DEFECT, 1, cv2.LINE_AA)
    return out


def cell(image: np.ndarray, mask: np.ndarray, region: np.ndarray | None, side: int) -> np.ndarray:
    """`overlay` of a picture shrunk or grown to `side` px on its longer side, so that outlines stay a pixel wide; with
    the word "everything" where the object's region is the whole image."""
    factor = side / max(image.shape[:2])
    size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    small = None if region is None else 1 - resize_mask(1 - (region != 0), size)
    shown = overlay(resize_image(image, size), resize_mask(mask, size), small)
    return labelled(shown, EVERYTHING) if region is not None and region.all() else shown


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    """An image (H,W,3) uint8 with a word in its corner, light on dark."""
    sheet, font = Image.fromarray(image), ImageFont.load_default(12)
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = draw.textbbox((5, 3), text, font=font)
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=(20, 20, 20))
    draw.text((5, 3), text, fill=OBJECT, font=font)
    return np.asarray(sheet)


def preview_sheet(cells: Sequence[tuple[str, np.ndarray]], columns: int = 6) -> np.ndarray:
    """Captioned pictures (h,w,3) uint8 in a grid of `columns`, as one picture (H,W,3) uint8 on white."""
    width = max(picture.shape[1] for _, picture in cells)
    height = max(picture.shape[0] for _, picture in cells)
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * (height + FOOT + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for i, (caption, picture) in enumerate(cells):
        row, column = divmod(i, columns)
        x, y = GAP + column * (width + GAP), GAP + row * (height + FOOT + GAP)
        sheet.paste(Image.fromarray(picture), (x + (width - picture.shape[1]) // 2, y + height - picture.shape[0]))
        # A long name would run into its neighbour.
        while caption and draw.textlength(caption, font=font) > width:
            caption = caption[:-1]
        draw.text((x, y + height + 2), caption, fill=(70, 70, 70), font=font)
    return np.asarray(sheet)
