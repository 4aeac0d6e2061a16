"""Annotations of other tools into MVTec-AD's layout: what is read, what is left out and why."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from fast.data.category import NORMAL_DIRS
from fast.data.decode import image_size
from fast.data.formats.annotated import (
    Annotated,
    AnnotationSet,
    ImageAnnotation,
    ImageFiles,
    ImportOptions,
    LeftOut,
    assemble,
)
from fast.data.formats.coco import read_coco
from fast.data.formats.cvat import read_cvat
from fast.data.formats.label_maps import read_label_maps, read_voc
from fast.data.formats.labelme import read_labelme_files
from fast.data.formats.labelstudio import read_labelstudio
from fast.data.formats.yolo import read_yolo
from fast.data.groups import GROUPS, read_groups
from fast.data.images import write_bytes, write_image
from fast.data.index import GOOD
from fast.data.labelme import BACKGROUND, IGNORE, is_any
from fast.data.labelme_masks import ROUNDED
from fast.data.reading import NAME, Reading
from fast.runtime.counts import number_of
from fast.runtime.folders import new_folder
from fast.runtime.progress import followed
from ldm.errors import UserError

Reader = Callable[[Path, ImportOptions], tuple[list[ImageAnnotation], ImageFiles]]
FORMATS: dict[str, Reader] = {
    "coco": read_coco,
    "cvat": read_cvat,
    "labelmap": read_label_maps,
    "labelme": read_labelme_files,
    "labelstudio": read_labelstudio,
    "voc": read_voc,
    "yolo": read_yolo,
}
OTHER = 128  # in masks: neither defect of this type nor background
CLASSES = "classes.json"
BAD = set('/\\:*?"<>|\0,')


@dataclass
class Imported:
    """What an import brought. `samples` and `regions`: by type, "good" for normal images; `left`: (name, reason)."""

    samples: Counter[str] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    left: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert(kind: str, source: Path, out: Path, options: ImportOptions) -> Imported:
    """Write what `source` holds in a format of `FORMATS` as a new folder `out` in MVTec-AD's layout.

    Image files are copied as they are. An image with regions of several types becomes a sample of each, in whose mask
    the others are neither defect nor background, and groups.csv keeps them on one side of a split. Raises `UserError`,
    and writes nothing, where something can be meant in two ways or nothing can be used.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give the annotations")
    _refuse_inside(out, source)
    drafts, files = FORMATS[kind](source, options)
    _refuse_inside(out, files.folder)
    found = assemble(drafts, files, options)
    types = _types(found, options)
    with new_folder(out, "--out") as folder:
        writer = _Writer(folder, types, options, read_groups(found.root) | read_groups(source))
        writer.leave_out_common([item.name for item in found.images])
        for item in followed(found.images, "importing", "image", leave=False):
            try:
                writer.add(item)
            except LeftOut as error:
                found.left.append((item.name, str(error)))
            except UserError as error:
                found.left.append((item.name, str(error).removeprefix(f"{item.image}: ")))
        done = writer.finish(found)
        if not done.samples:
            reasons = "; ".join(f"{name}: {why}" for name, why in done.left[:3])
            raise UserError(f"{source}: nothing in it can be used ({reasons or 'it holds no image'}); see the reasons")
    return done


def _refuse_inside(out: Path, folder: Path) -> None:
    """UserError for a new folder among what is imported: the next import would take its images."""
    place = out.resolve()
    if folder.is_dir() and folder.resolve() in (place, *place.parents):
        raise UserError(f"--out {out} lies in {folder}, whose images are imported; choose a folder outside")


