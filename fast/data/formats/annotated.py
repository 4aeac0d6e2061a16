"""What an annotation file says of its images, the same for every format; and the images that it means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from fast.data.category import NORMAL_DIRS
from fast.data.formats.outlines import fill
from fast.data.images import natural_key
from fast.data.labelme import IGNORE
from fast.data.pairing import images_below
from fast.runtime.counts import number_of
from ldm.errors import UserError

NEITHER = IGNORE[0]  # label of regions that are neither defect nor background


class LeftOut(Exception):
    """An image that cannot be taken; the message says why."""


@dataclass(frozen=True)
class ImportOptions:
    """How annotations are read where they can be meant in several ways.

    Args:
        images: folder of the images, where it is not that of the annotations.
        annotations: the annotation file, where the source holds several.
        types: defect type by label or number; "" leaves a label out, "ignore" makes it neither defect nor background.
        boxes: rectangles are taken as areas of defect.
        line_width: pixels that lines and points are wide.
        unmarked: what images without annotation are: "normal", or "leave": not annotated yet.
        skip_missing: leave out what has no image file.
        multiclass: one mask an image with a value for each type, not one sample for each type.
    """

    images: Path | None = None
    annotations: Path | None = None
    types: dict[str, str] = field(default_factory=dict)
    boxes: bool = False
    line_width: float | None = None
    unmarked: str | None = None
    skip_missing: bool = False
    multiclass: bool = False


@dataclass(frozen=True)
class Polygons:
    """The union of polygons `rings`, each (N,2) of x, y in pixels; called with the size (H,W) of an image it gives
    their mask (H,W) uint8 in {0,1} there, cut at its border."""

    rings: Sequence[np.ndarray]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        return np.maximum.reduce([fill([ring], size) for ring in self.rings])


@dataclass(frozen=True)
class AnnotatedRegion:
    """A region of an image: `draw(size)` gives its mask (H,W) uint8 in {0,1} for an image of size (H,W). `what`: the
    region, as it is told of."""

    label: str
    draw: Callable[[tuple[int, int]], np.ndarray]
    what: str = "a region"

    def beyond(self, size: tuple[int, int]) -> float:
        """How many pixels of it lie beyond the border of an image of size (H,W) at most; infinite where all of it does.
        0 where its outline is not known."""
        if not isinstance(self.draw, Polygons):
            return 0.0
        points, far = np.concatenate(self.draw.rings), np.array([size[1], size[0]])
        low, high = points.min(axis=0), points.max(axis=0)
        if (high < 0).any() or (low >= far).any():
            return math.inf
        return float(max(0, *-low, *(high - far)))


@dataclass
class ImageAnnotation:
    """What is said of one image.

    Args:
        name: the image, as the annotation calls it.
        regions: in the order in which they lie over one another.
        size: (H,W) that the annotation was made on, where it says so.
        marked: somebody looked at the image: without regions it is a normal one.
        problem: why it cannot be taken.
    """

    name: str
    regions: list[AnnotatedRegion] = field(default_factory=list)
    size: tuple[int, int] | None = None
    marked: bool = False
    problem: str = ""


@dataclass
class Annotated:
    """An image file and what is said of it; `name`: its path from the folder of the images."""

    image: Path
    name: str
    annotation: ImageAnnotation


@dataclass
class AnnotationSet:
    """What a source holds: images, what is left out (name, reason), and remarks."""

    root: Path
    images: list[Annotated] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ImageFiles:
    """The images below a folder, looked up by the names that annotations give them: a name is compared with those of
    files that were listed, and never opened, so that one such as `../../x.png` leads to no other file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {p.relative_to(folder).as_posix(): p for p in images_below(folder)}
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            pieces = name.split("/")
            for i in range(len(pieces)):
                self._by_end["/".join(pieces[i:])].append(name)

    def find(self, name: str) -> str | None:
        """The name, from the folder, of the file that `name` means: the one whose path ends like it, as far as
        possible. None where there is none; `LeftOut` where there are several."""
        pieces = [p for p in PureWindowsPath(name).parts if p not in ("\\", "/", ".")]
        for i in range(len(pieces)):
            found = self._by_end.get("/".join(pieces[i:]), [])
            if len(found) > 1:
                exact = [one for one in found if i == 0 and one == "/".join(pieces)]
                if exact:
                    return exact[0]
                raise LeftOut(f"may be {found[0]} or {found[1]}")
            if found:
                return found[0]
        return None


