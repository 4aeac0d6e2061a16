"""Programs that exports are for, as readers: each takes an exported folder and gives the masks that it sees."""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hard_masks import SIZE, TYPES, Seen

from fast.data.decode import decode, image_size
from fast.data.images import read_mask


def by_pycocotools(folder: Path) -> Seen:
    from pycocotools.coco import COCO

    coco = COCO(str(folder / "annotations/instances_train.json"))
    found: Seen = {}
    for number, image in coco.imgs.items():
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        for entry in entries:
            assert entry["area"] == coco.annToMask(entry).sum()
        kinds = {coco.cats[e["category_id"]]["name"] for e in entries}
        found[Path(image["file_name"]).stem] = kinds.pop(), [coco.annToMask(e) for e in entries]
    return found


def by_datumaro(kind: str) -> Callable[[Path], Seen]:
    def read(folder: Path) -> Seen:
        import datumaro as dm

        place = folder / "part" if kind.startswith("mvtec") else folder
        dataset = dm.Dataset.import_from(str(place), kind)
        names = [c.name for c in dataset.categories()[dm.AnnotationType.label]]
        found: Seen = {}
        for item in dataset:
            shapes = [a for a in item.annotations if a.type in (dm.AnnotationType.mask, dm.AnnotationType.polygon)]
            if shapes:
                size = item.media.size if item.media else SIZE
                whole = [_datumaro_mask(a, tuple(size)) for a in shapes]
                found[Path(item.id).name] = names[shapes[0].label], whole
        return found

    return read


def _datumaro_mask(shape: Any, size: tuple[int, int]) -> np.ndarray:
    if hasattr(shape, "image"):
        return np.asarray(shape.image).astype(np.uint8)
    from pycocotools import mask as coder

    return coder.decode(coder.merge(coder.frPyObjects([list(shape.points)], *size)))


def by_supervision(folder: Path) -> Seen:
    import supervision as sv

    data = sv.DetectionDataset.from_yolo(
        str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"), force_masks=True
    )
    return {Path(path).stem: (data.classes[found.class_id[0]], list(found.mask.astype(np.uint8)))
            for path, _, found in data}  # fmt: skip


def by_ultralytics_rule(folder: Path) -> Seen:
    """What ultralytics' `polygon2mask` does, in its words: int32, then `cv2.fillPoly`; it needs a torchvision."""
    found: Seen = {}
    for path in sorted((folder / "labels/train").iterdir()):
        masks = []
        for line in path.read_text().splitlines():
            number, *values = line.split()
            points = np.asarray(values, np.float32).reshape(-1, 2) * np.array(SIZE[::-1], np.float32)
            masks.append(np.zeros(SIZE, np.uint8))
            cv2.fillPoly(masks[-1], [np.asarray(points, np.int32)], color=1)
        found[path.stem] = TYPES[int(number)], masks
    return found


def by_labelme(folder: Path) -> Seen:
    for name in ("PyQt5", "PyQt5.QtCore", "PyQt5.QtGui", "PyQt5.QtWidgets"):  # imported, and not used to read a file
        sys.modules.setdefault(name, types.ModuleType(name))
    for name in ("QtCore", "QtGui", "QtWidgets"):
        setattr(sys.modules["PyQt5"], name, sys.modules[f"PyQt5.{name}"])
    from labelme._label_file import LabelFile
    from labelme.utils import shape_to_mask

    found: Seen = {}
    for path in sorted(folder.glob("*.json")):
        file, whole = LabelFile(str(path)), dict[Any, np.ndarray]()
        for shape in file.shapes:
            own = whole.setdefault(shape["group_id"], np.zeros(SIZE, np.uint8))
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = np.asarray(shape["points"], int)
                own[top : bottom + 1, left : right + 1] |= shape["mask"].astype(np.uint8)
            else:
                own |= shape_to_mask(SIZE, shape["points"], shape["shape_type"]).astype(np.uint8)
        found[path.stem] = file.shapes[0]["label"], list(whole.values())
    return found


def by_datasets(folder: Path) -> Seen:
    from datasets import load_dataset

    rows = load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(folder.parent / "cache"))["train"]
    assert all(row["image"].size == row["mask"].size for row in rows)
    return {Path(json.loads(r["provenance"])["image"]).stem: (r["type"], [(np.asarray(r["mask"]) > 0).astype(np.uint8)])
            for r in rows}  # fmt: skip


def by_webdataset(folder: Path) -> Seen:
    import webdataset

    shards = sorted(str(p) for p in folder.glob("*.tar"))
    rows = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
    found: Seen = {}
    for row in rows:
        assert row["image.png"].shape == (*SIZE, 3)
        found[row["__key__"]] = row["json"]["type"], [(row["mask.png"][..., 0] > 0).astype(np.uint8)]
    return found


def with_torchvision() -> None:
    """anomalib and mmseg import torchvision, whose compiled operators may be for another torch; they are not called."""
    torch = importlib.import_module("torch")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        with_torchvision.kept = library  # type: ignore[attr-defined]


def by_anomalib(folder: Path) -> Seen:
    with_torchvision()
    from anomalib.data import Folder

    given = importlib.import_module("yaml").safe_load((folder / "anomalib.yaml").read_text())
    assert given["class_path"] == "anomalib.data.Folder"
    data = Folder(**{**given["init_args"], "root": folder}, test_split_mode="from_dir", val_split_mode="same_as_test")
    data.setup()
    assert len(data.train_data) == 1
    found: Seen = {}
    for item in data.test_data:
        if item.gt_label:
            kind, _, stem = Path(item.image_path).stem.partition("_")
            found[stem] = kind, [item.gt_mask.numpy().astype(np.uint8)]
    return found


def by_anomalib_mvtec(folder: Path) -> Seen:
    with_torchvision()
    from anomalib.data.datasets.image.mvtecad import make_mvtec_ad_dataset

    table = make_mvtec_ad_dataset(folder / "part", split="test")
    return {Path(r.image_path).stem: (r.label, [read_mask(r.mask_path)]) for r in table.itertuples()}


def by_mmseg(folder: Path) -> Seen:
    with_torchvision()
    stub = types.ModuleType("mmcv._ext")  # compiled operators of networks
    stub.__getattr__ = lambda name: None  # type: ignore[method-assign]
    sys.modules.setdefault("mmcv._ext", stub)
    from mmengine import Config
    from mmseg.datasets import BaseSegDataset

    given = Config.fromfile(str(folder / "dataset.py"))
    options = {k: v for k, v in given.train_dataset.items() if k not in ("type", "pipeline")}
    data = BaseSegDataset(**{**options, "data_root": str(folder)}, pipeline=[])
    found: Seen = {}
    for i in range(len(data)):
        row = data.get_data_info(i)
        labels = decode(Path(row["seg_map_path"])).values
        assert image_size(row["img_path"]) == labels.shape
        name = data.metainfo["classes"][int(labels.max())]
        found[Path(row["img_path"]).stem] = name, [(labels > 0).astype(np.uint8)]
    return found
