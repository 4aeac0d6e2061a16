"""YOLO segmentation: `labels/<name>.txt` beside `images/<name>.*`, a line of class and polygon for each instance."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fast.data.formats.annotated import (
    AnnotatedRegion,
    ImageAnnotation,
    ImageFiles,
    ImportOptions,
    LeftOut,
    images_folder,
)
from fast.data.formats.coco import box_drawing
from fast.data.formats.outlines import fill_with_edges
from fast.data.images import list_files
from ldm.errors import UserError

NOT_LABELS = ("classes.txt", "obj.names", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt")


def read_yolo(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """One draft for each image with a label file; an empty one says that the image is normal. UserError where classes
    have no name."""
    if not source.is_dir():
        raise UserError(f"{source}: no folder; give the folder of data.yaml, images/ and labels/")
    names, files = class_names(source, options), ImageFiles(images_folder(options, source))
    labels = {p.relative_to(source).as_posix(): p for p in list_files(source) if p.suffix.lower() == ".txt"}
    labels = {name: p for name, p in labels.items() if p.name.lower() not in NOT_LABELS and not _is_readme(p)}
    if not labels:
        raise UserError(f"{source} holds no label file (labels/*.txt); is it YOLO's, and not another --import?")
    drafts, used = [], set()
    for name, image in files.files.items():
        place = image.relative_to(source).as_posix() if image.is_relative_to(source) else name
        beside = [one for one in _label_names(place) if one in labels]
        if not beside:
            continue
        if len(beside) > 1:
            raise UserError(f"{image}: has two label files, {beside[0]} and {beside[1]}; keep one")
        used.add(beside[0])
        drafts.append(_draft(name, labels[beside[0]], names, options))
    drafts += [ImageAnnotation(f"{name} (its image)", problem="") for name in labels if name not in used]
    return drafts, files


def _is_readme(path: Path) -> bool:
    return path.stem.lower().startswith(("readme", "license", "licence"))


def _label_names(image: str) -> list[str]:
    """Where the labels of an image may be: `images` in its path replaced by `labels`, or beside it."""
    bare = image.rpartition(".")[0]
    folders, found = bare.split("/"), [f"{bare}.txt"]
    at = max((i for i, part in enumerate(folders[:-1]) if part == "images"), default=None)
    if at is not None:
        found.append("/".join([*folders[:at], "labels", *folders[at + 1 :]]) + ".txt")
    else:
        found.append(f"labels/{bare}.txt")  # images given by --images
    return found


def class_names(source: Path, options: ImportOptions) -> dict[str, str]:
    """Name by class number, of the one YAML file with `names`, or else of classes.txt. Raises `UserError`."""
    found = []
    for path in sorted([*source.glob("*.yaml"), *source.glob("*.yml")]):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot read it ({str(error).splitlines()[0]}); correct or remove it") from error
        names: Any = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict):
            found.append((path, {str(k): str(v) for k, v in names.items()}))
    if len(found) > 1 and found[0][1] != found[1][1]:
        raise UserError(f"{source}: {found[0][0].name} and {found[1][0].name} name the classes differently; keep one")
    if found:
        return found[0][1]
    plain = [p for p in (source / "classes.txt", source / "obj.names", source / "labels/classes.txt") if p.is_file()]
    lines = plain[0].read_text(encoding="utf-8-sig", errors="replace").splitlines() if plain else []
    return {str(i): line.strip() for i, line in enumerate(lines) if line.strip()}


def _draft(name: str, path: Path, names: dict[str, str], options: ImportOptions) -> ImageAnnotation:
    draft = ImageAnnotation(name, marked=True)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        draft.problem = f"{path.name} cannot be read as text"
        return draft
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                draft.regions.append(_region(f"line {number}", line.split(), path, names, options))
    except LeftOut as error:
        draft.problem = f"{path.name}: {error}"
    return draft


def _region(what: str, words: list[str], path: Path, names: dict[str, str], options: ImportOptions) -> AnnotatedRegion:
    label = names.get(words[0]) or (words[0] if words[0] in options.types else None)
    if label is None:
        raise UserError(f"{path}: {what} has the class {words[0]}, which no data.yaml or classes.txt names; say "
                        f"--types {words[0]}=NAME")  # fmt: skip
    try:
        values = np.array([float(word) for word in words[1:]])
    except ValueError:
        raise LeftOut(f"{what} is no list of numbers") from None
    if not np.isfinite(values).all() or values.min(initial=0) < -0.01 or values.max(initial=0) > 1.01:
        raise LeftOut(f"{what} has values outside 0..1, which are no shares of the sides")
    if len(values) == 4:
        box_drawing(what, 0, 0, 1, 1, options)  # refuses boxes, unless they are to be taken
        return AnnotatedRegion(label, partial(_box, values))
    if len(values) < 6 or len(values) % 2:
        raise LeftOut(f"{what} has {len(values)} values; a polygon has an even number from 6 on")
    return AnnotatedRegion(label, partial(_polygon, values.reshape(-1, 2)))


def _polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rounded to the nearest pixels and filled with the edges, as supervision does; ultralytics rounds down, which puts
    a pixel's own number, written with few digits, on the pixel before."""
    return fill_with_edges(np.round(points * (size[1], size[0])), size)


def _box(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    (x, y), (width, height) = values[:2] * (size[1], size[0]), values[2:] * (size[1], size[0])
    mask = np.zeros(size, np.uint8)
    top, left = max(0, round(y - height / 2)), max(0, round(x - width / 2))
    mask[top : round(y + height / 2), left : round(x + width / 2)] = 1
    return mask
