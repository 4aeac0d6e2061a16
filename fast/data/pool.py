"""What the base is trained on: a pool of drawn and photographed surfaces with drawn defects, and the pool's latents.

A pool is a folder of shards, each a function of the recipe and its number, so that it may be filled by many processes,
stopped, gone on with and made larger at any time. Every defect comes with its mask and with the picture before it.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fast.data.drawn import draw_defect, draw_surface
from fast.data.drawn.defects import defects_of
from fast.data.drawn.traits import HELD_APART, TRAITS
from fast.data.images import list_images, read_image
from fast.door import leave_interrupts
from ldm.checkpoint import read_metadata, save_safetensors
from ldm.errors import UserError

VERSION = 2  # raised whenever the same recipe would give other pictures, drawn ones among them
NORMALS, DEFECTS = 64, 4  # pictures in a shard, defects drawn into each
GREY = 0.25  # share of pictures as a monochrome camera takes them
# What a photograph is drawn on as, by words of its file's name.
PHOTOGRAPHED = {
    "wood": "wood", "plank": "wood", "leather": "leather", "fabric": "fabric", "cloth": "fabric", "carpet": "carpet",
    "concrete": "concrete", "stone": "stone_tile", "rock": "stone_tile", "brick": "concrete", "tile": "ceramic_tile",
    "perforated": "perforated_metal", "grate": "perforated_metal", "metal": "rolled_metal",
    "plate": "rolled_metal", "steel": "rolled_metal", "rust": "cast_metal", "paint": "painted", "paper": "cardboard",
    "board": "chipboard", "plastic": "plastic", "rubber": "plastic", "glass": "glass",
}  # fmt: skip


@dataclass(frozen=True)
class PoolRecipe:
    """Everything a shard depends on beside its number and the photographs themselves. `photos`: a folder of surfaces to
    mix in, a `share` of the pictures. Those whose names tell of a material that is kept apart are left out."""

    size: int = 256
    seed: int = 0
    materials: tuple[str, ...] = tuple(sorted(set(TRAITS) - set(HELD_APART)))
    photos: str = ""
    share: float = 0.3

    @property
    def text(self) -> str:
        return json.dumps({**asdict(self), "version": VERSION})


@dataclass
class Shard:
    """`normals` (S,H,W,3), `defects` (N,H,W,3), `masks` (N,H,W) in {0,1}, all uint8; `owner` (N,), each one's normal;
    `names`: the (material, defect type) of each."""

    normals: np.ndarray
    defects: np.ndarray
    masks: np.ndarray
    owner: np.ndarray
    names: list[tuple[str, str]]


def draw_shard(number: int, recipe: PoolRecipe, photos: Sequence[Path] = ()) -> Shard:
    """Shard `number`: normals in turn of the materials or `photos`, with defects that such a material has."""
    rng = np.random.default_rng([recipe.seed, number, VERSION])
    normals, defects, masks, owner, names = [], [], [], [], []
    for i in range(NORMALS):
        if photos and rng.random() < recipe.share:
            normal, material = _photo(photos[int(rng.integers(len(photos)))], recipe.size, rng)
        else:
            material = recipe.materials[(number * NORMALS + i) % len(recipe.materials)]
            normal = draw_surface(material, rng, recipe.size)
        normal = _turned(normal, rng)
        kinds = rng.permutation(defects_of(material))[:DEFECTS]
        grey = rng.random() < GREY
        normals.append(_grey(normal) if grey else normal)
        for kind in kinds:
            drawn, mask = draw_defect(normal, material, str(kind), rng)
            if grey:
                drawn = np.where(mask[..., None] > 0, _grey(drawn), normals[-1])
            defects.append(drawn)
            masks.append(mask)
            owner.append(i)
            names.append((material, str(kind)))
    return Shard(np.stack(normals), np.stack(defects), np.stack(masks), np.array(owner), names)


def _photo(path: Path, size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A square window of a photograph as a (size,size,3) picture, and the material it passes for."""
    image = read_image(path)
    least = min(image.shape[:2])
    side = int(rng.uniform(min(0.6 * size, least), least + 1))
    y, x = (int(rng.integers(s - side + 1)) for s in image.shape[:2])
    window = np.ascontiguousarray(image[y : y + side, x : x + side])
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    name = path.stem.lower()
    material = next((m for word, m in PHOTOGRAPHED.items() if word in name), "concrete")
    return np.asarray(cv2.resize(window, (size, size), interpolation=how), np.uint8), material


