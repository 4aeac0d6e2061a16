"""Exports that are folders of images and masks: MVTec AD, anomalib, mmsegmentation, Hugging Face."""

from __future__ import annotations

import json

import numpy as np

from fast.data.images import write_image
from fast.export.pairs import Run
from fast.export.write import Target, copy_normals
from ldm.errors import UserError

# Colours of classes in pictures of label maps: told apart by most people who see colours differently.
PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]]


def write_mvtec(run: Run, target: Target) -> None:
    """`<category>/train/good`, `test/<type>`, `ground_truth/<type>/<name>_mask.png`; normals are those of the pairs."""
    for pair in run.pairs:
        category = pair.category or run.folder.name
        pair.read_mask()
        place = target.copy(pair.image, f"{category}/test/{pair.defect_type}/{pair.file}")
        target.copy(pair.mask, f"{category}/ground_truth/{pair.defect_type}/{pair.name}_mask.png")
        target.came_from(pair, place)
    for category in run.categories:
        (target.folder / (category or run.folder.name) / "train/good").mkdir(parents=True, exist_ok=True)
    copy_normals(run, target, "{category}/train/good" if run.categories != [""] else f"{run.folder.name}/train/good")


def write_anomalib(run: Run, target: Target) -> None:
    """anomalib's `Folder`: `normal/`, `abnormal/`, `mask/` and `anomalib.yaml`; the type begins a file's name."""
    for pair in run.pairs:
        pair.read_mask()
        name = f"{run.class_of(pair).replace('/', '_')}_{pair.file}"
        target.came_from(pair, target.copy(pair.image, f"abnormal/{name}"))
        target.copy(pair.mask, f"mask/{name}")
    if not copy_normals(run, target, "normal"):
        (target.folder / "normal").mkdir()
        target.notes.append("anomalib needs normal images: put some into normal/")
    target.text("anomalib.yaml", ANOMALIB.format(name=json.dumps(run.folder.name)))


ANOMALIB = """# data: of an anomalib configuration; root is this folder
class_path: anomalib.data.Folder
init_args:
  name: {name}
  root: .
  normal_dir: normal
  abnormal_dir: abnormal
  mask_dir: mask
"""


def write_mmseg(run: Run, target: Target) -> None:
    """mmsegmentation: `img_dir/train`, label maps 0..n in `ann_dir/train`, and `dataset.py`, a part of a config."""
    classes = run.classes()
    if len(classes) > 254:
        raise UserError(f"{run.folder}: {len(classes)} types, and a label map holds 254; export fewer")
    for pair in run.pairs:
        target.came_from(pair, target.copy(pair.image, f"img_dir/train/{pair.file}"))
        labels = pair.read_mask() * np.uint8(classes.index(run.class_of(pair)) + 1)
        (target.folder / "ann_dir/train").mkdir(parents=True, exist_ok=True)
        write_image(target.folder / f"ann_dir/train/{pair.name}.png", labels)
    palette = [[0, 0, 0], *(_colour(i) for i in range(len(classes)))]
    suffix = {pair.image.suffix for pair in run.pairs}.pop()
    target.text("dataset.py", MMSEG.format(classes=("background", *classes), palette=palette, suffix=suffix))


def _colour(number: int) -> list[int]:
    """A colour of its own for each class."""
    shade = 1 - (number // len(PALETTE)) % 6 * 0.15
    return [round(v * shade) for v in PALETTE[number % len(PALETTE)]]


MMSEG = """# Part of an mmsegmentation config: the synthesized pairs to train on. data_root is this folder.
data_root = "."
metainfo = dict(
    classes={classes!r},
    palette={palette!r},
)
train_dataset = dict(
    type="BaseSegDataset",
    data_root=data_root,
    data_prefix=dict(img_path="img_dir/train", seg_map_path="ann_dir/train"),
    img_suffix="{suffix}",
    seg_map_suffix=".png",
    metainfo=metainfo,
    reduce_zero_label=False,
    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
)
"""


def write_imagefolder(run: Run, target: Target) -> None:
    """Hugging Face `imagefolder`: `train/images`, `train/masks` and `train/metadata.jsonl`, a line for each pair."""
    classes, lines = run.classes(), []
    for pair in run.pairs:
        pair.read_mask()
        place = target.copy(pair.image, f"train/images/{pair.file}")
        target.copy(pair.mask, f"train/masks/{pair.name}.png")
        target.came_from(pair, place)
        row = {
            "file_name": f"images/{pair.file}",
            "mask_file_name": f"masks/{pair.name}.png",
            "type": run.class_of(pair),
            "label": classes.index(run.class_of(pair)),
            "provenance": json.dumps(pair.record),
        }
        lines.append(json.dumps(row) + "\n")
    target.text("train/metadata.jsonl", "".join(lines))
