"""Datasets annotated with LabelMe: which image is a normal, which shows a defect of which type."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fast.data.category import DEFECT_DIRS, MASK_DIRS, NORMAL_DIRS, OTHER_DIRS, CategoryReader
from fast.data.images import is_image, list_files
from fast.data.labelme import Annotation, image_of, is_annotation, load_annotation, named_image
from fast.data.made import without_made
from fast.data.pairing import has_masks_beside, split_beside
from ldm.errors import UserError

EXPORTS = ("segmentationclass", "segmentationobject", "jpegimages")  # of labelme2voc; labelme_export_json: <name>_json


def is_labelme(folder: Path) -> bool:
    """True where LabelMe files lie in a folder, or below it in folders that divide one category."""
    divides = (*NORMAL_DIRS, *DEFECT_DIRS, *OTHER_DIRS)
    files = [p for p in list_files(folder, lambda p: p.name.lower() in divides) if p.suffix.lower() == ".json"]
    return any(map(is_annotation, without_made(files, folder)))


def read_labelme(category: CategoryReader) -> None:
    """Every image below the category's folder: with shapes a defect of their labels' type, else a normal.

    Several labels in one image make one type, joined by "+". An image in a folder of defects needs shapes, one in a
    folder of normals has none: the contrary is a problem line.
    """
    every = without_made(list_files(category.folder), category.folder)
    files = [p for p in every if not _is_export(p, category.folder)]
    pictures = [p for p in files if is_image(p)]
    images = split_beside(pictures)[0] if has_masks_beside(pictures) else pictures
    found = _annotations(category, files, images)
    spelling = _spellings(found, category.folder)
    for image in images:
        if image not in found:
            continue
        annotation = found[image]
        category.index.seen.update([annotation.path] if annotation else [])
        labels = sorted({spelling[label.casefold()] for label in annotation.labels}) if annotation else []
        inside = {part.lower() for part in image.relative_to(category.folder).parts[:-1]}
        if (normal := [label for label in labels if label.lower() in NORMAL_DIRS]) and annotation:
            category.problem(annotation.path, f"label '{normal[0]}' names the normals, yet shapes bear it; rename it")
        elif labels and inside & set(NORMAL_DIRS):
            assert annotation is not None
            category.problem(annotation.path, "has shapes, but lies among the normals; move one or the other")
        elif not labels and inside & set(DEFECT_DIRS):
            name = f"{category.index.relative(image.parent)}/{image.stem}.json"
            category.problem(image, f"defect without shapes; draw them in {name} or move the image to the normals")
        elif labels and annotation:
            category.index.defects.append(category.sample(image, "+".join(labels), annotation.path))
        else:
            target = category.index.test_normals if "test" in inside else category.index.normals
            target.append(category.sample(image))


def _is_export(path: Path, root: Path) -> bool:
    """True for what LabelMe's own tools write from annotations, and for files in a folder of masks."""
    inside = [part.lower() for part in path.relative_to(root).parts[:-1]]
    return any(part in MASK_DIRS or part.startswith(EXPORTS) or part.endswith("_json") for part in inside)


def _annotations(category: CategoryReader, files: list[Path], images: list[Path]) -> dict[Path, Annotation | None]:
    """Each usable image and its annotation, if it has one. What contradicts itself becomes a problem line."""
    known, by_folder = set(images), defaultdict(list)
    for image in images:
        by_folder[image.parent].append(image)
    found: dict[Path, Annotation | None] = dict.fromkeys(images)
    for path in (p for p in files if p.suffix.lower() == ".json"):
        try:
            annotation = load_annotation(path)
            if annotation is None:
                continue
            named = named_image(annotation)
            image = image_of(annotation, {named, *by_folder[path.parent]} & known)
        except UserError as error:
            category.problem(path, str(error).removeprefix(f"{path}: "))
            for beside in by_folder[path.parent]:
                if beside.stem == path.stem:
                    found.pop(beside, None)
            continue
        if (other := found.get(image)) is not None:
            category.problem(path, f"second annotation of {image.name}, beside {other.path.name}; keep one")
            found.pop(image)
        elif image in found:
            found[image] = annotation
    for image in [p for p, a in found.items() if a is not None]:
        for twin in by_folder[image.parent]:
            if twin.stem == image.stem and found.get(twin, image) is None:
                category.problem(twin, f"has the name of {image.name}, which is annotated; remove or rename it")
                found.pop(twin)
    return found


def _spellings(found: dict[Path, Annotation | None], folder: Path) -> dict[str, str]:
    """How each label is written as a type: labels that differ in case alone are one, written like the folder that the
    images lie in where that is the same word, else as most often."""
    count: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for image, annotation in found.items():
        names = {part.casefold(): part for part in image.relative_to(folder).parts[:-1]}
        for label in annotation.labels if annotation else ():
            count[label.casefold()][names.get(label.casefold(), label)] += 1
    return {key: max(sorted(written), key=lambda w: written[w]) for key, written in count.items()}
