"""A drawn dataset on disk, laid out as MVTec-AD is."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.procedural.defects import DEFECTS, defects_of
from fast.procedural.drawing import draw_defect
from fast.procedural.surfaces import MATERIALS, SMALLEST, check_material, draw_surface
from ldm.errors import UserError

RECORD = "drawn.json"
# Raised whenever the drawing changes, so that a dataset of an older drawing is drawn anew.
VERSION = 2
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Spec:
    """Everything a dataset depends on; without `defects`, each material gets those that occur on it."""

    materials: tuple[str, ...]
    normals: int
    test_normals: int
    defects_per_type: int
    size: int
    seed: int
    products: int = 0
    defects: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True)
class ProceduralImage:
    """One picture of a dataset; `defect` is empty for a flawless one."""

    material: str
    split: str
    defect: str
    index: int

    @property
    def path(self) -> str:
        return f"{self.material}/{self.split}/{self.defect or 'good'}/{self.index:03d}.png"

    @property
    def mask_path(self) -> str:
        return f"{self.material}/ground_truth/{self.defect}/{self.index:03d}_mask.png"


def picture_rng(seed: int, material: str, kind: str, index: int) -> np.random.Generator:
    """The generator of one picture: it depends on nothing but these four, so counts never change a picture."""
    return np.random.default_rng([seed, zlib.crc32(f"{material}/{kind}".encode()), index])


def _pictures(spec: Spec) -> Iterator[ProceduralImage]:
    for material in spec.materials:
        yield from (ProceduralImage(material, "train", "", i) for i in range(spec.normals))
        yield from (ProceduralImage(material, "test", "", i) for i in range(spec.test_normals))
        for defect in spec.defects or defects_of(material):
            yield from (ProceduralImage(material, "test", defect, i) for i in range(spec.defects_per_type))


def _paths(spec: Spec) -> set[str]:
    """Relative paths of every file of a dataset, the record among them."""
    paths = {RECORD}
    for picture in _pictures(spec):
        paths.update([picture.path, picture.mask_path] if picture.defect else [picture.path])
    return paths


def _check(spec: Spec) -> None:
    if not spec.materials:
        raise UserError(f"no materials to draw; choose from {', '.join(MATERIALS)}")
    for material in spec.materials:
        check_material(material)
    if len(set(spec.materials)) != len(spec.materials):
        raise UserError(f"materials {', '.join(spec.materials)} name one twice; name each once")
    for defect in spec.defects:
        if defect not in DEFECTS:
            raise UserError(f"unknown defect {defect!r}; choose from {', '.join(DEFECTS)}")
    if len(set(spec.defects)) != len(spec.defects):
        raise UserError(f"defects {', '.join(spec.defects)} name one twice; name each once")
    least = {"normals": 0, "test_normals": 0, "defects_per_type": 0, "size": SMALLEST, "seed": 0, "products": 0}
    for name, low in least.items():
        value = getattr(spec, name)
        if value < low:
            raise UserError(f"{name} is {value}; it must be {low} or more")


def _recorded(root: Path) -> Spec | None:
    """The spec a folder was drawn with, or None if it is not a drawn dataset."""
    try:
        stored = json.loads((root / RECORD).read_text())
        names = {key: tuple(stored.get(key, ())) for key in ("materials", "defects")}
        return Spec(**{**stored, **names})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _laid_out(path: str, materials: Sequence[str]) -> bool:
    """Whether a relative path is one that a picture or mask of these materials can have."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] not in materials or parts[1] not in ("train", "test", "ground_truth"):
        return False
    return re.fullmatch(r"\d{3,}(_mask)?\.png", parts[3]) is not None


def _is_current(root: Path, spec: Spec) -> bool:
    """Whether the folder holds this very dataset, complete. Raises UserError if it holds anything not drawn."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file; name a folder for the drawn dataset")
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    old = _recorded(root)
    # What types a material has may have changed since, so the layout tells, not the list of today's paths.
    foreign = {p for p in present if old is None or not (p == RECORD or _laid_out(p, old.materials))}
    if foreign:
        raise UserError(f"{root} holds files that were not drawn, such as {min(foreign)}; name another folder")
    return old == spec and present == _paths(spec)


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    if not done:
        raise OSError(f"no PNG could be made of {path.name}")
    path.write_bytes(data.tobytes())


def _draw(picture: ProceduralImage, spec: Spec, root: Path) -> None:
    kind = f"{picture.split}/{picture.defect or 'good'}"
    rng = picture_rng(spec.seed, picture.material, kind, picture.index)
    product = picture.index % spec.products if spec.products else None
    dye = None if product is None else picture_rng(spec.seed, picture.material, "product", product)
    image = draw_surface(picture.material, rng, spec.size, dye)
    if picture.defect:
        image, mask = draw_defect(image, picture.material, picture.defect, rng)
        _save(root / picture.mask_path, np.asarray(mask * 255, np.uint8))
    _save(root / picture.path, image)


def _write(root: Path, spec: Spec, progress: Progress | None) -> None:
    """Draw into a sibling folder and put it in place whole: a dataset is there completely or not at all."""
    part = root.with_name(root.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    pictures = list(_pictures(spec))
    for done, picture in enumerate(pictures, start=1):
        _draw(picture, spec, part)
        if progress is not None:
            progress(done, len(pictures), picture.path)
    (part / RECORD).write_text(json.dumps(asdict(spec), indent=2) + "\n")
    if root.exists():
        shutil.rmtree(root)
    part.rename(root)


def draw_dataset(
    root: Path,
    *,
    materials: Sequence[str] = MATERIALS,
    normals: int = 24,
    test_normals: int = 6,
    defects_per_type: int = 6,
    size: int = 256,
    seed: int = 0,
    products: int = 0,
    defects: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Draw a dataset of drawn surfaces and defects in MVTec-AD layout.

    One that is already there with the same parameters is left as it is, and one of other parameters is replaced.

    Args:
        root: the dataset's folder.
        materials: the surfaces, some of `fast.procedural.surfaces.MATERIALS`.
        normals, test_normals: flawless pictures of each material to train and to test on.
        defects_per_type: pictures of each defect type on each material.
        size: side in pixels of the pictures.
        seed: decides what is drawn.
        products: colourings of each material, taken in turn. 0 gives each picture its own.
        defects: the types to draw on every material. Empty: those that `defects_of` names for it.
        progress: called as (done, total, path) after each picture.

    Returns:
        `root`, as an absolute path.

    Raises:
        UserError: when a parameter is out of range or unknown, the folder holds any file that was not drawn, or it
            cannot be written.
    """
    root = Path(root).absolute()
    spec = Spec(tuple(materials), normals, test_normals, defects_per_type, size, seed, products, tuple(defects))
    _check(spec)
    try:
        if not _is_current(root, spec):
            _write(root, spec, progress)
    except OSError as error:
        raise UserError(f"cannot write the drawn dataset to {root}: {error.strerror or error}") from error
    return root