def _types(found: AnnotationSet, options: ImportOptions) -> dict[str, str]:
    """Defect type by label, "" for those left out. UserError for a type that cannot be a folder's name, and for labels
    that differ in case alone."""
    labels = {region.label for item in found.images for region in item.annotation.regions}
    types = {label: options.types.get(label, label).strip() for label in sorted(labels)}
    unused = set(options.types) - labels - set(options.types.values())
    numbers = {key for key in unused if key.isdecimal() or key.startswith("#")}
    found.notes += [f"--types {key}: no region has this label" for key in sorted(unused - numbers)]
    spelt: dict[str, str] = {}
    for label, name in types.items():
        if name and not is_any(name, (*BACKGROUND, *IGNORE)):
            _check_type(label, name)
            if spelt.setdefault(name.casefold(), name) != name:
                raise UserError(f"labels '{spelt[name.casefold()]}' and '{name}' differ in case alone; are they one "
                                f"type? say --types '{name}={spelt[name.casefold()]}'")  # fmt: skip
    return types


def _check_type(label: str, name: str) -> None:
    remedy = f"say --types '{label}=NAME', or '{label}=' to leave it out"
    if name.lower() in NORMAL_DIRS:
        raise UserError(f"label '{label}' would be the defect type '{name}', which names normal images; {remedy}")
    if BAD & set(name) or name.startswith(".") or not name.isprintable():
        raise UserError(f"label '{label[:60]}' cannot be the name of a folder; {remedy}")


