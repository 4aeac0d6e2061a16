"""Exports of hard masks, read by the programs that they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from clients import (
    by_anomalib,
    by_anomalib_mvtec,
    by_datasets,
    by_datumaro,
    by_labelme,
    by_mmseg,
    by_pycocotools,
    by_supervision,
    by_ultralytics_rule,
    by_webdataset,
)
from hard_masks import Seen, make_run, truth

from fast.export.formats import export

HEAD = ("export", "read by", "images, type right", "instances equal", "pixels that differ", "all equal")
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
