"""Label Studio's JSON export: brush strokes in its run-length code, polygons, ellipses and rectangles."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from fast.data.decode import SUFFIXES
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
from fast.data.formats.coco import box_drawing, load_json, ring_of
from fast.data.formats.cvat import ellipse
from fast.data.formats.rle import from_brush
from fast.data.images import list_files
from ldm.errors import UserError

UPLOADED = re.compile(r"^[0-9a-f]{6,8}-")  # what Label Studio puts before the name of an uploaded file
LABELS = ("brushlabels", "polygonlabels", "ellipselabels", "rectanglelabels")


def read_labelstudio(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """One draft for each task. UserError for a file of another kind, and for a task with two annotations."""
    candidates = [p for p in list_files(source) if is_labelstudio(p)] if source.is_dir() else []
    path = only_file(source, options, candidates, "Label Studio tasks")
    tasks = load_json(path)
    if not _are_tasks(tasks):
        raise UserError(f"{path}: no Label Studio tasks (data, annotations); export the project as JSON")
    files = ImageFiles(images_folder(options, source if source.is_dir() else path.parent))
    drafts = [draft for task in tasks if (draft := _draft(path, task, files, options))]
    return drafts, files


def is_labelstudio(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        return _are_tasks(load_json(path))
    except UserError:
        return False


def _are_tasks(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(
        isinstance(t, dict) and isinstance(t.get("data"), dict) and isinstance(t.get("annotations"), list)
        for t in content
    )  # fmt: skip


def _draft(path: Path, task: dict[str, Any], files: ImageFiles, options: ImportOptions) -> ImageAnnotation | None:
    draft = ImageAnnotation(_image_name(path, task, files))
    given = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    if len(given) > 1:
        ids = " and ".join(str(a.get("id")) for a in given[:2])
        raise UserError(f"{path}: task {task.get('id')} ({draft.name}) has two annotations, {ids}; which is right? "
                        "delete the others in Label Studio and export again")  # fmt: skip
    if not given:
        return draft  # nobody has looked at it, or somebody skipped it
    draft.marked = True
    results = given[0].get("result")
    try:
        for number, result in enumerate(results if isinstance(results, list) else [], 1):
            draft.regions += _regions(draft, f"region {number}", result, options)
    except LeftOut as error:
        draft.problem = str(error)
    return draft


def _image_name(path: Path, task: dict[str, Any], files: ImageFiles) -> str:
    """What a task calls its image: the path in its URL, without what an upload puts before the name if only the image
    without it is there."""
    data = task["data"]
    likely = [v for k, v in data.items() if isinstance(v, str) and (k == "image" or _looks_like_image(v))]
    if len(likely) != 1:
        raise UserError(f"{path}: task {task.get('id')} names {len(likely)} images; tasks of one image can be read")
    parts = urlsplit(likely[0])
    name = parse_qs(parts.query).get("d", [unquote(parts.path)])[0].lstrip("/")
    folder, slash, file = name.rpartition("/")
    bare = UPLOADED.sub("", file)
    if bare != file and not any(Path(known).name == file for known in files.files):
        return folder + slash + bare
    return name


def _looks_like_image(value: str) -> bool:
    return any(value.lower().split("?")[0].endswith(end) or value.lower().endswith(end) for end in SUFFIXES)


def _regions(draft: ImageAnnotation, what: str, result: Any, options: ImportOptions) -> list[AnnotatedRegion]:
    kind, value = (result.get("type"), result.get("value")) if isinstance(result, dict) else (None, None)
    if kind in ("choices", "textarea", "rating", "relation", None) and not (isinstance(value, dict) and "rle" in value):
        return []  # said of the whole image
    if kind not in LABELS or not isinstance(value, dict):
        raise LeftOut(f"{what} is of kind '{kind}', which has no area or no label")
    labels = value.get(kind)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise LeftOut(f"{what} has {len(labels) if isinstance(labels, list) else 'no'} labels; it needs one")
    height, width = result.get("original_height"), result.get("original_width")
    if type(height) is not int or type(width) is not int:
        raise LeftOut(f"{what} does not say the size of its image")
    if draft.size not in (None, (height, width)):
        raise LeftOut(f"{what} was drawn on an image of another size than the one before")
    draft.size = (height, width)
    if result.get("image_rotation"):
        raise LeftOut(f"{what} was drawn on the image turned by {result['image_rotation']} degrees; turn it back")
    return [AnnotatedRegion(labels[0], _drawing(what, kind, value, (height, width), options), what)]


def _drawing(what: str, kind: str, value: dict[str, Any], size: tuple[int, int], options: ImportOptions) -> Any:
    if kind == "brushlabels":
        if value.get("format") != "rle" or not isinstance(value.get("rle"), list):
            raise LeftOut(f"{what} has no run-length code")
        return partial(_brush, what, value["rle"])
    scale = np.array([size[1], size[0]]) / 100  # all others are in hundredths of the sides
    try:
        if kind == "polygonlabels":
            points = [v for point in value["points"] for v in point]
            return Polygons([ring_of(what, points) * scale])
        if kind == "ellipselabels":
            x, y = np.array([value["x"], value["y"]]) * scale
            across, along = np.array([value["radiusX"], value["radiusY"]]) * scale
            return Polygons([ellipse(x, y, across, along, float(value.get("rotation") or 0))])
        if value.get("rotation"):
            raise LeftOut(f"{what} is a turned box; draw it as a polygon")
        left, top, width, height = np.array([value[k] for k in ("x", "y", "width", "height")]) * [*scale, *scale]
    except (KeyError, TypeError, ValueError):
        raise LeftOut(f"{what} lacks a place or a size") from None
    return box_drawing(what, left, top, width, height, options)


def _brush(what: str, code: list[int], size: tuple[int, int]) -> np.ndarray:
    try:
        return from_brush(code, size)
    except ValueError as error:
        raise LeftOut(f"{what}: {error}") from None
