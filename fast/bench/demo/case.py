"""The demo's case: surfaces nobody trained on, masks drawn on them, a few real defects, and those of the test."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fast.bench.demo.record import say, timed
from fast.data.images import read_image, write_image, write_mask
from fast.procedural import defects_of, draw_defect, draw_surface
from fast.procedural.dataset import picture_rng
from fast.procedural.traits import HELD_APART
from fast.runtime.command import leave_interrupts

AT_ONCE = 12  # pictures for which one more process is worth its start


@dataclass(frozen=True)
class DemoPlan:
    """What is drawn, made and trained. `normals`, `handful`: pictures of each material; `pairs`, `tests`: of each type
    of defect on each material; `evaluations`: of the network for a pair; `steps`: of each segmenter's training, of
    whose pictures `normal_share` are flawless and, where there are synthetic ones, `real_share` of the rest real;
    `prior`: one of `fast.segmentation.prior.PRIORS`."""

    materials: tuple[str, ...] = HELD_APART
    size: int = 256
    normals: int = 12
    handful: int = 3
    pairs: int = 3
    tests: int = 2
    evaluations: int = 10
    steps: int = 900
    window: int = 128
    normal_share: float = 0.1
    real_share: float = 0.25
    prior: str = "real"
    seed: int = 0

    def types(self) -> list[tuple[str, str]]:
        """(material, defect type), all that are made and tested."""
        return [(material, defect) for material in self.materials for defect in defects_of(material)]


@dataclass(frozen=True)
class Real:
    """A real defect, and the files of its picture and its mask. `use`: what it is for, "handful" or "test"."""

    material: str
    defect: str
    use: str
    index: int
    image: Path
    mask: Path


def normals_of(plan: DemoPlan, out: Path, material: str) -> list[Path]:
    return [out / "parts" / material / "normal" / f"{i:03d}.png" for i in range(plan.normals)]


def mask_folder(out: Path, material: str) -> Path:
    """Masks in folders that are named by their defects."""
    return out / "parts" / material / "masks"


def handful(plan: DemoPlan, out: Path) -> list[Real]:
    """The few real defects that there are to train on: of each material some types, chosen by chance."""
    found = []
    for material in plan.materials:
        chosen = picture_rng(plan.seed, material, "handful", 0).permutation(defects_of(material))[: plan.handful]
        found += [_real(out, material, str(defect), "handful", 0) for defect in chosen]
    return found


def tests(plan: DemoPlan, out: Path) -> list[Real]:
    """Real defects that no training sees: every type on every material."""
    return [_real(out, material, defect, "test", i) for material, defect in plan.types() for i in range(plan.tests)]


def _real(out: Path, material: str, defect: str, use: str, index: int) -> Real:
    folder, name = out / use / material, f"{index:03d}.png"
    return Real(material, defect, use, index, folder / "defects" / defect / name, folder / "masks" / defect / name)


def draw(plan: DemoPlan, out: Path) -> None:
    """Normals, masks as drawn by hand, a handful of real defects, and those of the test; what is there stays."""
    normals, others = [], []
    for material in plan.materials:
        grounds = normals_of(plan, out, material)
        normals += [partial(draw_normal, plan, material, i, p) for i, p in enumerate(grounds) if not p.is_file()]
        for defect in defects_of(material):
            paths = [mask_folder(out, material) / defect / f"{i:03d}.png" for i in range(plan.pairs)]
            others += [
                partial(draw_mask, plan, material, defect, i, grounds[i % plan.normals], path)
                for i, path in enumerate(paths)
                if not path.is_file()
            ]
    reals = [*handful(plan, out), *tests(plan, out)]
    others += [partial(draw_real, plan, real) for real in reals if not (real.image.is_file() and real.mask.is_file())]
    for tasks, what in ((normals, "normals"), (others, "masks, a handful of real defects, and those of the test")):
        if tasks:
            say(f"drawing: {what}")
            with timed(out, "draw"):
                in_processes(tasks)


def draw_normal(plan: DemoPlan, material: str, index: int, path: Path) -> None:
    write_image(path, _surface(plan, material, picture_rng(plan.seed, material, "normal", index)))


def draw_mask(plan: DemoPlan, material: str, defect: str, index: int, ground: Path, path: Path) -> None:
    """As somebody marks a place on a normal picture; the defect itself is not kept."""
    rng = picture_rng(plan.seed, material, f"mask/{defect}", index)
    write_mask(path, draw_defect(read_image(ground), material, defect, rng)[1])


def draw_real(plan: DemoPlan, real: Real) -> None:
    rng = picture_rng(plan.seed, real.material, f"{real.use}/{real.defect}", real.index)
    image, mask = draw_defect(_surface(plan, real.material, rng), real.material, real.defect, rng)
    write_mask(real.mask, mask)
    write_image(real.image, image)


def _surface(plan: DemoPlan, material: str, rng: np.random.Generator) -> np.ndarray:
    """One product of each material, as a factory has: the same colours in every picture."""
    return draw_surface(material, rng, plan.size, picture_rng(plan.seed, material, "product", 0))


def in_processes(tasks: Sequence[Callable[[], object]]) -> None:
    """Do all tasks, on all cores, with a bar on a terminal."""
    from fast.runtime.progress import Progress

    workers = min(os.cpu_count() or 1, len(tasks) // AT_ONCE)
    with Progress(len(tasks), "drawing", "picture") as bar:
        if workers < 2:
            for task in tasks:
                task()
                bar.update()
            return
        # Not forked: a process whose libraries have threads would hand on their locks.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _single) as pool:
            futures = [pool.submit(task) for task in tasks]
            wait_for(futures, bar.update, lambda: pool.shutdown(wait=False, cancel_futures=True))


def _single() -> None:
    """In a process of a pool: one thread each, and Ctrl-C is the first process's affair."""
    import cv2

    cv2.setNumThreads(1)
    leave_interrupts()


def wait_for(futures: Sequence[Future[Any]], each: Callable[[], object], stop: Callable[[], object]) -> None:
    """Until all are done; `stop` is called if one fails or the user stops waiting."""
    try:
        for future in as_completed(futures):
            future.result()
            each()
    except BaseException:
        stop()
        raise
