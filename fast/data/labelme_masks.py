"""LabelMe's shapes drawn as masks, by the rules of the tool itself."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fast.data.labelme import BACKGROUND, IGNORE, Annotation, Shape, is_any
from fast.data.mask_looks import IGNORED
from ldm.errors import UserError

POLYGONS = ("polygon", "rotation", "quadrilateral", "oriented_rectangle")
WITHOUT_AREA = ("line", "linestrip", "point", "points")
SHAPES = (*POLYGONS, "rectangle", "circle", "mask", *WITHOUT_AREA)
ROUNDED = 2  # pixels that a shape may reach beyond its image without a word
LARGEST = 1 << 30  # pixels of a mask whose image is not there to compare with


def draw_labels(annotation: Annotation, size: tuple[int, int] | None, line_width: float | None = None) -> np.ndarray:
    """Draw all shapes of an annotation as one map (H,W) uint8: 0 background, 1 defect, `IGNORED` (255) neither.

    Shapes are drawn in their order with their edges, so that the thinnest has pixels. Those of one label and group id
    are an object, and are drawn together when the last of them comes. There are three ways to make a hole: a polygon
    that runs around it (even-odd), a shape labelled `_background_` or `__ignore__` over an earlier one (what it covers
    is background, or neither), or a shape inside another of its label and group id.

    Args:
        annotation: what the LabelMe file says.
        size: (H,W) of the upright image. None: it is not at hand, and the annotation's own size counts.
        line_width: width in pixels of lines and points, which have no area. None: they are refused.

    Raises:
        UserError: when the sizes do not agree or a shape cannot be drawn. It names the file and the shape.
    """
    path = annotation.path
    if size is not None and annotation.size is not None and size != annotation.size:
        raise UserError(f"{path}: {_mismatch(annotation.size, size)}")
    height, width = size or annotation.size or (0, 0)
    if height < 1 or width < 1 or height * width > LARGEST:
        raise UserError(f"{path}: imageHeight and imageWidth are {height} and {width}; put its image beside it")
    mask = np.zeros((height, width), np.uint8)
    left = Counter((s.label, s.group) for s in annotation.shapes)
    parts: dict[tuple[str, int | str | None], list[np.ndarray]] = {}
    for shape in annotation.shapes:
        own = _drawn(path, shape, (height, width), line_width)
        key = shape.label, shape.group
        left[key] -= 1
        if is_any(shape.label, (*BACKGROUND, *IGNORE)):
            mask[own > 0] = IGNORED if is_any(shape.label, IGNORE) else 0
        elif shape.group is None:
            mask[own > 0] = 1
        else:
            parts.setdefault(key, []).append(own)
            if not left[key]:  # the object is complete
                mask[_with_holes(parts[key]) > 0] = 1
    return mask


def nested(annotation: Annotation, size: tuple[int, int]) -> int:
    """How many shapes lie wholly inside another of their label without a group id: they change nothing."""
    shapes = [s for s in annotation.shapes if s.group is None and s.kind not in WITHOUT_AREA]
    if len(shapes) < 2:
        return 0
    boxes = [(s.label, s.points.min(0), s.points.max(0)) for s in shapes if s.kind != "circle" and len(s.points)]
    likely = any(
        a[0] == b[0] and a is not b and (a[1] <= b[1]).all() and (b[2] <= a[2]).all() for a in boxes for b in boxes
    )
    if not likely:
        return 0
    masks = [(s.label, _drawn(annotation.path, s, size, None)) for s in shapes]
    return sum(
        any(la == lb and i != j and not (a & ~b & 1).any() and a.sum() < b.sum() for j, (lb, b) in enumerate(masks))
        for i, (la, a) in enumerate(masks)
    )


def beyond(annotation: Annotation, size: tuple[int, int]) -> int:
    """How many shapes reach beyond the border of an image of size (H,W) by more than `ROUNDED`, and are cut there."""
    far = np.array([size[1], size[0]]) + ROUNDED
    outlined = [s.points for s in annotation.shapes if s.kind != "circle" and len(s.points)]
    return sum(bool((points < -ROUNDED).any() or (points > far).any()) for points in outlined)


def _with_holes(parts: list[np.ndarray]) -> np.ndarray:
    """One object of several shapes: a shape wholly inside a larger one that is filled there is a hole in it."""
    whole = np.zeros_like(parts[0])
    for own in sorted(parts, key=lambda a: -int(a.sum())):
        if own.any() and whole[own > 0].all():
            whole[own > 0] = 0
        else:
            whole |= own
    return whole


def _mismatch(said: tuple[int, int], size: tuple[int, int]) -> str:
    text = f"annotated on {said[1]}x{said[0]} pixels, its image has {size[1]}x{size[0]}"
    turned = " (turned by EXIF?)" if said == size[::-1] else ""
    return f"{text}{turned}; annotate the image as it is now"


def _drawn(path: Path, shape: Shape, size: tuple[int, int], line_width: float | None) -> np.ndarray:
    """One shape as a mask (H,W) in {0,1}."""
    name = f"{path}: shape {shape.number} '{shape.label}'"
    if shape.kind not in SHAPES:
        raise UserError(f"{name} is of kind '{shape.kind}'; known are {', '.join(SHAPES)}: draw it as one of these")
    if shape.kind == "mask":
        return _placed(name, shape, size)
    if shape.kind in WITHOUT_AREA and line_width is None:
        raise UserError(
            f"{name} is a {shape.kind}, which has no area; draw a polygon around the defect, or say how wide "
            "lines are with prepare_data.py --line_width PIXELS"
        )
    least = {"circle": 2, "rectangle": 2, "line": 2, "linestrip": 2, "point": 1, "points": 1}.get(shape.kind, 3)
    if len(shape.points) < least:
        raise UserError(f"{name} is a {shape.kind} of {len(shape.points)} points; it needs {least}: draw it again")
    canvas = Image.new("L", (size[1], size[0]))
    _ink(ImageDraw.Draw(canvas), shape, line_width or 1)
    return np.array(canvas)


def _ink(draw: ImageDraw.ImageDraw, shape: Shape, line_width: float) -> None:
    xy = [(float(x), float(y)) for x, y in shape.points]
    if shape.kind == "circle":  # centre, and a point on it
        (x, y), radius = xy[0], math.dist(*xy[:2])
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    elif shape.kind == "rectangle" and len(xy) == 2:  # any two opposite corners
        (left, top), (right, bottom) = np.sort(shape.points, axis=0)
        draw.rectangle([left, top, right, bottom], fill=1, outline=1)
    elif shape.kind in ("line", "linestrip"):
        for a, b in pairwise(xy):
            draw.line([a, b], fill=1, width=max(1, round(line_width)))
    elif shape.kind in ("point", "points"):
        for x, y in xy:
            half = line_width / 2
            draw.ellipse([x - half, y - half, x + half, y + half], fill=1, outline=1)
    else:
        draw.polygon(xy, fill=1, outline=1)


def _placed(name: str, shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """A shape of kind `mask`: a PNG of the box between its two points, corner pixels included."""
    try:
        crop = np.asarray(Image.open(BytesIO(base64.b64decode(shape.mask or "", validate=True))).convert("L")) > 0
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: its mask is no PNG in base64; draw it again") from error
    if len(shape.points) != 2:
        raise UserError(f"{name}: a mask has two points, the corners of its box, not {len(shape.points)}")
    (left, top), (right, bottom) = np.rint(np.sort(shape.points, axis=0)).astype(int)
    if abs(bottom - top + 1 - crop.shape[0]) > 1 or abs(right - left + 1 - crop.shape[1]) > 1:
        box = f"{right - left + 1}x{bottom - top + 1}"
        raise UserError(f"{name}: its mask has {crop.shape[1]}x{crop.shape[0]} pixels, its box {box}; draw it again")
    mask = np.zeros(size, np.uint8)
    y, x = max(0, -top), max(0, -left)
    inside = mask[max(0, top) : max(0, top + crop.shape[0]), max(0, left) : max(0, left + crop.shape[1])]
    inside[...] = crop[y : y + inside.shape[0], x : x + inside.shape[1]]
    return mask
