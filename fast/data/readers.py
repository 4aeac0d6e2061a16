"""The layouts: how each is recognised and how one category folder of it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fast.data.category import DEFECT_DIRS, MASK_DIRS, NORMAL_DIRS, OTHER_DIRS, CategoryReader
from fast.data.groups import read_table
from fast.data.images import is_image, list_files, list_images, natural_key
from fast.data.labelme_reader import is_labelme, read_labelme
from fast.data.made import is_made, without_made
from fast.data.pairing import has_masks_beside, has_twins, images_below, split_beside
from fast.data.published import (
    is_bsdata,
    is_dagm,
    is_kolektor,
    is_magnetic_tile,
    read_bsdata,
    read_dagm,
    read_kolektor,
    read_magnetic_tile,
)
from ldm.errors import UserError


def _read_tree(category: CategoryReader, good: str, names: dict[str, str]) -> None:
    """MVTec and BTAD: train/<good>, test/<good>, test/<type>, ground_truth/<type>.

    Of MVTec LOCO and AD 2 also validation/good, a folder of masks for an image, and test_public, which holds its own
    ground_truth.
    """
    folder = category.folder
    for half in ("train", "validation"):
        category.normals(folder / half / good)
    for test in (folder / "test", folder / "test_public"):
        truth = (folder if test.name == "test" else test) / "ground_truth"
        category.normals(test / good, test=True)
        kinds = {p.name for p in [*folders_in(test), *folders_in(truth)] if p != truth and p.name != good}
        for kind in sorted(kinds):
            category.defects([test / kind], [truth / kind], names.get(kind, kind), truth / kind)
        for mask in images_below(truth / good):
            if category.has_defect(mask):
                category.problem(mask, f"mask with a defect, but '{good}' names the normals; move mask and image")


def _read_mvtec(category: CategoryReader) -> None:
    _read_tree(category, "good", {})


def _read_btad(category: CategoryReader) -> None:
    _read_tree(category, "ok", {"ko": "damaged"})


def _read_visa(category: CategoryReader) -> None:
    data = category.folder / "Data"
    table = category.folder / "image_anno.csv"
    masks = data / "Masks" / "Anomaly"
    if not table.is_file():
        category.normals(data / "Images" / "Normal")
        category.defects([data / "Images" / "Anomaly"], [masks], "anomaly", masks)
        return
    tests = _visa_test_images(category)
    unused = {*_images(data / "Images" / "Normal"), *_images(data / "Images" / "Anomaly"), *_images(masks)}
    category.index.seen.add(table)
    for row in read_table(table, ("image", "label", "mask")):
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


def _visa_test_images(category: CategoryReader) -> set[Path]:
    table = category.folder.parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        return set()
    rows = read_table(table, ("object", "split", "image"))
    return {
        _visa_path(category.folder, row["image"])
        for row in rows
        if row["object"] == category.name and row["split"] == "test"
    }


def _read_folder(category: CategoryReader) -> None:
    folder = category.folder
    normals, defects = _named(folder, NORMAL_DIRS), _named(folder, DEFECT_DIRS)
    masks = _named(folder, MASK_DIRS)
    if not (normals or defects or masks):
        category.normals(folder, below=False)
        return
    for normal in normals:
        category.normals(normal)
    kinds = sorted({p.name for parent in [*defects, *masks] for p in folders_in(parent)})
    looked = masks[0] if masks else folder / "masks"
    for kind in kinds:
        category.defects([p / kind for p in defects], [p / kind for p in masks], kind, looked / kind)
    category.defects(defects, masks, "defect", looked, below=False)


def _read_beside(category: CategoryReader) -> None:
    """Images and masks in the same folders: an image whose mask is empty, or that has none, is a normal."""
    images, masks, problems = split_beside(images_below(category.folder))
    for path, what in problems:
        category.problem(path, what)
    for image in images:
        inside = {part.lower() for part in image.relative_to(category.folder).parts[:-1]}
        mask = masks.get(image)
        if mask is not None and category.has_defect(mask):
            category.index.defects.append(category.sample(image, "defect", mask))
        else:
            target = category.index.test_normals if "test" in inside else category.index.normals
            target.append(category.sample(image))


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
    """`normal` or `defects` name the halves, unless they are categories of a larger dataset themselves."""
    halves = _named(folder, NORMAL_DIRS) + _named(folder, DEFECT_DIRS)
    return any(not is_category(half) for half in halves)


def is_category(folder: Path) -> bool:
    """True for a folder that is a category of one of the published layouts, or has both halves of a plain one."""
    if any(test(folder) for test in (_is_mvtec, _is_btad, _is_visa)):
        return True
    return bool(_named(folder, NORMAL_DIRS)) and bool(_named(folder, DEFECT_DIRS))


def _is_beside(folder: Path) -> bool:
    """Masks called like the images beside them, in the folder or in those that divide it."""
    files = [p for p in list_files(folder, lambda p: p.name.lower() in OTHER_DIRS) if is_image(p)]
    files = without_made(files, folder)
    if has_masks_beside(files):
        return True
    return has_twins(files) and bool(split_beside(files)[1])


LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[CategoryReader], None]]] = {
    "mvtec": (_is_mvtec, _read_mvtec),
    "btad": (_is_btad, _read_btad),
    "visa": (_is_visa, _read_visa),
    "kolektor": (is_kolektor, read_kolektor),
    "dagm": (is_dagm, read_dagm),
    "magnetic_tile": (is_magnetic_tile, read_magnetic_tile),
    "bsdata": (is_bsdata, read_bsdata),
    "labelme": (is_labelme, read_labelme),
    "folder": (_is_folder, _read_folder),
    "beside": (_is_beside, _read_beside),
}
SHAPES = {
    "mvtec": "train/good, test/<type>, ground_truth/<type>",
    "btad": "train/ok, test/ko, ground_truth/ko",
    "visa": "Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly",
    "kolektor": "kos01/Part0.jpg, kos01/Part0_label.bmp",
    "dagm": "Train/Label, Test/Label",
    "magnetic_tile": "MT_Blowhole/Imgs, ...",
    "bsdata": "data/, label/ of LabelMe",
    "labelme": "<image>.json of LabelMe beside the images",
    "folder": "normal/, defect/, mask/, or images",
    "beside": "<image>_GT.png beside the images",
}


def _images(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that may belong to a dataset: no hidden ones, and no pairs that were made."""
    try:
        found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}); check its permissions") from error
    return [p for p in found if not is_made(p)]


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folders_in(folder) if p.name.lower() in names)
