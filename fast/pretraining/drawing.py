"""Drawn training data: surfaces with defects and their masks, made by worker processes while somebody takes them.

Sheet n is a function of the recipe and n alone, so that a stopped training goes on with sheets that it has not seen.
"""

import ctypes
import multiprocessing
import os
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fast.data.images import list_images, read_image
from fast.procedural import draw_defect, draw_surface
from fast.procedural.defects import defects_of
from fast.procedural.traits import HELD_APART, TRAITS
from fast.runtime.command import leave_interrupts
from ldm.errors import UserError

DEFECTS = 8  # drawn into each surface, all of different types
POINTS = 16  # pixels of each mask that windows are placed by
GREY = 0.25  # share of the images as a monochrome camera takes them
# What a photograph is drawn on as, by words of its file's name.
PHOTOGRAPHED = {
    "wood": "wood", "plank": "wood", "leather": "leather", "fabric": "fabric", "cloth": "fabric", "carpet": "carpet",
    "concrete": "concrete", "stone": "stone_tile", "rock": "stone_tile", "brick": "concrete", "tile": "ceramic_tile",
    "perforated": "perforated_metal", "grate": "perforated_metal", "metal": "rolled_metal",
    "plate": "rolled_metal", "steel": "rolled_metal", "rust": "cast_metal", "paint": "painted", "paper": "cardboard",
    "board": "chipboard", "plastic": "plastic", "rubber": "plastic", "glass": "glass",
}  # fmt: skip
MATERIALS = tuple(sorted(set(TRAITS) - set(HELD_APART)))
TYPES = tuple(sorted({str(kind) for material in TRAITS for kind in defects_of(material)}))


@dataclass(frozen=True)
class DrawingRecipe:
    """What a sheet depends on beside its number and the photographs themselves.

    `size`: side of the images in pixels; `photos`: a folder of photographed surfaces to draw on, a `photo_share` (0..1)
    of the sheets; those whose names tell of a material that is held out are left out.
    """

    size: int = 256
    seed: int = 0
    materials: tuple[str, ...] = MATERIALS
    photos: str = ""
    photo_share: float = 0.3

    def photo_files(self) -> list[Path]:
        """The photographs in their order. Raises `UserError` for a folder without any."""
        if not self.photos:
            return []
        found = [p for p in list_images(self.photos) if not _held_out(p)]
        if not found:
            raise UserError(f"--photos {self.photos} holds no images of surfaces; name another folder or leave it out")
        return found


@dataclass
class Sheet:
    """A surface and `DEFECTS` defects drawn into it, each alone: `images` (1+N,H,W,3) uint8, the normal one first;
    `masks` (N,H,W/8) uint8, a bit for each pixel; `points` (N,POINTS,2) int16, rows and columns of pixels inside each
    mask; `types`: the defect type of each."""

    material: str
    images: np.ndarray
    masks: np.ndarray
    points: np.ndarray
    types: list[str]


def masks_of(sheet: Sheet) -> np.ndarray:
    """The masks (N,H,W) uint8 in {0,1} of a sheet."""
    return np.unpackbits(sheet.masks, axis=-1, count=sheet.images.shape[2])


def draw_sheet(number: int, recipe: DrawingRecipe, photos: Sequence[Path] = ()) -> Sheet:
    """Sheet `number`: one of the recipe's materials, or a photograph, with defects that such a material has."""
    rng = np.random.default_rng([recipe.seed, number])
    if photos and rng.random() < recipe.photo_share:
        normal, material = _photo(photos[int(rng.integers(len(photos)))], recipe.size, rng)
    else:
        material = recipe.materials[number % len(recipe.materials)]
        normal = draw_surface(material, rng, recipe.size)
    normal = _turned(normal, rng)
    grey = rng.random() < GREY
    shown = _grey(normal) if grey else normal
    types = [str(kind) for kind in rng.permutation(defects_of(material))[:DEFECTS]]
    defects, masks = [], []
    for defect_type in types:
        drawn, mask = draw_defect(normal, material, defect_type, rng)
        defects.append(np.where(mask[..., None] > 0, _grey(drawn), shown) if grey else drawn)
        masks.append(mask)
    points = [np.argwhere(mask)[rng.integers(int(mask.sum()), size=POINTS)] for mask in masks]
    packed = np.packbits(np.stack(masks), axis=-1)
    return Sheet(material, np.stack([shown, *defects]), packed, np.stack(points).astype(np.int16), types)


