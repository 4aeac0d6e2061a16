"""Masks whose values name types: Pascal VOC with a label map (CVAT's 'Segmentation mask 1.1'), and values 1..n."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from fast.data.decode import decode
from fast.data.formats.annotated import (
    NEITHER,
    AnnotatedRegion,
    ImageAnnotation,
    ImageFiles,
    ImportOptions,
    LeftOut,
    images_folder,
)
from fast.data.images import natural_key
from fast.data.labelme import BACKGROUND, is_any
from fast.data.pairing import images_below, pair
from ldm.errors import UserError

CLASSES = ("segmentationclass", "segmentationclasspng")  # the second is labelme2voc's
MASKS = ("masks", "mask", "labels", "label", "annotations", "ann_dir", "ground_truth", "gt")
IMAGES = ("images", "image", "imgs", "img", "img_dir", "jpegimages")
VOID = "#e0e0c0"  # VOC's edge between objects: neither


def read_voc(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """`SegmentationClass/` in the colours of labelmap.txt, or the numbers of class_names.txt; images beside it."""
    masks = _folder(source, CLASSES, "SegmentationClass")
    named = label_map(source)
    return _drafts(source, masks, {**named, **options.types}, options, colours=any(k.startswith("#") for k in named))


def read_label_maps(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """Masks of the values that `--types 1=crack,2=hole` names; 0 is the background."""
    if not options.types:
        raise UserError(f"{source}: say what the values of the masks mean: --types 1=crack,2=hole")
    masks = _folder(source, MASKS, "masks, labels or annotations")
    return _drafts(source, masks, {"0": "", **options.types}, options, colours=False)


def label_map(source: Path) -> dict[str, str]:
    """Name by colour "#rrggbb" of labelmap.txt, or by number of class_names.txt; "" for the background. UserError
    where there is none of them, or both."""
    found = [p for p in (source / "labelmap.txt", source / "class_names.txt") if p.is_file()]
    if len(found) != 1:
        both = "has labelmap.txt and class_names.txt; keep one" if found else \
            "has no labelmap.txt (name:r,g,b a line) nor class_names.txt, so that masks name no types"  # fmt: skip
        raise UserError(f"{source}: {both}")
    lines = [line.strip() for line in found[0].read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    names: dict[str, str] = {}
    if found[0].name == "class_names.txt":  # labelme2voc: __ignore__ is not in it, and 255 in the masks
        kept = [line for line in lines if line != NEITHER]
        names = {str(i): "" if is_any(line, BACKGROUND) else line for i, line in enumerate(kept)}
        return {**names, "255": NEITHER}
    plain = all(not line.partition(":")[2].split(":")[0].strip() for line in lines)
    for number, line in enumerate(lines):
        name, _, rest = line.partition(":")
        try:
            colour = list(voc_colour(number)) if plain else [int(v) for v in rest.split(":")[0].split(",")]
            key = "#" + bytes(colour).hex()
        except ValueError:
            raise UserError(f"{found[0]}: '{line}' is no line name:r,g,b; correct it") from None
        if len(colour) != 3 or key in names:
            raise UserError(f"{found[0]}: the colour of '{line}' is none, or of two names; correct it")
        names[key] = "" if is_any(name, BACKGROUND) or not any(colour) else name
    return {VOID: NEITHER, "#000000": "", **names}


def voc_colour(number: int) -> tuple[int, int, int]:
    """Colour of a class in Pascal VOC's palette, which a label map without colours means: bits of the number, each
    third one to the same channel, the lowest to its highest bit."""
    red, green, blue = (sum((number >> (3 * i + c) & 1) << (7 - i) for i in range(8)) for c in range(3))
    return red, green, blue


def _folder(source: Path, names: tuple[str, ...], shown: str) -> Path:
    if not source.is_dir():
        raise UserError(f"{source}: no folder; give the folder that holds {shown}")
    found = [p for p in sorted(source.iterdir()) if p.is_dir() and p.name.lower() in names and images_below(p)]
    if len(found) != 1:
        told = f"both {found[0].name}/ and {found[1].name}/; move one away" if found else f"no folder {shown}"
        raise UserError(f"{source}: holds {told}")
    return found[0]


def _drafts(
    source: Path, masks: Path, names: dict[str, str], options: ImportOptions, colours: bool
) -> tuple[list[ImageAnnotation], ImageFiles]:
    found = [p for p in sorted(source.iterdir()) if p.is_dir() and p.name.lower() in IMAGES]
    if options.images is None and len(found) != 1:
        raise UserError(f"{source}: has {len(found)} folders of images ({', '.join(IMAGES)}); say --images FOLDER")
    files = ImageFiles(images_folder(options, found[0] if found else source))
    pairs = pair(
        [(p, files.folder) for p in files.files.values()],
        [(p, masks) for p in images_below(masks)],
        lambda image: f"{masks.name}/{image.stem}.png",
        masks.name,
    )
    mask_of = {image: mask for image, mask in pairs.masks.items() if mask.is_file()}
    alone = sorted({p for p, what in pairs.problems if what.startswith("mask without")}, key=natural_key)
    twice = [(p, what) for p, what in pairs.problems if " masks" in what or "name of" in what]
    if twice:
        raise UserError(f"{twice[0][0]}: {twice[0][1]}")
    drafts = [_draft(files.folder, image, mask, names, colours) for image, mask in mask_of.items()]
    drafts += [ImageAnnotation(f"image of {mask.relative_to(masks).as_posix()}") for mask in alone]
    return drafts, files


def _draft(folder: Path, image: Path, mask: Path, names: dict[str, str], colours: bool) -> ImageAnnotation:
    draft = ImageAnnotation(image.relative_to(folder).as_posix(), marked=True)
    try:
        values = mask_values(mask, colours)
        used = [f"#{v:06x}" if colours else str(v) for v in np.unique(values).tolist()]
        unknown = [value for value in used if value not in names]
        if unknown:
            raise LeftOut(f"{mask.name} has the value {unknown[0]}, which nothing names; {_ways(unknown[0])}")
    except (LeftOut, UserError) as error:
        draft.problem = str(error).removeprefix(f"{mask}: ")
        return draft
    draft.size = (values.shape[0], values.shape[1])
    for value in used:
        if names[value]:
            label = NEITHER if names[value] == "ignore" else names[value]
            draft.regions.append(AnnotatedRegion(label, partial(_of, mask, value)))
    return draft


def _ways(value: str) -> str:
    """What `--types` can say of a value. A shell takes a colour's # for the beginning of a remark."""
    name, neither, background = (
        f"'{value}={what}'" if value.startswith("#") else f"{value}={what}" for what in ("NAME", "ignore", "")
    )
    return f"say with --types {name} if it is a defect, {neither} if neither, {background} if background"


def mask_values(path: Path, colours: bool) -> np.ndarray:
    """Whole numbers (H,W) of a mask: indices or grey levels, or with `colours` 0xrrggbb. Raises `LeftOut`."""
    decoded = decode(path)
    values, palette = decoded.values, decoded.palette
    if decoded.lossy:
        raise LeftOut(f"{path.name} is of a lossy format, which keeps no labels")
    if colours and palette is not None:
        values = palette[values]
    if values.ndim == 3 and values.shape[2] == 4:
        values = values[:, :, :3]
    if values.dtype.kind not in "iub":
        raise LeftOut(f"{path.name} holds fractions, which name no types")
    if colours:
        plane = values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
        return plane.astype(np.int64) @ np.array([65536, 256, 1])
    if values.ndim == 3:
        if (values != values[:, :, :1]).any():
            raise LeftOut(f"{path.name} has colours, not numbers")
        values = values[:, :, 0]
    return values.astype(np.int64)


def _of(mask: Path, value: str, size: tuple[int, int]) -> np.ndarray:
    colours = value.startswith("#")
    return (mask_values(mask, colours) == (int(value[1:], 16) if colours else int(value))).astype(np.uint8)
