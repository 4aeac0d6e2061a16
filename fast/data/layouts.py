"""Where the images, masks, defect types and physical parts of a dataset are, whatever its layout."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fast.data.category import DEFECT_DIRS, MASK_DIRS, NORMAL_DIRS, CategoryReader
from fast.data.check import DataReport, TypeRow, check
from fast.data.copied import settle_copies
from fast.data.images import list_images, natural_key
from fast.data.index import GOOD, DatasetIndex, Sample, require_defects
from fast.data.labelme_reader import is_labelme
from fast.data.pairing import images_below, reads_as_mask
from fast.data.readers import LAYOUTS, SHAPES, folders_in
from fast.data.unused import unused_notes
from fast.runtime.counts import number_of
from ldm.errors import UserError

LOOKED_AT = 8  # files that are decoded to tell whether a folder holds masks alone

__all__ = [
    "GOOD",
    "LAYOUTS",
    "DataReport",
    "DatasetIndex",
    "Sample",
    "TypeRow",
    "check",
    "holds_dataset",
    "holds_masks",
    "open_dataset",
    "require_defects",
]


def open_dataset(
    path: str | Path, layout: str = "auto", category: str | None = None, anomaly: str | None = None
) -> DatasetIndex:
    """Index the dataset at `path`: a root of many categories, one category, or the folder of one defect type.

    `layout`: auto, or one of `LAYOUTS`. No picture is decoded but masks of normals (see
    `check`). UserError when the path is missing or empty, no layout fits, or a name is unknown.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(f"layout='{layout}' is unknown; use one of auto, {', '.join(LAYOUTS)}")
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; give the dataset's folder")
    name, root, folders, part = _locate(root, tuple(LAYOUTS) if layout == "auto" else (layout,))
    index = DatasetIndex(root, name, [], [], [], [])
    for folder in folders:
        reader = CategoryReader(index, folder)
        LAYOUTS[name][1](reader)
        reader.finish()
    _refuse_twice(index)
    settle_copies(index)
    index.notes += unused_notes(index)
    narrowed = replace(index, opened=index)
    if name == "labelme" and part:  # labels, not folders, name the types
        narrowed.defects, part = [s for s in index.defects if Path(part) in s.image.parents], None
    if not (narrowed.normals or narrowed.test_normals or narrowed.defects):
        detail = "".join(f"; {line}" for line in index.problems[:3])
        raise UserError(f"{root}: layout {name}, but no usable image in it{detail}; fill the folders")
    return narrowed.narrow(category, part).narrow(anomaly=anomaly)


def _refuse_twice(index: DatasetIndex) -> None:
    """Leave out, with a problem line, images that are two samples and masks that are of two images."""
    lists = (index.normals, index.test_normals, index.defects)
    count = Counter(p for samples in lists for s in samples for p in (s.image, s.mask) if p is not None)
    for path in sorted((p for p, n in count.items() if n > 1), key=natural_key):
        of = [s for samples in lists for s in samples if path in (s.image, s.mask)]
        what = "the mask of" if path == of[0].mask else "listed as"
        names = " and ".join(index.relative(s.image) if path == s.mask else s.anomaly for s in of[:2])
        index.problems.append(f"{index.relative(path)}: {what} {names}; keep one")
        index.seen.update(p for s in of for p in (s.image, s.mask) if p is not None)
        for samples in lists:
            samples[:] = [s for s in samples if s not in of]


def holds_dataset(path: Path) -> bool:
    """True for a dataset or a category of one, rather than a folder of pictures."""
    return any(test(folder) for folder in (path, *folders_in(path)) for test, _ in LAYOUTS.values())


def holds_masks(path: Path) -> bool:
    """True for a dataset or a category whose masks lie among other things, rather than a folder of masks, whose own
    folders may have any name."""
    halves = {p.name.lower() for p in folders_in(path)}
    if halves & set(NORMAL_DIRS) and halves & {*DEFECT_DIRS, *MASK_DIRS}:
        return True
    strong = [test for name, (test, _) in LAYOUTS.items() if name not in ("folder", "labelme")]
    if any(test(folder) for folder in (path, *folders_in(path)) for test in strong):
        return True
    return is_labelme(path) and bool(images_below(path))


