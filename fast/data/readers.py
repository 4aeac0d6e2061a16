"""The layouts: how each is recognised and how one category folder of it is read."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fast.data.images import list_images, natural_key
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.labelme_reader import DEFECT_DIRS, NORMAL_DIRS, is_labelme, read_labelme
from ldm.errors import UserError

GROUPS = "groups.csv"
MASK_DIRS = ("mask", "masks", "ground_truth", "gt")


class Category:
    """Adds one category folder's samples to an index."""

    def __init__(self, index: DatasetIndex, folder: Path) -> None:
        self.index, self.folder, self.name = index, folder, folder.name
        self.groups = _read_groups(index.root) | _read_groups(folder)
        self.ungrouped: list[Path] = []
        self.unused: list[Path] = []

    def sample(self, image: Path, anomaly: str = GOOD, mask: Path | None = None) -> Sample:
        group = self.groups.get(image)
        if self.groups and not group and anomaly != GOOD:
            self.ungrouped.append(image)
        return Sample(image, mask, self.name, anomaly, group or self.index.relative(image))

    def finish(self) -> None:
        """Say what was not used, and which defects the table of groups forgot: that is how a split comes to leak."""
        if self.ungrouped:
            table = next(p for p in (self.folder / GROUPS, self.index.root / GROUPS) if p.is_file())
            first, count = self.index.relative(self.ungrouped[0]), len(self.ungrouped)
            self.problem(table, f"{count} defects have no row (first: {first}); each counts as a part of its own")

        if self.unused:
            first, count = self.index.relative(self.unused[0]), len(self.unused)
            self.index.notes.append(f"{self.index.relative(self.folder)}: {count} files not used (first: {first})")

    def problem(self, path: Path, what: str) -> None:
        self.index.problems.append(f"{self.index.relative(path)}: {what}")

    def normals(self, folder: Path, test: bool = False) -> None:
        target = self.index.test_normals if test else self.index.normals
        target.extend(self.sample(image) for image in _images(folder))

    def defects(self, images: Iterable[Path], masks: Iterable[Path], anomaly: str, looked: Path) -> None:
        """Match by stem or stem + `_mask`; what has no partner becomes a problem line."""
        by_stem = {mask.stem: mask for mask in masks}
        left = set(by_stem.values())
        for image in images:
            mask = by_stem.get(f"{image.stem}_mask") or by_stem.get(image.stem)
            if mask is None:
                where = f"{self.index.relative(looked)}/{image.stem}[_mask].*"
                self.problem(image, f"defect without mask; add {where}")
                continue
            left.discard(mask)
            self.index.defects.append(self.sample(image, anomaly, mask))
        for mask in sorted(left, key=natural_key):
            self.problem(mask, f"mask without image; '{anomaly}' has no image of that name")


def _read_tree(category: Category, good: str, names: dict[str, str]) -> None:
    """MVTec and BTAD: train/<good>, test/<good>, test/<type>, ground_truth/<type>."""
    folder = category.folder
    category.normals(folder / "train" / good)
    category.normals(folder / "test" / good, test=True)
    for kind in sorted({p.name for half in ("test", "ground_truth") for p in folders_in(folder / half)} - {good}):
        masks = folder / "ground_truth" / kind
        category.defects(_images(folder / "test" / kind), _images(masks), names.get(kind, kind), masks)


def _read_mvtec(category: Category) -> None:
    _read_tree(category, "good", {})


def _read_btad(category: Category) -> None:
    _read_tree(category, "ok", {"ko": "damaged"})


def _read_visa(category: Category) -> None:
    data = category.folder / "Data"
    table = category.folder / "image_anno.csv"
    masks = data / "Masks" / "Anomaly"
    if not table.is_file():
        category.normals(data / "Images" / "Normal")
        category.defects(_images(data / "Images" / "Anomaly"), _images(masks), "anomaly", masks)
        return
    tests = _visa_test_images(category)
    unused = {*_images(data / "Images" / "Normal"), *_images(data / "Images" / "Anomaly"), *_images(masks)}
    for row in _rows(table, ("image", "label", "mask")):
        image = _visa_path(category.folder, row["image"])
        mask = _visa_path(category.folder, row["mask"]) if row["mask"] else None
        unused -= {image, mask}
        label = "+".join(word.strip() for word in row["label"].split(",") if word.strip())
        if not image.is_file():
            category.problem(image, f"no such image, but {table.name} names it")
        elif label.lower() == "normal":
            target = category.index.test_normals if image in tests else category.index.normals
            target.append(category.sample(image))
        elif mask is None or not mask.is_file():
            category.problem(image, f"defect without mask; {table.name} names {row['mask'] or 'none'}")
        else:
            category.index.defects.append(category.sample(image, label or "anomaly", mask))
    for path in sorted(unused, key=natural_key):
        what = "mask without image" if path.parent == masks else "image without a label"
        category.problem(path, f"{what}; {table.name} does not name it")


