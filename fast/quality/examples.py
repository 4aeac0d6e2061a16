"""Drawn defects for the classifier of types, cut into its views as they are drawn."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import cv2
import numpy as np

from fast.procedural import DEFECTS, defects_of, draw_defect, draw_surface
from fast.procedural.traits import HELD_APART, TRAITS
from fast.quality.windows import cut, fill_untyped
from fast.runtime.command import leave_interrupts

TRAINING_MATERIALS = tuple(sorted(set(TRAITS) - set(HELD_APART)))
DEFECTS_OF_ONE = 4  # drawn into one normal image
UNTYPED = -1  # the label of what is of no type


def _draw(number: int, materials: Sequence[str], seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, number, 77])
    material = materials[number % len(materials)]
    normal = draw_surface(material, rng, size)
    # Types that few materials have are drawn first on those that have them.
    kinds = defects_of(material)
    weights = np.array([1 / sum(kind in defects_of(m) for m in materials) for kind in kinds])
    chosen = rng.choice(len(kinds), min(DEFECTS_OF_ONE, len(kinds)), replace=False, p=weights / weights.sum())
    pairs = [draw_defect(normal, material, kinds[i], rng) for i in chosen]
    views = [cut(image, mask) for image, mask in pairs]
    labels = [DEFECTS.index(kinds[i]) for i in chosen]
    mask = pairs[rng.integers(len(pairs))][1]
    views.append(cut(normal if rng.random() < 0.25 else fill_untyped(normal, mask, rng), mask))
    return np.stack(views), np.array([*labels, UNTYPED])


def draw_examples(
    surfaces: int,
    materials: Sequence[str] = TRAINING_MATERIALS,
    seed: int = 0,
    workers: int | None = None,
    size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Views (N, 2, STORED, STORED, 3) uint8 and labels (N,), four defects of each of `surfaces` normal images of
    `size` pixels and one mask that holds nothing of any type, whose label is -1.

    `workers`: processes that draw (default: one per core). The same arguments give the same examples.
    """
    fresh = multiprocessing.get_context("spawn")
    draw = partial(_draw, materials=tuple(materials), seed=seed, size=size)
    with ProcessPoolExecutor(workers or os.cpu_count(), fresh, leave_interrupts) as pool:
        found = list(pool.map(draw, range(surfaces), chunksize=8))
    return np.concatenate([views for views, _ in found]), np.concatenate([labels for _, labels in found])
