"""LabelMe files, one beside each image, or in a folder of their own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fast.data.formats.annotated import (
    NEITHER,
    AnnotatedRegion,
    ImageAnnotation,
    ImageFiles,
    ImportOptions,
    LeftOut,
    images_folder,
)
from fast.data.images import list_files
from fast.data.labelme import BACKGROUND, IGNORE, Annotation, is_any, load_annotation
from fast.data.labelme_masks import draw_labels
from fast.data.mask_looks import IGNORED
from ldm.errors import UserError


def read_labelme_files(source: Path, options: ImportOptions) -> tuple[list[ImageAnnotation], ImageFiles]:
    """One draft for each LabelMe file; one without shapes says that its image is normal."""
    if not source.is_dir():
        raise UserError(f"{source}: no folder; give the folder of the LabelMe files")
    drafts = []
    for path in (p for p in list_files(source) if p.suffix.lower() == ".json"):
        annotation = load_annotation(path)
        if annotation is not None:
            drafts.append(_draft(annotation, path.parent.relative_to(source), options))
    if not drafts:
        raise UserError(f"{source}: holds no LabelMe file (shapes, imagePath); give their folder")
    return drafts, ImageFiles(images_folder(options, source))


def _draft(annotation: Annotation, folder: Path, options: ImportOptions) -> ImageAnnotation:
    plain = "\\" not in annotation.image and "/" not in annotation.image
    name = (folder / annotation.image).as_posix() if plain else annotation.image
    draft = ImageAnnotation(name, size=annotation.size, marked=True)
    for label in [NEITHER, *annotation.labels]:
        own = tuple(s for s in annotation.shapes if s.label == label or is_any(s.label, (*BACKGROUND, *IGNORE)))
        if any(s.label == label or (label == NEITHER and is_any(s.label, IGNORE)) for s in own):
            part = replace(annotation, shapes=own)
            draft.regions.append(AnnotatedRegion(label, partial(_drawn, part, label == NEITHER, options.line_width)))
    return draft


def _drawn(annotation: Annotation, ignored: bool, line_width: float | None, size: tuple[int, int]) -> np.ndarray:
    try:
        labels = draw_labels(annotation, size, line_width)
    except UserError as error:
        raise LeftOut(str(error).removeprefix(f"{annotation.path}: ")) from None
    return (labels == (IGNORED if ignored else 1)).astype(np.uint8)
