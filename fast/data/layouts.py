"""Where the images, masks, defect types and physical parts of a dataset are: MVTec, BTAD, VisA or a plain folder."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fast.data.images import list_images, natural_key, read_image, read_mask
from ldm.errors import UserError

GOOD = "good"
GROUPS = "groups.csv"
NORMAL_DIRS = ("normal", "normals", "good", "ok")
DEFECT_DIRS = ("defect", "defects", "ko", "ng", "anomaly", "anomalies", "bad")
MASK_DIRS = ("mask", "masks", "ground_truth", "gt")


@dataclass(frozen=True)
class Sample:
    """One image. `anomaly` is "good" for a normal; `group` names the physical part, unique per image if unknown."""

    image: Path
    mask: Path | None
    category: str
    anomaly: str
    group: str


@dataclass
class DatasetIndex:
    """What a dataset holds, by name only. Each line of `problems` begins with the file, relative to `root`.

    `excluded`: defects that `check` found unusable; they are in none of the other lists.
    """

    root: Path
    layout: str
    normals: list[Sample]
    test_normals: list[Sample]
    defects: list[Sample]
    problems: list[str]
    excluded: list[Sample] = field(default_factory=list)

    @property
    def categories(self) -> list[str]:
        samples = [*self.normals, *self.test_normals, *self.defects, *self.excluded]
        return sorted({s.category for s in samples}, key=natural_key)

    @property
    def types(self) -> list[tuple[str, str]]:
        """Sorted (category, anomaly) pairs of the defects."""
        return sorted({(s.category, s.anomaly) for s in self.defects})

    def relative(self, path: Path) -> str:
        return _relative(path, self.root)

    def narrow(self, category: str | None = None, anomaly: str | None = None) -> DatasetIndex:
        """Only this category and this defect type, with the normals of the categories left. UserError: unknown name."""
        index = self if category is None else self._of_category(category)
        return index if anomaly is None else index._of_type(anomaly)

    def _of_category(self, category: str) -> DatasetIndex:
        if category not in self.categories:
            raise UserError(f"{self.root}: no category '{category}'; it holds: {', '.join(self.categories)}")
        problems = self.problems
        if len(self.categories) > 1:
            problems = [line for line in problems if line.startswith(f"{category}/")]
        return self._keep(lambda s: s.category == category, lambda s: s.category == category, problems)

    def _of_type(self, anomaly: str) -> DatasetIndex:
        defects = [*self.defects, *self.excluded]
        known = {s.anomaly for s in defects}
        if anomaly not in known:
            why = [line for line in self.problems if anomaly in Path(_file(line)).parts][:1]
            holds = f"; usable types: {', '.join(sorted(known)) or 'none'}"
            raise UserError("; ".join([f"{self.root}: no usable defect of type '{anomaly}'", *why]) + holds)
        left = {s.category for s in defects if s.anomaly == anomaly}
        problems = [line for line in self.problems if not (known - {anomaly}) & set(Path(_file(line)).parts)]
        return self._keep(lambda s: s.category in left, lambda s: s.anomaly == anomaly, problems)

    def _keep(
        self, normal: Callable[[Sample], bool], defect: Callable[[Sample], bool], problems: list[str]
    ) -> DatasetIndex:
        return replace(
            self,
            normals=list(filter(normal, self.normals)),
            test_normals=list(filter(normal, self.test_normals)),
            defects=list(filter(defect, self.defects)),
            excluded=list(filter(defect, self.excluded)),
            problems=problems,
        )


def open_dataset(
    path: str | Path, layout: str = "auto", category: str | None = None, anomaly: str | None = None
) -> DatasetIndex:
    """Index the dataset at `path`: a root of many categories, one category, or the folder of one defect type.

    `layout` is one of mvtec, btad, visa, folder, auto. No file is decoded (see `check`). UserError when the path is
    missing or empty, no layout fits, or a name is unknown.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(f"layout='{layout}' is unknown; use one of auto, {', '.join(LAYOUTS)}")
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; give the dataset's folder")
    name, root, folders, part = _locate(root, tuple(LAYOUTS) if layout == "auto" else (layout,))
    index = DatasetIndex(root, name, [], [], [], [])
    for folder in folders:
        reader = _Category(index, folder)
        LAYOUTS[name][1](reader)
        reader.finish()
    if not (index.normals or index.test_normals or index.defects):
        detail = "".join(f"; {line}" for line in index.problems[:3])
        raise UserError(f"{root}: layout {name}, but no usable image in it{detail}; fill the folders")
    return index.narrow(category, part).narrow(anomaly=anomaly)


