"""CVAT for images 1.1: one XML file of polygons, masks, ellipses, rectangles and lines."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from fast.data.formats.annotated import (
    AnnotatedRegion,
    ImageAnnotation,
    ImageFiles,
    ImportOptions,
    LeftOut,
    Polygons,
    images_folder,
    only_file,
)
from fast.data.formats.coco import box_drawing
from fast.data.formats.rle import from_runs
from fast.data.images import list_files
from ldm.errors import UserError

LARGEST = 256 << 20  # bytes of an annotation file


def read_cvat(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """One draft for each `image` element. UserError for a file that is damaged or of another kind."""
    candidates = [p for p in list_files(source) if p.suffix.lower() == ".xml"] if source.is_dir() else []
    path = only_file(source, options, candidates, "CVAT annotations")
    root = _parse(path)
    if root.find("track") is not None:
        raise UserError(f"{path}: is of a video; export it from CVAT as 'CVAT for images 1.1'")
    if root.tag != "annotations" or root.find("image") is None:
        raise UserError(f"{path}: no CVAT annotations of images; export them as 'CVAT for images 1.1'")
    drafts = [_draft(path, element, options) for element in root.iter("image")]
    return drafts, ImageFiles(images_folder(options, source if source.is_dir() else path.parent))


def _parse(path: Path) -> ElementTree.Element:
    """The root of an XML file without entities of its own, which can grow without limit. Raises `UserError`."""
    try:
        data = path.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data or len(data) > LARGEST:
            raise UserError(f"{path}: defines entities, or is larger than {LARGEST >> 20} MB; CVAT writes no such file")
        return ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: cannot read the annotations ({error}); export them again") from error


def _draft(path: Path, element: ElementTree.Element, options: ImportOptions) -> ImageAnnotation:
    name = element.get("name")
    if not name:
        raise UserError(f"{path}: image {element.get('id')} has no name; export the annotations again")
    height, width = element.get("height", ""), element.get("width", "")
    size = (int(height), int(width)) if height.isdecimal() and width.isdecimal() else None
    draft = ImageAnnotation(name, size=size)
    shapes = [e for e in element if e.tag != "tag"]
    try:
        order = [(_whole(e, "z_order", 0), i) for i, e in enumerate(shapes)]
        for _, i in sorted(order):
            draft.regions.append(_region(f"{shapes[i].tag} {i + 1}", shapes[i], options))
    except LeftOut as error:
        draft.problem = str(error)
    return draft


def _region(what: str, element: ElementTree.Element, options: ImportOptions) -> AnnotatedRegion:
    label = element.get("label")
    if not label:
        raise LeftOut(f"{what} has no label")
    return AnnotatedRegion(label, _drawing(what, element, options), what)


def _drawing(what: str, element: ElementTree.Element, options: ImportOptions) -> Any:
    if element.tag == "polygon":
        return Polygons([_points(what, element, 3)])
    if element.tag == "mask":
        box = [_whole(element, key) for key in ("left", "top", "width", "height")]
        try:
            runs = [int(word) for word in element.get("rle", "").split(",")]
        except ValueError:
            raise LeftOut(f"{what}: its run lengths are no numbers") from None
        return partial(_mask, what, runs, box)
    if element.tag == "ellipse":
        x, y, across, along = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
        return Polygons([ellipse(x, y, across, along, _number(element, "rotation", 0))])
    if element.tag == "box":
        if _number(element, "rotation", 0):
            raise LeftOut(f"{what} is turned; draw it as a polygon")
        left, top, right, bottom = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return box_drawing(what, left, top, right - left, bottom - top, options)
    if element.tag in ("polyline", "points"):
        if options.line_width is None:
            raise LeftOut(f"{what} has no area; --line_width PIXELS says how wide lines and points are")
        return partial(_line, _points(what, element, 1), element.tag == "polyline", max(1, round(options.line_width)))
    raise LeftOut(f"{what} is of a kind that has no area; draw a polygon or a mask")


def ellipse(x: float, y: float, across: float, along: float, degrees: float = 0) -> np.ndarray:
    """Polygon (N,2) of an ellipse of the radii `across` (x) and `along` (y), turned clockwise about its centre."""
    angle, turn = np.linspace(0, 2 * np.pi, 180, endpoint=False), math.radians(degrees)
    right, down = across * np.cos(angle), along * np.sin(angle)
    return np.stack([x + right * math.cos(turn) - down * math.sin(turn),
                     y + right * math.sin(turn) + down * math.cos(turn)], axis=1)  # fmt: skip


def _points(what: str, element: ElementTree.Element, least: int) -> np.ndarray:
    try:
        text = element.get("points", "")
        points = np.array([[float(v) for v in pair.split(",")] for pair in text.split(";")]).reshape(-1, 2)
    except ValueError:
        raise LeftOut(f"{what}: its points are no list of x,y") from None
    if len(points) < least or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise LeftOut(f"{what} has {len(points)} points, or one beyond every picture")
    return points


def _number(element: ElementTree.Element, key: str, default: float | None = None) -> float:
    try:
        value = float(element.get(key, "" if default is None else default))
    except ValueError:
        raise LeftOut(f"{element.tag} has {key}={element.get(key)!r}, no number") from None
    if not math.isfinite(value) or abs(value) > 1e6:
        raise LeftOut(f"{element.tag} has {key}={value}, beyond every picture")
    return value


def _whole(element: ElementTree.Element, key: str, default: float | None = None) -> int:
    return round(_number(element, key, default))


def _mask(what: str, runs: list[int], box: list[int], size: tuple[int, int]) -> np.ndarray:
    left, top, width, height = box
    if min(left, top) < 0 or min(width, height) < 1 or top + height > size[0] or left + width > size[1]:
        raise LeftOut(f"{what} lies outside its image")
    mask = np.zeros(size, np.uint8)
    try:
        mask[top : top + height, left : left + width] = from_runs(runs, (height, width), columns=False)
    except ValueError as error:
        raise LeftOut(f"{what}: {error}") from None
    return mask


def _line(points: np.ndarray, joined: bool, width: int, size: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", (size[1], size[0]))
    draw, half = ImageDraw.Draw(canvas), width / 2
    pixels = [(float(x), float(y)) for x, y in np.floor(points)]
    if joined and len(pixels) > 1:
        draw.line(pixels, fill=1, width=width)
    for x, y in [] if joined else pixels:
        draw.ellipse([x - half, y - half, x + half, y + half], fill=1, outline=1)
    return np.array(canvas)
