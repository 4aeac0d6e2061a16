"""Exports of instances: COCO, YOLO segmentation, LabelMe, CVAT."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from fast.data.formats.outlines import borders, contours, one_outline, straightened, without_holes
from fast.data.formats.rle import pack, to_runs
from fast.export.pairs import ExportedPair, Instance, Run
from fast.export.write import Target

JOINED = "a part of a mask that touches no other, not with a corner either, is an instance: touching defects are one"
CUT = "instances with holes are cut into polygons without"


def write_coco(run: Run, target: Target) -> None:
    """COCO: `images/` and `annotations/instances_train.json`; run-length codes, which hold holes, or polygons."""
    classes, images = run.classes(), list[dict[str, Any]]()
    annotations: list[dict[str, Any]] = []
    for number, pair in enumerate(run.pairs, 1):
        target.came_from(pair, target.copy(pair.image, f"images/{pair.file}"))
        height, width = pair.size
        images.append({"id": number, "file_name": pair.file, "height": height, "width": width, "fast": pair.record})
        for instance in pair.instances():
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": classes.index(run.class_of(pair)) + 1,
                "segmentation": _polygons(instance) if target.polygons else _code(instance, pair.size),
                "area": instance.area,
                "bbox": list(instance.xywh),
                "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": i, "name": name, "supercategory": "defect"} for i, name in enumerate(classes, 1)]
    info = {"description": f"synthesized defects of {run.folder.name}"}
    target.json("annotations/instances_train.json", {"info": info, "licenses": [], "images": images,
                                                     "annotations": annotations, "categories": categories})  # fmt: skip
    target.notes += [JOINED, *([CUT] if target.polygons else [])]


def _code(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    """Run-length code of an instance, made from its columns alone: images are large and instances many."""
    rows, columns = instance.box
    strip = np.zeros((size[0], instance.mask.shape[1]), np.uint8)
    strip[rows] = instance.mask
    runs = to_runs(strip, columns=True)
    runs[0] += columns.start * size[0]
    after = (size[1] - columns.stop) * size[0]
    runs = [*runs[:-1], runs[-1] + after] if len(runs) % 2 else [*runs, *([after] if after else [])]
    return {"size": list(size), "counts": pack(runs)}


def _polygons(instance: Instance) -> list[list[float]]:
    """Polygons along the pixels' edges, without holes, whose union is the instance."""
    return [line.astype(float).ravel().tolist() for line in _outer_lines(instance)]


def _outer_lines(instance: Instance) -> list[np.ndarray]:
    rows, columns = instance.box
    found = without_holes(instance.mask)
    return [borders(m)[0] + (columns.start + box[1].start, rows.start + box[0].start) for box, m in found]


def write_yolo(run: Run, target: Target) -> None:
    """YOLO segmentation: `images/train`, `labels/train` and `data.yaml`; a polygon for each instance.

    A polygon runs through the instance's outermost pixels and reaches holes by bridges, so that readers that fill it
    with its edges (OpenCV's `fillPoly`: ultralytics, supervision) have the mask again, to the pixel.
    """
    classes = run.classes()
    for pair in run.pairs:
        target.came_from(pair, target.copy(pair.image, f"images/train/{pair.file}"))
        number = classes.index(run.class_of(pair))
        lines = [f"{number} {_shares(instance, pair.size)}\n" for instance in pair.instances()]
        target.text(f"labels/train/{pair.name}.txt", "".join(lines))
    names = "".join(f"  {i}: {_yaml(name)}\n" for i, name in enumerate(classes))
    target.text("data.yaml", YOLO.format(names=names))
    target.notes += [
        JOINED,
        "data.yaml: val names the training images, for YOLO asks for some; name real ones there",
    ]


YOLO = """# Synthesized pairs are for training: let val name real images.
path: .
train: images/train
val: images/train
names:
{names}"""


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shares(instance: Instance, size: tuple[int, int]) -> str:
    """Points as shares of the sides. Less than half a pixel behind the pixel's corner: readers that round down and
    those that round to the nearest find the same pixel."""
    corner = np.array([instance.box[1].start, instance.box[0].start])
    place = _three_points(one_outline(instance.mask)) + corner + 0.4
    return " ".join(f"{v:.8f}".rstrip("0") for v in (place / (size[1], size[0])).ravel())


def _three_points(line: np.ndarray) -> np.ndarray:
    """A line (N,2) with its last point repeated until it has the three that readers ask of a polygon."""
    return np.concatenate([line, line[-1:].repeat(max(0, 3 - len(line)), axis=0)])


def write_labelme(run: Run, target: Target) -> None:
    """LabelMe: `<name>.json` beside each image; shapes of kind `mask`, which hold holes, or polygons of one group id
    for each instance."""
    for pair in run.pairs:
        target.came_from(pair, target.copy(pair.image, pair.file))
        shapes = [s for i, one in enumerate(pair.instances(), 1) for s in _shapes(run, pair, one, i, target.polygons)]
        height, width = pair.size
        target.json(f"{pair.name}.json", {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": pair.file, "imageData": None,
            "imageHeight": height, "imageWidth": width, "fast": pair.record,
        })  # fmt: skip
    target.notes += [JOINED, *([CUT] if target.polygons else [])]


def _shapes(run: Run, pair: ExportedPair, instance: Instance, number: int, polygons: bool) -> list[dict[str, Any]]:
    common = {"label": run.class_of(pair), "group_id": number, "description": "", "flags": {}}
    x, y, width, height = instance.xywh
    if not polygons:
        buffer = BytesIO()
        Image.fromarray(instance.mask * np.uint8(255)).save(buffer, format="PNG")
        code = base64.b64encode(buffer.getvalue()).decode()
        corners = [[x, y], [x + width - 1, y + height - 1]]
        return [{**common, "points": corners, "shape_type": "mask", "mask": code}]
    shapes = []
    for box, mask in without_holes(instance.mask):
        line = _three_points(straightened(contours(mask)[0][0]))
        points = (line + np.array([x + box[1].start, y + box[0].start])).astype(float).tolist()
        shapes.append({**common, "points": points, "shape_type": "polygon", "mask": None})
    return shapes


def write_cvat(run: Run, target: Target) -> None:
    """CVAT for images 1.1: `annotations.xml` and `images/`; masks, which hold holes, or polygons."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in run.classes():
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    for number, pair in enumerate(run.pairs):
        target.came_from(pair, target.copy(pair.image, f"images/{pair.file}"))
        height, width = pair.size
        attributes = {"id": str(number), "name": pair.file, "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(root, "image", attributes)
        for instance in pair.instances():
            _cvat_shapes(image, run.class_of(pair), instance, target.polygons)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    target.text("annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')
    target.notes += [JOINED, *([CUT] if target.polygons else [])]


def _cvat_shapes(image: ElementTree.Element, label: str, instance: Instance, polygons: bool) -> None:
    common = {"label": label, "source": "synthesized", "occluded": "0", "z_order": "0"}
    if polygons:
        for line in _outer_lines(instance):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in line)
            ElementTree.SubElement(image, "polygon", {**common, "points": points})
        return
    x, y, width, height = instance.xywh
    runs = ", ".join(map(str, to_runs(instance.mask, columns=False)))
    box = {"left": str(x), "top": str(y), "width": str(width), "height": str(height)}
    ElementTree.SubElement(image, "mask", {**common, "rle": runs, **box})