@dataclass
class TypeRow:
    """Counts of one type: `anomaly` is a defect type, "good", or "good (test)". Sides are (min, max) in pixels."""

    category: str
    anomaly: str
    images: int
    masks_ok: int
    groups: int
    width: tuple[int, int]
    height: tuple[int, int]


@dataclass
class Report:
    """What `check` found. `usable` is the index without the bad samples; its problem lines are `problems` too."""

    rows: list[TypeRow]
    problems: list[str]
    usable: DatasetIndex


def check(index: DatasetIndex, progress: Callable[[int, int], None] | None = None) -> Report:
    """Decode every file. `progress(done, total)` is called after each sample. Bad samples leave `Report.usable`."""
    test_good = f"{GOOD} (test)"
    jobs = [((s.category, GOOD), s) for s in index.normals] + [((s.category, test_good), s) for s in index.test_normals]
    jobs += [((s.category, s.anomaly), s) for s in sorted(index.defects, key=lambda s: (s.category, s.anomaly))]
    sides: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    kept: dict[tuple[str, str], list[Sample]] = {}
    problems = list(index.problems)
    for done, (key, sample) in enumerate(jobs, 1):
        size, found = _check_sample(index, sample)
        problems.extend(found)
        sides[key].extend([size] if size else [])
        kept.setdefault(key, []).extend([] if found else [sample])
        if progress:
            progress(done, len(jobs))
    rows = [_row(key, [s for k, s in jobs if k == key], kept[key], sides[key]) for key in kept]
    for key in (key for key, samples in kept.items() if not samples):
        samples = [s for k, s in jobs if k == key]
        where = index.relative(samples[0].image.parent)
        problems.append(f"{where}: none of the {len(samples)} samples of '{key[1]}' is usable")
    good = {s for samples in kept.values() for s in samples}
    usable = replace(
        index,
        normals=[s for s in index.normals if s in good],
        test_normals=[s for s in index.test_normals if s in good],
        defects=[s for s in index.defects if s in good],
        excluded=[*index.excluded, *(s for s in index.defects if s not in good)],
        problems=problems,
    )
    return Report(sorted(rows, key=lambda row: natural_key(row.category)), problems, usable)


def _check_sample(index: DatasetIndex, sample: Sample) -> tuple[tuple[int, int] | None, list[str]]:
    """Size (h, w) of the image if it can be read, and what is wrong."""
    try:
        size = read_image(sample.image).shape[:2]
    except UserError as error:
        return None, [f"{index.relative(sample.image)}: {_what(error, sample.image)}"]
    if sample.mask is None:
        return size, []
    name = index.relative(sample.mask)
    try:
        mask = read_mask(sample.mask)
    except UserError as error:
        return size, [f"{name}: {_what(error, sample.mask)}"]
    if mask.shape != size:
        height, width = size
        return size, [f"{name}: mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}; make them equal"]
    return size, [] if mask.any() else [f"{name}: empty mask; draw the defect or move the image to the normals"]


def require_defects(index: DatasetIndex) -> None:
    """UserError with the first reasons when no defect is left. Give it `Report.usable`, so that files were decoded."""
    if not index.defects:
        shown = index.problems[:3]
        more = [f"and {len(index.problems) - 3} more problems"] if len(index.problems) > 3 else []
        reasons = "; ".join([*shown, *more]) or "it holds normal images only"
        raise UserError(f"{index.root}: no usable defect with a mask ({reasons}); add images and masks of defects")


def _row(key: tuple[str, str], samples: list[Sample], kept: list[Sample], sides: list[tuple[int, int]]) -> TypeRow:
    heights, widths = [h for h, _ in sides] or [0], [w for _, w in sides] or [0]
    return TypeRow(
        *key,
        images=len(samples),
        masks_ok=sum(s.mask is not None for s in kept),
        groups=len({s.group for s in samples}),
        width=(min(widths), max(widths)),
        height=(min(heights), max(heights)),
    )