def assemble(drafts: Iterable[ImageAnnotation], files: ImageFiles, options: ImportOptions) -> AnnotationSet:
    """Join what was said with the image files. UserError for what must be asked: missing images, images without
    annotation."""
    found, missing, taken = AnnotationSet(files.folder), list[str](), dict[str, ImageAnnotation]()
    moved: list[str] = []
    for draft in drafts:
        try:
            name = files.find(draft.name)
        except LeftOut as error:
            found.left.append((draft.name, str(error)))
            continue
        if name is None:
            missing.append(draft.name)
        elif name in taken:
            raise UserError(f"{files.folder / name}: is named in two annotations ('{taken[name].name}' and "
                            f"'{draft.name}'); keep one of them")  # fmt: skip
        else:
            taken[name] = draft
            if not f"/{name}".endswith("/" + draft.name.replace("\\", "/").removeprefix("./")):
                moved.append(f"{draft.name} as {name}")
    _ask_for_missing(files, missing, options)
    found.left += [(name, "no such image") for name in missing]
    if moved:
        lies = number_of(len(moved), "image lies", "images lie")
        found.notes.append(f"{lies} elsewhere than the annotation says (first: {moved[0]})")
    empty = []
    for name in sorted({*files.files, *taken}, key=natural_key):
        draft = taken.get(name) or ImageAnnotation(name)
        if draft.problem:
            found.left.append((name, draft.problem))
        elif draft.regions or draft.marked or options.unmarked == "normal" or _is_told_normal(name):
            found.images.append(Annotated(files.files[name], name, draft))
        else:
            empty.append(name)
    _ask_for_empty(files, empty, options)
    found.left += [(name, "no annotation") for name in empty]
    return found


def _is_told_normal(name: str) -> bool:
    """True for an image in a folder called `normal`, `good` or the like."""
    return any(part.lower() in NORMAL_DIRS for part in name.split("/")[:-1])


def _ask_for_missing(files: ImageFiles, missing: list[str], options: ImportOptions) -> None:
    if missing and not options.skip_missing:
        raise UserError(
            f"{files.folder}: {len(missing)} annotated images are not in it (first: {missing[0]}); say where the "
            "images are with --images FOLDER, or leave those out with --skip_missing"
        )


def _ask_for_empty(files: ImageFiles, empty: list[str], options: ImportOptions) -> None:
    if empty and options.unmarked is None:
        have = number_of(len(empty), "image has", "images have")
        raise UserError(
            f"{files.folder}: {have} no annotation (first: {empty[0]}); are they normal images? "
            "say --unmarked normal, or --unmarked leave if nobody has looked at them"
        )


def images_folder(options: ImportOptions, source: Path) -> Path:
    """The folder that holds the images. UserError for one that is not there or holds none."""
    folder = options.images or source
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder; give the folder of the images")
    return folder


def only_file(source: Path, options: ImportOptions, candidates: list[Path], what: str) -> Path:
    """The annotation file of a source. UserError where there is none, or several."""
    if options.annotations is not None:
        if not options.annotations.is_file():
            raise UserError(f"--annotations {options.annotations}: no such file; give the annotation file")
        return options.annotations
    if source.is_file():
        return source
    if len(candidates) != 1:
        named = " and ".join(p.relative_to(source).as_posix() for p in candidates[:2])
        why = f"holds {len(candidates)} files of {what} ({named})" if candidates else f"holds no file of {what}"
        raise UserError(f"{source}: {why}; say which with --annotations FILE")
    return candidates[0]
