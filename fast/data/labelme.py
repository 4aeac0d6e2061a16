"""LabelMe annotations: JSON files beside the images, which shapes they hold and which image they are of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from ldm.errors import UserError

BACKGROUND = ("_background_", "__background__", "background")  # labels that cut holes into what was drawn before
IGNORE = ("__ignore__", "_ignore_", "ignore")
FARTHEST = 1e6  # pixels; a point beyond is a slip, not a place


@dataclass(frozen=True)
class Shape:
    """One annotated shape. `points` (N,2) as x, y in pixels; `mask`: base64 PNG of a shape of kind `mask`."""

    number: int
    label: str
    kind: str
    points: np.ndarray
    group: int | str | None
    mask: str | None


@dataclass(frozen=True)
class Annotation:
    """What a LabelMe file says. `size`: (height, width) of its image, None where it does not tell."""

    path: Path
    image: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]

    @property
    def labels(self) -> list[str]:
        """Labels of the defects, each once and sorted; those that mean background or "ignore" are none."""
        return sorted({s.label for s in self.shapes if not is_any(s.label, (*BACKGROUND, *IGNORE))})


def load_annotation(path: str | Path) -> Annotation | None:
    """The annotation in a LabelMe file; None for JSON that is something else. UserError when it cannot be read."""
    path = Path(path)
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot read the annotation ({reason}); save it as UTF-8 JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or "imagePath" not in content:
        return None
    if not isinstance(content["imagePath"], str):
        raise UserError(f"{path}: imagePath is {content['imagePath']!r}; it must name the image")
    shapes = tuple(_shape(path, i, given) for i, given in enumerate(content["shapes"], 1))
    return Annotation(path, content["imagePath"], _size(path, content), shapes)


def is_annotation(path: Path) -> bool:
    try:
        return load_annotation(path) is not None
    except UserError:
        return False


def _size(path: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height is None or width is None:
        return None
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise UserError(f"{path}: imageHeight={height!r}, imageWidth={width!r}; they must be whole numbers above 0")
    return height, width


def _shape(path: Path, number: int, given: Any) -> Shape:
    label = given.get("label") if isinstance(given, dict) else None
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{path}: shape {number} has no label; name its defect type")
    name = f"{path}: shape {number} '{label}'"
    try:
        points = np.asarray(given["points"], np.float64).reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{name}: its points are no list of [x, y]; draw it again") from error
    if not np.isfinite(points).all() or (np.abs(points) > FARTHEST).any():
        raise UserError(f"{name}: a point lies beyond every picture; draw it again")
    kind = given.get("shape_type") or "polygon"  # files of old versions know polygons alone
    group, mask = given.get("group_id"), given.get("mask")
    if not isinstance(kind, str) or not isinstance(group, int | str | None) or not isinstance(mask, str | None):
        raise UserError(f"{name}: shape_type, group_id or mask is of the wrong kind; draw it again")
    return Shape(number, label.strip(), kind, points, group, mask)


def image_of(annotation: Annotation, images: Iterable[Path]) -> Path:
    """The image that an annotation is of, one of `images`. UserError when there is none, or when names contradict.

    The file that imagePath names, seen from the annotation's folder; or else, since folders get moved and pictures
    converted, the one in the annotation's own folder with that name, whatever its suffix.
    """
    path, named = annotation.path, named_image(annotation)
    here = [p for p in images if p == named or p.parent == path.parent]
    found = [p for p in here if p == named] or [p for p in here if p.name == named.name]
    found = found or [p for p in here if p.stem == named.stem]
    beside = [p for p in here if p.parent == path.parent and p.stem == path.stem]
    if beside and (not found or (found[0].parent == path.parent and found[0] not in beside)):
        raise UserError(f"{path}: imagePath names '{annotation.image}', beside it lies {beside[0].name}; correct one")
    if not found:
        raise UserError(f"{path}: annotation without image; '{annotation.image}' is not there")
    if len(found) > 1:
        raise UserError(f"{path}: of {found[0].name} or of {found[1].name}? imagePath says '{annotation.image}'")
    return found[0]


def named_image(annotation: Annotation) -> Path:
    """Where imagePath points to, slashes of either kind."""
    parts = PureWindowsPath(annotation.image).parts
    return Path(os.path.normpath(annotation.path.parent.joinpath(*parts)))


def is_any(label: str, names: tuple[str, ...]) -> bool:
    return label.strip().lower() in names