def _locate(path: Path, names: tuple[str, ...]) -> tuple[str, Path, list[Path], str | None]:
    """Layout, root, category folders and, when `path` is the folder of one defect type, that type."""
    strong = [name for name in names if name != "folder"]
    for name in strong:
        if LAYOUTS[name][0](path):
            return name, path, [path], None
        if around := _around(path, name):
            return around
    if "folder" in names and _is_folder(path):
        return "folder", path, [path], None
    for name in names:
        found = [p for p in sorted(_folders(path), key=natural_key) if LAYOUTS[name][0](p)]
        if found:
            return name, path, found, None
    # Last, since names such as `bad` or `masks` may stand above any dataset.
    if "folder" in names and (around := _around(path, "folder")):
        return around
    if "folder" in names and list_images(path):
        return "folder", path, [path], None  # images alone: normals without defects
    if not any(path.iterdir()):
        raise UserError(f"{path}: the folder is empty; give the dataset's folder")
    looked = "; ".join(f"{name}: {_SHAPES[name]}" for name in names)
    raise UserError(f"{path}: no known layout here or in its subfolders. Looked for {looked}")


def _around(path: Path, name: str) -> tuple[str, Path, list[Path], str | None] | None:
    """The category that `path` is a half (`test`) or a defect type (`test/crack`) of."""
    inner = DEFECT_DIRS + MASK_DIRS if name == "folder" else ("test", "ground_truth")
    if path.name.lower() in inner and LAYOUTS[name][0](path.parent):
        return name, path.parent, [path.parent], None
    if path.parent.name.lower() in inner and LAYOUTS[name][0](path.parent.parent):
        part = "damaged" if name == "btad" and path.name == "ko" else path.name
        return name, path.parent.parent, [path.parent.parent], part
    return None


class _Category:
    """Adds one category folder's samples to an index."""

    def __init__(self, index: DatasetIndex, folder: Path) -> None:
        self.index, self.folder, self.name = index, folder, folder.name
        self.groups = _read_groups(index.root) | _read_groups(folder)
        self.ungrouped: list[Path] = []

    def sample(self, image: Path, anomaly: str = GOOD, mask: Path | None = None) -> Sample:
        group = self.groups.get(image)
        if self.groups and not group and anomaly != GOOD:
            self.ungrouped.append(image)
        return Sample(image, mask, self.name, anomaly, group or self.index.relative(image))

    def finish(self) -> None:
        """Say which defects the table of groups forgot: a forgotten row is how a split comes to leak."""
        if self.ungrouped:
            table = next(p for p in (self.folder / GROUPS, self.index.root / GROUPS) if p.is_file())
            first, count = self.index.relative(self.ungrouped[0]), len(self.ungrouped)
            self.problem(table, f"{count} defects have no row (first: {first}); each counts as a part of its own")

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


def _read_tree(category: _Category, good: str, names: dict[str, str]) -> None:
    """MVTec and BTAD: train/<good>, test/<good>, test/<type>, ground_truth/<type>."""
    folder = category.folder
    category.normals(folder / "train" / good)
    category.normals(folder / "test" / good, test=True)
    for kind in sorted({p.name for half in ("test", "ground_truth") for p in _folders(folder / half)} - {good}):
        masks = folder / "ground_truth" / kind
        category.defects(_images(folder / "test" / kind), _images(masks), names.get(kind, kind), masks)


def _read_mvtec(category: _Category) -> None:
    _read_tree(category, "good", {})


def _read_btad(category: _Category) -> None:
    _read_tree(category, "ok", {"ko": "damaged"})


def _read_visa(category: _Category) -> None:
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


def _visa_test_images(category: _Category) -> set[Path]:
    table = category.folder.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        return set()
    rows = _rows(table, ("object", "split", "image"))
    return {
        _visa_path(category.folder, row["image"])
        for row in rows
        if row["object"] == category.name and row["split"] == "test"
    }


def _read_folder(category: _Category) -> None:
    folder = category.folder
    normals, defects = _named(folder, NORMAL_DIRS), _named(folder, DEFECT_DIRS)
    masks = _named(folder, MASK_DIRS)
    if not (normals or defects or masks):
        category.normals(folder)
    for normal in normals:
        category.normals(normal)
    kinds = sorted({p.name for parent in [*defects, *masks] for p in _folders(parent)})
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


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[_Category], None]]] = {
    "mvtec": (_is_mvtec, _read_mvtec),
    "btad": (_is_btad, _read_btad),
    "visa": (_is_visa, _read_visa),
    "folder": (_is_folder, _read_folder),
}
_SHAPES = {
    "mvtec": "train/good, test/<type>, ground_truth/<type>",
    "btad": "train/ok, test/ko, ground_truth/ko",
    "visa": "Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly",
    "folder": "normal/, defect/, mask/, or images",
}


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _file(line: str) -> str:
    return line.split(": ", 1)[0]


def _what(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _images(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}); check its permissions") from error


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in _folders(folder) if p.name.lower() in names)


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