def _locate(path: Path, names: tuple[str, ...]) -> tuple[str, Path, list[Path], str | None]:
    """Layout, root, category folders and, when `path` is the folder of one defect type, that type."""
    strong = [name for name in names if name not in ("folder", "beside")]
    for name in strong:
        if name == "labelme" and (whole := _around_labelme(path)):
            return name, whole, [whole], str(path)
        if LAYOUTS[name][0](path):
            if name == "labelme" and "folder" in names and (masks := _masks_too(path)):
                raise UserError(
                    f"{path}: has LabelMe files and {masks.name}/; say which are the masks, layout labelme or folder "
                    "(prepare_data.py --layout), or move the others away"
                )
            return name, path, [path], None
        if around := _around(path, name):
            return around
    for name in ("folder", "beside"):
        if name in names and LAYOUTS[name][0](path):
            return name, path, [path], None
    for name in names:
        found = [p for p in sorted(folders_in(path), key=natural_key) if LAYOUTS[name][0](p)]
        if found:
            return name, path, found, None
    # Last, since names such as `bad` or `masks` may stand above any dataset.
    if "folder" in names and (around := _around(path, "folder")):
        return around
    if "folder" in names and list_images(path):
        return "folder", path, [path], None  # images alone: normals without defects
    if not any(path.iterdir()):
        raise UserError(f"{path}: the folder is empty; give the dataset's folder")
    if alone := _masks_alone(path):
        raise _without_images(path, alone)
    looked = "; ".join(f"{name}: {SHAPES[name]}" for name in names)
    raise UserError(f"{path}: no known layout here or in its subfolders. Looked for {looked}")


def _masks_alone(path: Path) -> list[Path]:
    """The images below a folder if they look like masks, as far as a few from all over it tell."""
    found = images_below(path)
    few = found[:: max(1, -(-len(found) // LOOKED_AT))]
    return found if all(map(reads_as_mask, few)) else []


def _without_images(path: Path, masks: list[Path]) -> UserError:
    """What to say of a folder with masks and no images: where those have to lie."""
    folders = [p for p in masks[0].parents if p.name.lower() in MASK_DIRS and (path in (p, *p.parents))]
    base, name = (folders[-1].parent, folders[-1].name) if folders else (path, MASK_DIRS[1])
    first = masks[0].relative_to(path).as_posix()
    return UserError(
        f"{path}: looks like masks alone ({number_of(len(masks), 'file')}, {first} the first), without the images that "
        f"they are of; images of defects belong into {base / 'defects'}/<type>, masks of the same names into "
        f"{base / name}/<type>, normal images into {base / 'normal'}"
    )


def _masks_too(path: Path) -> Path | None:
    """A folder of masks beside the halves of a plain dataset."""
    named = [p for p in folders_in(path) if p.name.lower() in MASK_DIRS]
    return next((p for p in named if images_below(p)), None)


def _around_labelme(path: Path) -> Path | None:
    """The category that `path`, a folder of its defects, belongs to."""
    for folder in (path, path.parent):
        whole = folder.parent
        if folder.name.lower() in DEFECT_DIRS and any(p.name.lower() in NORMAL_DIRS for p in folders_in(whole)):
            return whole if is_labelme(whole) else None
    return None


def _around(path: Path, name: str) -> tuple[str, Path, list[Path], str | None] | None:
    """The category that `path` is a half (`test`) or a defect type (`test/crack`) of."""
    inner = DEFECT_DIRS + MASK_DIRS if name == "folder" else ("test", "ground_truth")
    if path.name.lower() in inner and LAYOUTS[name][0](path.parent):
        return name, path.parent, [path.parent], None
    if path.parent.name.lower() in inner and LAYOUTS[name][0](path.parent.parent):
        part = "damaged" if name == "btad" and path.name == "ko" else path.name
        return name, path.parent.parent, [path.parent.parent], part
    return None
