"""Layouts of published datasets that no general layout covers: KolektorSDD, DAGM 2007, magnetic tile, BSData."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fast.data.category import CategoryReader
from fast.data.images import is_image, list_images
from fast.data.index import GOOD, Sample
from fast.data.labelme import is_annotation, load_annotation
from fast.data.pairing import split_beside
from ldm.errors import UserError

ITEM = re.compile(r"kos\d+")
TILES = {"MT_Blowhole": "blowhole", "MT_Break": "break", "MT_Crack": "crack", "MT_Fray": "fray", "MT_Uneven": "uneven"}
SPOT = re.compile(r"_(\d{6}_\d{3})_crop")  # BSData: where on the spindle a picture shows it, in all pictures of a spot


def is_kolektor(folder: Path) -> bool:
    """KolektorSDD: `kos01/Part0.jpg` and `kos01/Part0_label.bmp`, a folder for each item."""
    return any(ITEM.fullmatch(p.name) and list(p.glob("Part*_label.*")) for p in _folders(folder))


def read_kolektor(category: CategoryReader) -> None:
    """An item's pictures are of one physical part; one whose label is empty is a normal."""
    for item in (p for p in _folders(category.folder) if ITEM.fullmatch(p.name)):
        images, masks, problems = split_beside(list_images(item))
        for path, what in problems:
            category.problem(path, what)
        for image in images:
            mask = masks.get(image)
            if mask is None:
                category.problem(image, f"has no label; add {image.stem}_label.bmp")
            else:
                _add(category, image, "defect", mask, item.name)


def is_dagm(folder: Path) -> bool:
    """A class of DAGM 2007: `Train/0576.PNG`, `Train/Label/0576_label.PNG`, and the same in `Test`."""
    return any((folder / half / "Label").is_dir() for half in ("Train", "Test"))


def read_dagm(category: CategoryReader) -> None:
    """Images with a label are defects, of one type, the others normals."""
    for half in ("Train", "Test"):
        folder = category.folder / half
        masks = {p.stem.removesuffix("_label"): p for p in _images(folder / "Label")}
        target = category.index.test_normals if half == "Test" else category.index.normals
        for image in _images(folder):
            mask = masks.pop(image.stem, None)
            if mask is None:
                target.append(category.sample(image))
            else:
                category.index.defects.append(category.sample(image, "defect", mask))
        for mask in masks.values():
            category.problem(mask, f"label without image; {half}/ has no image of that name")
        category.index.seen.add(folder / "Label" / "Labels.txt")


def is_magnetic_tile(folder: Path) -> bool:
    """`MT_Blowhole/Imgs/*.jpg`, the masks of the same name as PNG beside them."""
    return any((folder / name / "Imgs").is_dir() for name in TILES)


def read_magnetic_tile(category: CategoryReader) -> None:
    for folder in (p for p in _folders(category.folder) if p.name == "MT_Free" or p.name in TILES):
        files = {p.stem: p for p in _images(folder / "Imgs") if p.suffix.lower() == ".png"}
        for image in (p for p in _images(folder / "Imgs") if p.suffix.lower() != ".png"):
            mask = files.pop(image.stem, None)
            if folder.name == "MT_Free" or mask is None:
                if folder.name == "MT_Free":
                    category.index.normals.append(category.sample(image))
                    category.index.seen.update([mask] if mask else [])
                else:
                    category.problem(image, f"defect without mask; add {image.stem}.png")
            else:  # an empty mask is found by `check`, and told
                category.index.defects.append(category.sample(image, TILES[folder.name], mask))
        for mask in files.values():
            category.problem(mask, "mask without image of that name")


def is_bsdata(folder: Path) -> bool:
    """`data/*.jpg`, and `label/*.json` of LabelMe for those with defects."""
    first = next(iter(sorted((folder / "label").glob("*.json"))), None)
    return (folder / "data").is_dir() and first is not None and is_annotation(first)


def read_bsdata(category: CategoryReader) -> None:
    """Images without annotation are normals; those of one spot on a spindle are of one physical part."""
    labels = {p.stem: p for p in sorted((category.folder / "label").glob("*.json"))}
    for image in _images(category.folder / "data"):
        path = labels.pop(image.stem, None)
        spot = SPOT.search(image.stem)
        try:
            annotation = load_annotation(path) if path else None
        except UserError as error:
            category.problem(path or image, str(error).removeprefix(f"{path}: "))
            continue
        kind = "+".join(sorted({label.lower() for label in annotation.labels})) if annotation else ""
        _add(category, image, kind or GOOD, path if kind else None, spot[1] if spot else "")
        category.index.seen.update([path] if path else [])
    for path in labels.values():
        category.problem(path, "annotation without image; data/ has none of that name")


def _add(category: CategoryReader, image: Path, kind: str, mask: Path | None, part: str) -> None:
    """A sample of the physical part `part`, unless groups.csv names one; a normal where the mask is empty."""
    drawn = mask is not None and mask.suffix.lower() == ".json"
    if mask is not None and not drawn and not category.has_defect(mask):
        kind, mask = GOOD, None
    sample: Sample = category.sample(image, kind, mask)
    if part and image not in category.groups:
        sample = replace(sample, group=f"{category.name}/{part}")
    (category.index.normals if kind == GOOD else category.index.defects).append(sample)


def _images(folder: Path) -> list[Path]:
    return [p for p in list_images(folder) if is_image(p)] if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir())
    except OSError:
        return []