class _Writer:
    """Puts images and masks into a folder."""

    def __init__(self, folder: Path, types: dict[str, str], options: ImportOptions, known: dict[Path, str]) -> None:
        self.folder, self.types, self.options, self.known_groups = folder, types, options, known
        self.classes = sorted({name for name in types.values() if name and not is_any(name, (*BACKGROUND, *IGNORE))})
        if options.multiclass and len(self.classes) > 254:
            raise UserError(f"--multiclass: {len(self.classes)} types, and a mask holds 254; leave it out")
        self.done = Imported()
        self.groups: list[tuple[str, str]] = []
        self.values: set[int] = set()
        self.cut: list[str] = []
        self._taken: set[str] = set()
        self._common = ""

    def add(self, item: Annotated) -> None:
        """Write one image, with its masks if it has any. Raises `LeftOut`."""
        size = image_size(item.image)
        if item.annotation.size not in (None, size):
            said = item.annotation.size or size
            raise LeftOut(f"annotated on {said[1]}x{said[0]} pixels, the image has {size[1]}x{size[0]}"
                          f"{' (turned by EXIF?)' if said == size[::-1] else ''}")  # fmt: skip
        cut = self._cut(item.annotation, size)
        masks, ignored, count = self._drawn(item.annotation, size)
        name = self._name(item.name)
        if not masks:
            if count:
                raise LeftOut("its regions cover no pixel, or are covered by others")
            half = "test" if "test" in PurePosixPath(item.name).parts[:-1] else "train"
            self._copy(item.image, f"{half}/{GOOD}/{name}")
            self.done.samples[GOOD] += 1
        elif self.options.multiclass:
            self._write_classes(item, name, masks, ignored)
        else:
            self._write_types(item, name, masks, ignored)
        self.done.regions.update(count)
        self.cut += [f"{what} of {item.name}" for what in cut]

    def _cut(self, draft: ImageAnnotation, size: tuple[int, int]) -> list[str]:
        """The regions that reach beyond the border of their image by more than rounding does. Raises `LeftOut` for one
        that lies wholly outside."""
        found = []
        for region in draft.regions:
            beyond = region.beyond(size) if self.types[region.label] else 0
            if math.isinf(beyond):
                raise LeftOut(f"{region.what} lies outside its image")
            if beyond > ROUNDED:
                found.append(region.what)
        return found

    def _drawn(
        self, draft: ImageAnnotation, size: tuple[int, int]
    ) -> tuple[dict[str, np.ndarray], np.ndarray, Counter[str]]:
        """Mask of each type, what is neither, and how many regions each type has."""
        masks: dict[str, np.ndarray] = {}
        ignored, count = np.zeros(size, bool), Counter[str]()
        for region in draft.regions:
            name = self.types[region.label]
            if not name:
                continue
            here = region.draw(size) > 0
            apart = is_any(name, (*BACKGROUND, *IGNORE))
            if apart or self.options.multiclass:  # the later region lies over the earlier
                for mask in masks.values():
                    mask[here] = False
            ignored = ignored | here if is_any(name, IGNORE) else ignored & ~here
            if not apart:
                masks[name] = masks.get(name, False) | here
                count[name] += 1
        return {name: mask for name, mask in sorted(masks.items()) if mask.any()}, ignored, count

    def leave_out_common(self, names: list[str]) -> None:
        """Leave the folders that all images share, such as `images/train`, out of their names."""
        parents = [PurePosixPath(name).parent.as_posix() for name in names]
        self._common = os.path.commonpath(parents) if parents else ""

    def _name(self, name: str) -> str:
        """A name of its own, also without the suffix, which a mask does not share."""
        path = PurePosixPath(name).relative_to(self._common)
        stem, number = path.with_suffix("").as_posix(), 1
        while (own := stem if number == 1 else f"{stem}-{number}").casefold() in self._taken:
            number += 1
        self._taken.add(own.casefold())
        return own + path.suffix

    def _copy(self, image: Path, place: str) -> None:
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target)

    def _write_types(self, item: Annotated, name: str, masks: dict[str, np.ndarray], ignored: np.ndarray) -> None:
        for kind, mask in masks.items():
            others = [other for one, other in masks.items() if one != kind]
            neither = np.logical_or.reduce([ignored, *others]) & ~mask
            self._write(item, name, kind, np.where(mask, 255, np.where(neither, OTHER, 0)).astype(np.uint8))

    def _write_classes(self, item: Annotated, name: str, masks: dict[str, np.ndarray], ignored: np.ndarray) -> None:
        labels = np.where(ignored, 255, 0).astype(np.uint8)
        for kind, mask in masks.items():
            labels[mask] = self.classes.index(kind) + 1
        self._write(item, name, "+".join(masks), labels)

    def _write(self, item: Annotated, name: str, kind: str, mask: np.ndarray) -> None:
        place = PurePosixPath(name)
        self._copy(item.image, f"test/{kind}/{name}")
        write_image(self.folder / f"ground_truth/{kind}" / f"{place.with_suffix('')}_mask.png", mask)
        self.values.update(np.unique(mask).tolist())
        self.groups.append((f"test/{kind}/{name}", self.known_groups.get(item.image, item.name)))
        self.done.samples[kind] += 1

    def finish(self, found: AnnotationSet) -> Imported:
        """What lies beside the images: how masks are to be read, which samples show one image, the classes."""
        done = self.done
        done.left, done.notes = found.left, found.notes
        several = len({image.partition("/")[2].partition("/")[2] for image, _ in self.groups}) < len(self.groups)
        if several or self.known_groups:
            rows = "".join(f'"{_quoted(image)}","{_quoted(group)}"\n' for image, group in self.groups)
            write_bytes(self.folder / GROUPS, f"image,group\n{rows}".encode())
        if several:
            done.notes.append("some images show several types and are a sample of each; pixels of the others count as "
                              "neither in its mask, and groups.csv keeps the samples of an image together")  # fmt: skip
        if self.cut:
            reach = number_of(len(self.cut), "shape reaches beyond the border of its image and is cut there",
                              "shapes reach beyond the border of their image and are cut there")  # fmt: skip
            first = f"{self.cut[0]}{' the first' if len(self.cut) > 1 else ''}"
            done.notes.append(f"{reach} ({first}); was the image of another size when it was annotated?")
        if self.known_groups:
            done.notes.append(f"physical parts are those of the {GROUPS} beside the images")
        reading = None
        if self.options.multiclass and self.classes:
            names = {str(i): name for i, name in enumerate(self.classes, 1)}
            write_bytes(self.folder / CLASSES, (json.dumps(names, indent=1) + "\n").encode())
            done.notes.append(f"masks hold the values of {CLASSES}; everything here reads them as defect or not")
            ignore = (255,) if 255 in self.values else ()
            reading = Reading(mask_values=tuple(range(1, len(names) + 1)), ignore=ignore)
        elif OTHER in self.values:
            reading = Reading(mask_values=(255,), ignore=(OTHER,))
        if reading is not None:
            write_bytes(self.folder / NAME, reading.text().encode())
        return done


def _quoted(text: str) -> str:
    return text.replace('"', '""')