def _visa_path(folder: Path, text: str) -> Path:
    """The table names files from the dataset root, `candle/Data/...`; the category may have been renamed since."""
    parts = text.replace("\\", "/").split("/")
    return folder.joinpath(*parts[parts.index("Data") :]) if "Data" in parts else folder.joinpath(*parts)


def _visa_test_images(category: Category) -> set[Path]:
    table = category.folder.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        return set()
    rows = _rows(table, ("object", "split", "image"))
    return {
        _visa_path(category.folder, row["image"])
        for row in rows
        if row["object"] == category.name and row["split"] == "test"
    }


def _read_folder(category: Category) -> None:
    folder = category.folder
    normals, defects = _named(folder, NORMAL_DIRS), _named(folder, DEFECT_DIRS)
    masks = _named(folder, MASK_DIRS)
    if not (normals or defects or masks):
        category.normals(folder)
    for normal in normals:
        category.normals(normal)
    kinds = sorted({p.name for parent in [*defects, *masks] for p in folders_in(parent)})
    for kind in ["", *kinds]:
        images = [image for parent in defects for image in _images(parent / kind)]
        found = [mask for parent in masks for mask in _images(parent / kind)]
        category.defects(images, found, kind or "defect", (masks[0] if masks else folder / "masks") / kind)


def _is_mvtec(folder: Path) -> bool:
    if (folder / "train" / "good").is_dir():
        return True
    return (folder / "test").is_dir() and (folder / "ground_truth").is_dir() and not _is_btad(folder)


def _is_btad(folder: Path) -> bool:
    return any((folder / half / kind).is_dir() for half, kind in (("train", "ok"), ("test", "ok"), ("test", "ko")))


def _is_visa(folder: Path) -> bool:
    images = folder / "Data" / "Images"
    return (images / "Normal").is_dir() or (images / "Anomaly").is_dir()


def _is_folder(folder: Path) -> bool:
    return bool(_named(folder, NORMAL_DIRS) or _named(folder, DEFECT_DIRS))


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Category], None]]] = {
    "mvtec": (_is_mvtec, _read_mvtec),
    "btad": (_is_btad, _read_btad),
    "visa": (_is_visa, _read_visa),
    "labelme": (is_labelme, read_labelme),
    "folder": (_is_folder, _read_folder),
}
SHAPES = {
    "mvtec": "train/good, test/<type>, ground_truth/<type>",
    "btad": "train/ok, test/ko, ground_truth/ko",
    "visa": "Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly",
    "labelme": "<image>.json of LabelMe beside the images",
    "folder": "normal/, defect/, mask/, or images",
}


def _images(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def folders_in(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}); check its permissions") from error


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folders_in(folder) if p.name.lower() in names)


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file as stripped strings. UserError when it cannot be read or lacks a column."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{table}: no column '{missing[0]}'; it needs {', '.join(columns)}")
            return [{c: (row[c] or "").strip() for c in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot read the table ({error}); save it as UTF-8 CSV") from error


def _read_groups(folder: Path) -> dict[Path, str]:
    """groups.csv of a folder: image -> physical part. UserError when an image is given two parts."""
    table = folder / GROUPS
    groups: dict[Path, str] = {}
    for row in _rows(table, ("image", "group")) if table.is_file() else ():
        image = Path(os.path.normpath(folder / row["image"].replace("\\", "/")))
        if groups.setdefault(image, row["group"]) != row["group"]:
            raise UserError(f"{table}: '{row['image']}' has two groups, {groups[image]} and {row['group']}; keep one")
    return groups
