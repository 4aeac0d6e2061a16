"""COCO instance annotations: polygons, plain and compressed run-length codes."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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
from fast.data.formats.rle import from_runs, unpack
from fast.data.images import list_files
from fast.runtime.folders import parse_json
from ldm.errors import UserError


def read_coco(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """One draft for each entry of `images`. UserError for a file that is damaged or contradicts itself."""
    candidates = [p for p in list_files(source) if is_coco(p)] if source.is_dir() else []
    path = only_file(source, options, candidates, "COCO annotations")
    content = load_json(path)
    if not _is_coco(content):
        raise UserError(f"{path}: no COCO annotations (images, annotations, categories); give the file")
    names = _by_id(path, content, "categories", "name")
    images = _by_id(path, content, "images", "file_name")
    given: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in content["annotations"]:
        number = entry.get("id") if isinstance(entry, dict) else None
        for key, known in (("image_id", images), ("category_id", names)):
            value = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(value, int | str) or value not in known:
                raise UserError(f"{path}: annotation {number} has {key}={value!r}, which no entry of "
                                f"{'images' if key == 'image_id' else 'categories'} has; correct the file")  # fmt: skip
        given[entry["image_id"]].append(entry)
    drafts = [_draft(entry, given[number], names, options) for number, entry in images.items()]
    above = path.parent.parent if path.parent.name == "annotations" else path.parent
    return drafts, ImageFiles(images_folder(options, source if source.is_dir() else above))


def is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        return _is_coco(load_json(path))
    except UserError:
        return False


def load_json(path: Path) -> Any:
    """The content of a JSON file. Raises `UserError`."""
    try:
        return parse_json(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot read the annotations ({reason}); save them as UTF-8 JSON") from error


def _is_coco(content: Any) -> bool:
    keys = ("images", "annotations", "categories")
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys)


def _by_id(path: Path, content: dict[str, Any], key: str, name: str) -> dict[Any, Any]:
    """Entries of `images`, or names of `categories`, by their ids."""
    found: dict[Any, Any] = {}
    for entry in content[key]:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(number, int | str) or not isinstance(entry.get(name), str) or not entry[name]:
            raise UserError(f"{path}: an entry of {key} has no id or no {name} ({str(entry)[:60]}); correct the file")
        if number in found:
            raise UserError(f"{path}: two entries of {key} have the id {number}; correct the file")
        found[number] = entry if key == "images" else entry[name]
    return found


def _draft(
    image: dict[str, Any], entries: list[dict[str, Any]], names: dict[Any, str], options: ImportOptions
) -> ImageAnnotation:
    height, width = image.get("height"), image.get("width")
    size = (height, width) if type(height) is int and type(width) is int else None
    draft = ImageAnnotation(image["file_name"], size=size)
    try:
        draft.regions = [
            AnnotatedRegion(names[e["category_id"]], _drawing(e, options), f"annotation {e.get('id')}") for e in entries
        ]
    except LeftOut as error:
        draft.problem = str(error)
    return draft


def _drawing(entry: dict[str, Any], options: ImportOptions) -> Any:
    what, shape = f"annotation {entry.get('id')}", entry.get("segmentation")
    if not shape:
        box = entry.get("bbox")
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise LeftOut(f"{what} has neither outline nor box")
        return box_drawing(what, box[0], box[1], box[2], box[3], options)
    if isinstance(shape, dict):
        return partial(_runs, what, shape)
    if not isinstance(shape, list):
        raise LeftOut(f"{what} has no outline that COCO knows")
    return Polygons([ring_of(what, ring) for ring in shape])


def ring_of(what: str, values: Any) -> np.ndarray:
    """A polygon (N,2) of a list of numbers x, y, x, y, ... Raises `LeftOut`."""
    try:
        ring = np.asarray(values, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise LeftOut(f"{what}: its outline is no list of x, y") from None
    if len(ring) < 3 or not np.isfinite(ring).all() or np.abs(ring).max() > 1e6:
        raise LeftOut(f"{what}: its outline has {len(ring)} points, or one beyond every picture")
    return ring


def box_drawing(what: str, x: float, y: float, width: float, height: float, options: ImportOptions) -> Any:
    """How a rectangle is drawn, which is an area of defect only where somebody says so. Raises `LeftOut`."""
    if not options.boxes:
        raise LeftOut(f"{what} is a box, which is no outline; --boxes takes boxes as areas of defect")
    return Polygons([ring_of(what, [x, y, x + width, y, x + width, y + height, x, y + height])])


def _runs(what: str, shape: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    runs = shape.get("counts")
    if shape.get("size") != list(size):
        raise LeftOut(f"{what} was drawn on (height, width) {shape.get('size')}, the image has {list(size)}")
    try:
        return from_runs(unpack(runs) if isinstance(runs, str) else runs, size, columns=True)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise LeftOut(f"{what}: {error}") from None
