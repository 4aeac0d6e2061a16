"""Normal images and masks for synthesis, and which of them meet in which pair."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fast.data.images import list_images, read_mask
from fast.data.layouts import open_dataset
from ldm.errors import UserError
from ldm.rng import seed_of


@dataclass(frozen=True)
class MaskSource:
    """A mask file; `kind` is the folder it lies in, which often names the defect type."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Pair:
    """One image-mask pair to make. `seed` fixes its noise; it depends on the run's seed and the index alone."""

    index: int
    normal: Path
    mask: MaskSource
    type_index: int
    seed: int


def find_normals(path: str) -> list[Path]:
    """Images directly in a folder, or the training normals of a dataset. Raises `UserError`."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"--data_root {path} is not a folder; give a folder of normal images")
    images = list_images(folder)
    if not images:
        images = [s.image for s in open_dataset(folder).normals]
    if not images:
        raise UserError(f"--data_root {path} holds no image; give a folder of normal images")
    return images


def find_masks(path: str) -> tuple[list[MaskSource], list[str]]:
    """(masks with a defect in them, the names of empty ones). Looks in a folder and one level of folders below."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"--mask_path {path} is not a folder; give a folder of mask images")
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    sources = [MaskSource(file, place.name) for place in places for file in list_images(place)]
    if not sources:
        raise UserError(f"--mask_path {path} holds no image; give a folder of mask images")
    filled = [s for s in sources if read_mask(s.path).any()]
    empty = [str(s.path) for s in sources if s not in set(filled)]
    if not filled:
        raise UserError(f"--mask_path {path}: all {len(sources)} masks are empty; defect pixels must be white")
    return filled, empty


def match_types(types: list[str], anomaly_name: str | None, init_word: str | None) -> list[int]:
    """Numbers of the learned types ("category/anomaly") that a name on the command line means.

    In this order: a type, "category/type" or "category+type" or the type alone; a category; a name that begins with a
    category (`bottle_test`); the category that `init_word` names; the only type there is.
    """
    rows = list(enumerate(types))
    if anomaly_name is None and init_word is None:
        return [i for i, _ in rows]
    name = (anomaly_name or "").strip("/").replace("+", "/")
    tests = (
        lambda c, a: name in (f"{c}/{a}", a),
        lambda c, a: name == c,
        lambda c, a: name.startswith((f"{c}_", f"{c}-")),
        lambda c, a: init_word == c and not anomaly_name,
        lambda c, a: init_word == c,
    )
    for test in tests:
        found = [i for i, t in rows if test(*t.split("/", 1))]
        if found:
            return found
    if len(types) == 1:
        return [0]
    raise UserError(f"--anomaly_name {anomaly_name}: these weights know {', '.join(types)}; name one or a category")


def type_of(mask: MaskSource, types: list[str], allowed: list[int], seed: int) -> int:
    """The type whose folder name the mask lies in, or a seeded choice among those allowed."""
    named = [i for i in allowed if types[i].split("/", 1)[1] == mask.kind]
    return named[0] if named else allowed[seed % len(allowed)]


def plan_pair(
    index: int, normals: list[Path], masks: list[MaskSource], types: list[str], allowed: list[int], seed: int
) -> Pair:
    """Pair number `index`: masks and normals each come round in a new order every time through."""
    normal = normals[_turn(index, len(normals), seed_of(seed, 1))]
    mask = masks[_turn(index, len(masks), seed_of(seed, 2))]
    own = seed_of(seed, 3, index)
    return Pair(index, normal, mask, type_of(mask, types, allowed, own), own)


def _turn(index: int, count: int, seed: int) -> int:
    lap, place = divmod(index, count)
    return int(np.random.default_rng(seed_of(seed, lap)).permutation(count)[place])
