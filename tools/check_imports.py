"""Annotations that other programs wrote, imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from hard_masks import SIZE, TYPES, hard_masks

from fast.data.decode import decode
from fast.data.formats.annotated import ImportOptions
from fast.data.formats.convert import convert
from fast.data.formats.outlines import parts
from fast.data.images import write_image

HEAD = ("import", "written by", "masks", "masks equal", "pixels that differ", "all equal")
Masks = dict[tuple[str, str], np.ndarray]  # by image name and type


def true_masks() -> Masks:
    """Two types in every image, which touch and do not overlap."""
    found, masks = {}, hard_masks()
    for i, mask in enumerate(masks):
        other = masks[(i + 3) % 7] & (1 - mask)
        found.update({(f"{i:03d}", kind): m for kind, m in zip(TYPES, (mask, other), strict=True) if m.any()})
    return found


def write_images(folder: Path) -> None:
    for i in range(8):
        write_image(folder / f"{i:03d}.png", np.random.default_rng(i).integers(0, 255, (*SIZE, 3), np.uint8))


def coco_content(masks: Masks, shape: Callable[[np.ndarray], Any]) -> str:
    names = sorted({name for name, _ in masks})
    images = [{"id": i, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for i, n in enumerate(names)]
    annotations = [{"id": i, "image_id": names.index(n), "category_id": TYPES.index(k) + 1, "segmentation": shape(m),
                    "iscrowd": 0} for i, ((n, k), m) in enumerate(masks.items())]  # fmt: skip
    categories = [{"id": i, "name": kind} for i, kind in enumerate(TYPES, 1)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def by_pycocotools(folder: Path) -> Masks:
    from pycocotools import mask as coder

    def code(mask: np.ndarray) -> dict[str, Any]:
        found = coder.encode(np.asfortranarray(mask))
        return {"size": found["size"], "counts": found["counts"].decode()}

    write_images(folder / "images")
    (folder / "all.json").write_text(coco_content(true_masks(), code))
    return true_masks()


def by_pycocotools_polygons(folder: Path) -> Masks:
    """Polygons with fractions of pixels, and what pycocotools makes of them."""
    from pycocotools import mask as coder

    rng, masks, rings = np.random.default_rng(0), Masks(), list[list[float]]()
    for i in range(8):
        angles = np.sort(rng.random(24) * 2 * np.pi)
        radius = 8 + 20 * rng.random(24)
        ring = np.stack([45 + radius * np.cos(angles), 30 + radius * np.sin(angles)], axis=1).ravel().tolist()
        masks[f"{i:03d}", "crack"] = coder.decode(coder.frPyObjects([ring], *SIZE))[:, :, 0]
        rings.append(ring)
    write_images(folder / "images")
    left = iter(rings)
    (folder / "all.json").write_text(coco_content(masks, lambda mask: [next(left)]))
    return masks


def by_datumaro(kind: str, **options: Any) -> Callable[[Path], Masks]:
    def write(folder: Path) -> Masks:
        import datumaro as dm

        items, masks = [], true_masks()
        for name in sorted({name for name, _ in masks}):
            shapes = [dm.Mask(m, label=TYPES.index(k), id=i, group=i, z_order=0, attributes={"is_crowd": False})
                      for i, (k, m) in enumerate(((k, m) for (n, k), m in masks.items() if n == name), 1)]  # fmt: skip
            pixels = np.random.default_rng(int(name)).integers(0, 255, (*SIZE, 3), np.uint8)
            items.append(dm.DatasetItem(name, media=dm.Image.from_numpy(pixels), annotations=shapes, subset="default"))
        dataset = dm.Dataset.from_iterable(items, categories=list(TYPES))
        dataset.export(str(folder), kind, save_media=True, image_ext=".png", **options)
        return masks

    return write


def by_label_studio(folder: Path) -> Masks:
    from label_studio_sdk.converter.brush import encode_rle

    write_images(folder)
    masks, tasks = true_masks(), []
    for name in sorted({name for name, _ in masks}):
        result = []
        for (_, kind), mask in ((k, m) for k, m in masks.items() if k[0] == name):
            code = encode_rle(np.repeat(mask[..., None] * np.uint8(255), 4, axis=2).ravel())
            value = {"format": "rle", "rle": code, "brushlabels": [kind]}
            result.append({"type": "brushlabels", "original_width": SIZE[1], "original_height": SIZE[0],
                           "image_rotation": 0, "value": value})  # fmt: skip
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}.png"}
        tasks.append({"id": int(name), "data": data, "annotations": [{"id": 1, "result": result}]})
    (folder / "project.json").write_text(json.dumps(tasks))
    return masks


def by_supervision(folder: Path) -> Masks:
    """Polygons about masks, and what supervision makes of them when it reads them again."""
    import supervision as sv

    write_images(folder / "raw")
    paths = [str(p) for p in sorted((folder / "raw").iterdir())]
    found = {}
    for path in paths:
        given = [(TYPES.index(k), m) for (n, k), m in true_masks().items() if n == Path(path).stem]
        shapes = [(k, box, part) for k, m in given for box, part in parts(m) if part.sum() > 30]
        whole = np.zeros((len(shapes), *SIZE), bool)
        for plane, (_, box, part) in zip(whole, shapes, strict=True):
            plane[box] = part > 0
        boxes = sv.mask_to_xyxy(whole) if len(whole) else np.zeros((0, 4))
        found[path] = sv.Detections(xyxy=boxes, mask=whole, class_id=np.array([k for k, _, _ in shapes]))
    data = sv.DetectionDataset(classes=list(TYPES), images=paths, annotations=found)
    places = (str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"))
    data.as_yolo(*places)
    for path in paths:
        Path(path).unlink()
    masks: Masks = {}
    for path, _, seen in sv.DetectionDataset.from_yolo(*places, force_masks=True):
        for number, mask in zip(seen.class_id, seen.mask, strict=True):
            key = (Path(path).stem, TYPES[number])
            masks[key] = masks.get(key, np.zeros(SIZE, np.uint8)) | mask.astype(np.uint8)
    return masks


# format, package, what writes, whether pixels at edges may differ
CHECKS: list[tuple[str, str, str, Callable[[Path], Masks], bool]] = [
    ("coco", "pycocotools", "encode: compressed runs", by_pycocotools, False),
    ("coco", "pycocotools", "frPyObjects: polygons with fractions", by_pycocotools_polygons, True),
    ("coco", "datumaro", "coco_instances: plain runs", by_datumaro("coco_instances", segmentation_mode="mask"), False),
    ("cvat", "datumaro", "cvat", by_datumaro("cvat"), False),
    ("voc", "datumaro", "voc_segmentation", by_datumaro("voc_segmentation"), False),
    ("labelstudio", "label-studio-sdk", "brush.encode_rle", by_label_studio, False),
    ("yolo", "supervision", "as_yolo, from_yolo", by_supervision, False),
]


def rows(folder: Path) -> Iterable[list[str]]:
    for kind, package, writer, client, loose in CHECKS:
        source, out = folder / f"{kind}{writer[:6]}", folder / f"{kind}{writer[:6]} out"
        source.mkdir(parents=True)
        try:
            masks = client(source)
            told = f"{package} {version(package)}, {writer}"
        except (ImportError, PackageNotFoundError) as error:
            yield [kind, f"{package}, {writer}", "not read", f"({error})", "-", "-"]
            continue
        convert(kind, source, out, ImportOptions(unmarked="leave"))
        found = {(p.stem.removesuffix("_mask"), p.parent.name): (decode(p).values == 255).astype(np.uint8)
                 for p in (out / "ground_truth").rglob("*.png")}  # fmt: skip
        equal = sum(key in found and bool((found[key] == mask).all()) for key, mask in masks.items())
        differ = sum(int((found[key] != mask).sum()) for key, mask in masks.items() if key in found)
        whole = found.keys() == masks.keys() and equal == len(masks)
        answer = "yes" if whole else "but for edges" if loose and found.keys() == masks.keys() else "no"
        total = sum(int(mask.sum()) for mask in masks.values())
        yield [kind, told, str(len(masks)), str(equal), f"{differ} of {total}", answer]