def _photo(path: Path, size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A square window of a photograph as (size,size,3), and the material that it passes for."""
    image = read_image(path)
    least = min(image.shape[:2])
    side = int(rng.uniform(min(0.6 * size, least), least + 1))
    y, x = (int(rng.integers(s - side + 1)) for s in image.shape[:2])
    window = np.ascontiguousarray(image[y : y + side, x : x + side])
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    name = path.stem.lower()
    material = next((m for word, m in PHOTOGRAPHED.items() if word in name), "concrete")
    return np.asarray(cv2.resize(window, (size, size), interpolation=how), np.uint8), material


def _held_out(path: Path) -> bool:
    name = path.stem.lower()
    return any(material.split("_")[0] in name for material in HELD_APART)


def _turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = np.rot90(image, int(rng.integers(4)))
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


class _Slots:
    """Memory that all processes share, for `count` sheets of a recipe: pickled, a sheet would cost its reader 5 ms."""

    def __init__(self, context: Any, size: int, count: int):
        self._shapes = ((1 + DEFECTS, size, size, 3), (DEFECTS, size, size // 8), (DEFECTS, POINTS, 2))
        images, masks, points = (int(np.prod(shape)) for shape in self._shapes)
        self._memory = context.RawArray(ctypes.c_uint8, count * (images + masks + 2 * points))
        self.count = count

    def __getitem__(self, slot: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`images`, `masks` and `points` of a sheet, as views."""
        row = np.frombuffer(self._memory, np.uint8).reshape(self.count, -1)[slot]
        images, masks, _ = (int(np.prod(shape)) for shape in self._shapes)
        parts = row[:images], row[images : images + masks], row[images + masks :].view(np.int16)
        first, second, third = (part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True))
        return first, second, third


def _work(
    first: int, stride: int, recipe: DrawingRecipe, photos: list[Path], slots: _Slots, free: Any, ready: Any, stop: Any
) -> None:
    """A worker process: draws sheets first, first + stride, ... into free slots until `stop` is set."""
    leave_interrupts()
    if hasattr(os, "nice"):  # what trains goes first
        os.nice(5)
    cv2.setNumThreads(1)
    number = first
    while not stop.is_set():
        sheet = draw_sheet(number, recipe, photos)
        slot = None
        while slot is None and not stop.is_set():
            try:
                slot = free.get(timeout=1.0)
            except queue.Empty:  # nobody is in need of sheets just now
                continue
        if slot is not None:
            for there, part in zip(slots[slot], (sheet.images, sheet.masks, sheet.points), strict=True):
                there[...] = part
            ready.put((number, slot, sheet.material, sheet.types))
            number += stride


class Drawing:
    """Worker processes that draw sheets from number `first` on, up to `ahead` before they are taken.

    Use as a context manager; leaving it ends the workers.
    """

    def __init__(self, recipe: DrawingRecipe, first: int = 0, workers: int | None = None, ahead: int = 64):
        self.recipe, self.first = recipe, first
        self.workers = workers or os.cpu_count() or 1
        # Not forked: a process whose libraries have threads would hand on their locks.
        context = multiprocessing.get_context("spawn")
        self._slots = _Slots(context, recipe.size, ahead)
        self._free, self._ready, self._stop = context.Queue(), context.Queue(), context.Event()
        for slot in range(ahead):
            self._free.put(slot)
        photos = recipe.photo_files()
        shared = (self._slots, self._free, self._ready, self._stop)
        self._processes = [
            context.Process(target=_work, args=(first + i, self.workers, recipe, photos, *shared), daemon=True)
            for i in range(self.workers)
        ]

    def __enter__(self) -> "Drawing":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()

    @contextmanager
    def taken(self, limit: int, wait: bool = False) -> Iterator[list[tuple[int, Sheet]]]:
        """Up to `limit` (number, sheet) of what is ready, with `wait` at least one; their arrays last as long as the
        context. Raises `RuntimeError` if a worker has died."""
        found: list[tuple[int, int, str, list[str]]] = []
        while len(found) < limit:
            try:
                found.append(self._ready.get(timeout=1.0) if wait and not found else self._ready.get_nowait())
            except queue.Empty:
                dead = [p.exitcode for p in self._processes if p.exitcode not in (None, 0)]
                if dead:
                    raise RuntimeError(f"a drawing process ended with code {dead[0]}") from None
                if found or not wait:
                    break
        try:
            yield [(number, Sheet(material, *self._slots[slot], types)) for number, slot, material, types in found]
        finally:
            for _, slot, _, _ in found:
                self._free.put(slot)
