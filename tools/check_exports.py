"""Exports read by the programs they are for: do these see the same images, instances and pixels?

    python tools/check_exports.py --out docs/exports.md

Exports a set of hard masks in every format, reads each back with the format's own client, and compares counts, areas and
every pixel. Clients that are not installed are said to be missing. They do not all live beside the project's torch; make
them an environment of their own, out of which this file is run:

    python -m venv clients && clients/bin/pip install -r requirements.txt pycocotools supervision datumaro datasets \\
      webdataset label-studio-sdk labelme anomalib mmengine mmcv-lite==2.1.0 mmsegmentation ftfy
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import tempfile
import types
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.data.formats.outlines import parts  # noqa: E402
from fast.data.images import read_mask, write_image, write_mask  # noqa: E402
from fast.export.formats import export  # noqa: E402
from fast.runtime.tables import markdown  # noqa: E402

# What a client read: by image name (type, masks of its instances or, where the format has none, the whole mask alone).
Seen = dict[str, tuple[str, list[np.ndarray]]]
TYPES = ("crack", "hole")


def hard_masks() -> list[np.ndarray]:
    """Rings and islands, instances that touch with a side and with a corner, hairlines, single pixels, borders, dust."""
    rng, blank = np.random.default_rng(0), np.zeros((61, 90), np.uint8)
    masks = [blank.copy() for _ in range(8)]
    cv2.circle(masks[0], (40, 30), 20, 1, -1)
    cv2.circle(masks[0], (40, 30), 12, 0, -1)  # a ring
    cv2.circle(masks[0], (40, 30), 5, 1, -1)  # with an island
    masks[1][10:40, 10:30], masks[1][20:50, 30:60] = 1, 1  # two squares that touch with a side: one instance
    masks[1][15:20, 15:20], masks[1][30:33, 40:44] = 0, 0  # and two holes
    masks[2][10:20, 10:20], masks[2][20:30, 20:30] = 1, 1  # that touch with a corner: one instance
    masks[2][40:50, 10:20], masks[2][40:50, 21:30] = 1, 1  # that do not touch
    cv2.line(masks[3], (3, 5), (80, 50), 1)
    masks[3][60, :], masks[3][:, 89] = 1, 1  # at the border
    masks[4][7, 9], masks[4][30, 40:42], masks[4][50:52, 70] = 1, 1, 1
    masks[5][:] = rng.random(blank.shape) < 0.35
    masks[6][:] = cv2.GaussianBlur(rng.random(blank.shape), (0, 0), 2) > 0.52
    masks[7][:] = 1
    masks[7][1, 1], masks[7][30:32, 88] = 0, 0
    return masks


def make_run(folder: Path) -> Path:
    """A folder as generate_with_mask.py leaves it."""
    rng, lines = np.random.default_rng(1), []
    normal = folder.parent / "normal" / "0.png"
    write_image(normal, rng.integers(0, 255, (61, 90, 3), np.uint8))
    for i, mask in enumerate(hard_masks()):
        write_image(folder / f"image/{i:06d}.png", rng.integers(0, 255, (*mask.shape, 3), np.uint8))
        write_mask(folder / f"mask/{i:06d}.png", mask)
        row = {"index": i, "image": f"image/{i:06d}.png", "mask": f"mask/{i:06d}.png", "normal_source": str(normal),
               "type": f"part/{TYPES[i % 2]}", "pair_seed": i}  # fmt: skip
        lines.append(json.dumps(row) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def truth(run: Path) -> Seen:
    found: Seen = {}
    for i, path in enumerate(sorted((run / "mask").iterdir())):
        mask = read_mask(path)
        whole = []
        for box, part in parts(mask):
            whole.append(np.zeros_like(mask))
            whole[-1][box] = part
        found[path.stem] = TYPES[i % 2], whole
    return found


# clients: each reads an exported folder


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
                size = item.media.size if item.media else (61, 90)
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
            points = np.asarray(values, np.float32).reshape(-1, 2) * np.array([90, 61], np.float32)
            masks.append(np.zeros((61, 90), np.uint8))
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
            own = whole.setdefault(shape["group_id"], np.zeros((61, 90), np.uint8))
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = np.asarray(shape["points"], int)
                own[top : bottom + 1, left : right + 1] |= shape["mask"].astype(np.uint8)
            else:
                own |= shape_to_mask((61, 90), shape["points"], shape["shape_type"]).astype(np.uint8)
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
        assert row["image.png"].shape == (61, 90, 3)
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
        labels = cv2.imread(row["seg_map_path"], cv2.IMREAD_UNCHANGED)
        assert cv2.imread(row["img_path"]).shape[:2] == labels.shape
        name = data.metainfo["classes"][int(labels.max())]
        found[Path(row["img_path"]).stem] = name, [(labels > 0).astype(np.uint8)]
    return found


# format, polygons, package, what reads, whether the format tells instances apart
CHECKS: list[tuple[str, bool, str, str, Callable[[Path], Seen], bool]] = [
    ("mvtec", False, "anomalib", "make_mvtec_ad_dataset", by_anomalib_mvtec, False),
    ("mvtec", False, "datumaro", "mvtec_segmentation", by_datumaro("mvtec_segmentation"), False),
    ("anomalib", False, "anomalib", "Folder datamodule", by_anomalib, False),
    ("coco", False, "pycocotools", "COCO.annToMask", by_pycocotools, True),
    ("coco", False, "datumaro", "coco_instances", by_datumaro("coco_instances"), True),
    ("coco", True, "pycocotools", "COCO.annToMask", by_pycocotools, True),
    ("yolo", False, "supervision", "DetectionDataset.from_yolo", by_supervision, True),
    ("yolo", False, "opencv-python-headless", "fillPoly, as ultralytics calls it", by_ultralytics_rule, True),
    ("labelme", False, "labelme", "LabelFile", by_labelme, True),
    ("labelme", True, "labelme", "LabelFile, shape_to_mask", by_labelme, True),
    ("cvat", False, "datumaro", "cvat", by_datumaro("cvat"), True),
    ("cvat", True, "datumaro", "cvat", by_datumaro("cvat"), False),
    ("mmseg", False, "mmsegmentation", "Config, BaseSegDataset", by_mmseg, False),
    ("imagefolder", False, "datasets", "load_dataset", by_datasets, False),
    ("webdataset", False, "webdataset", "WebDataset", by_webdataset, False),
]


def compare(seen: Seen, true: Seen, instances: bool) -> tuple[str, str, str, str]:
    """Images, instances, areas and pixels: how many of how many agree."""
    found = [(name, kind, masks) for name, (kind, masks) in true.items() if name in seen and seen[name][0] == kind]
    count = whole = exact = total = 0
    for name, _, masks in found:
        theirs = seen[name][1]
        ours, joined = np.maximum.reduce(masks), np.maximum.reduce([np.zeros_like(masks[0]), *theirs])
        exact += int((ours == joined).sum()) if ours.shape == joined.shape else 0
        total += ours.size
        left = {m.tobytes() for m in theirs}
        count += len(masks)
        whole += sum(m.tobytes() in left for m in masks)
    right = f"{whole} of {count}" if instances else "no instances"
    return f"{len(found)} of {len(true)}", right, f"{total - exact}" if found else "-", "yes" if (
        len(found) == len(true) == len(seen) and exact == total and (not instances or whole == count)
    ) else "no"  # fmt: skip


def rows(folder: Path) -> Iterable[list[str]]:
    run = make_run(folder / "run")
    true = truth(run)
    for kind, polygons, package, reader, client, instances in CHECKS:
        out = folder / f"{kind}{polygons}{package}"
        export(run, kind, out, polygons)
        name = f"{kind}, polygons" if polygons else kind
        try:
            told = f"{package} {version(package)}, {reader}"
            cells = compare(client(out), true, instances)
        except (ImportError, PackageNotFoundError) as error:
            told, cells = f"{package}, {reader}", ("not read", f"({error})", "-", "-")
        yield [name, told, *cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown page to write")
    args = parser.parse_args()
    head = ("export", "read by", "images, type right", "instances equal", "pixels that differ", "all equal")
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(Path(folder)))
    text = markdown(head, found, left=2)
    print(text)
    if args.out:
        args.out.write_text(PAGE.format(table=text, python=platform.python_version()), encoding="utf-8")
    return int(any(row[-1] == "no" for row in found))


PAGE = """# Exports, read again by the programs they are for

`scripts/export.py` wrote eight images of 90 x 61 pixels with hard masks (a ring with an island in it, two squares that touch
with a side and two with a corner, hairlines, single pixels, dust, a mask of all but three pixels), and each format's own client
read them. Written by `python tools/check_exports.py --out docs/exports.md` on Python {python}; the head of that file says how the
clients are installed.

{table}
"""

if __name__ == "__main__":
    sys.exit(main())