def _apart(path: Path) -> bool:
    name = path.stem.lower()
    return any(material.split("_")[0] in name for material in HELD_APART)


def _turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = np.rot90(image, int(rng.integers(4)))
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def shard_path(folder: Path, number: int, what: str = "pool") -> Path:
    return folder / f"{what}-{number:05d}.safetensors"


def _store(number: int, recipe: PoolRecipe, folder: Path, photos: Sequence[Path]) -> int:
    cv2.setNumThreads(1)
    shard = draw_shard(number, recipe, photos)
    tensors = {
        "normals": torch.from_numpy(shard.normals),
        "defects": torch.from_numpy(shard.defects),
        "masks": torch.from_numpy(np.packbits(shard.masks, axis=-1)),
        "owner": torch.from_numpy(shard.owner),
    }
    save_safetensors(tensors, shard_path(folder, number), {"recipe": recipe.text, "names": json.dumps(shard.names)})
    return number


def read_shard(path: Path) -> Shard:
    """A stored shard. Raises `UserError` for a file that is none."""
    names = read_metadata(path).get("names")
    stored = {} if names is None else load_file(path)
    if names is None or not {"normals", "defects", "masks", "owner"} <= set(stored):
        raise UserError(f"{path} is no shard of a pool; remove it and run the same command again")
    masks = np.unpackbits(stored["masks"].numpy(), axis=-1, count=stored["defects"].shape[2])
    pairs = [(str(material), str(kind)) for material, kind in json.loads(names)]
    return Shard(stored["normals"].numpy(), stored["defects"].numpy(), masks, stored["owner"].numpy(), pairs)


def fill_pool(
    folder: Path,
    shards: int,
    recipe: PoolRecipe,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the shards 0..shards-1 that are not in `folder` yet, `workers` at a time (default: one per core).

    `progress` is called as (done, total). Raises `UserError` where the folder holds a pool of another recipe, or the
    photographs are missing.
    """
    photos = [p for p in list_images(recipe.photos) if not _apart(p)] if recipe.photos else []
    if recipe.photos and not photos:
        raise UserError(f"{recipe.photos} holds no pictures of surfaces; name another folder or leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    absent = []
    for number in range(shards):
        path = shard_path(folder, number)
        if not path.is_file():
            absent.append(number)
        elif read_metadata(path).get("recipe") != recipe.text:
            raise UserError(f"{path} was drawn by another recipe; name another folder for the pool")
    # Not forked: a process whose libraries have threads would hand on their locks.
    fresh = multiprocessing.get_context("spawn")
    done, pool = shards - len(absent), ProcessPoolExecutor(workers or os.cpu_count(), fresh, leave_interrupts)
    try:
        for future in as_completed([pool.submit(_store, n, recipe, folder, photos) for n in absent]):
            future.result()
            done += 1
            if progress:
                progress(done, shards)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # shards under way are finished, no others begun


@torch.no_grad()
def encode_pool(
    folder: Path,
    mean: Callable[[Tensor], Tensor],
    first_stage: str,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write every shard's latents, `mean(images (B,3,H,W) in [-1, 1])`, in half precision, beside it.

    `first_stage` names the weights (their hash): latents of others are made anew.
    """
    paths = sorted(folder.glob("pool-*.safetensors"))
    for done, path in enumerate(paths, start=1):
        target = folder / path.name.replace("pool-", "latents-")
        if not target.is_file() or read_metadata(target).get("first_stage") != first_stage:
            shard = read_shard(path)
            found = {}
            for name, images in (("normals", shard.normals), ("defects", shard.defects)):
                rows = [mean(_tensor(images[i : i + batch])).half().cpu() for i in range(0, len(images), batch)]
                found[name] = torch.cat(rows)
            save_safetensors(found, target, {"first_stage": first_stage})
        if progress:
            progress(done, len(paths))


def _tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
