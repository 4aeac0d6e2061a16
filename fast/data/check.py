"""Decode every file of a dataset: counts per type, what is wrong with which file, and the index without it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fast.data.images import natural_key, read_image, read_mask
from fast.data.index import GOOD, DatasetIndex, Sample
from ldm.errors import UserError


@dataclass
class TypeRow:
    """Counts of one type: `anomaly` is a defect type, "good", or "good (test)". Sides are (min, max) in pixels."""

    category: str
    anomaly: str
    images: int
    masks_ok: int
    groups: int
    width: tuple[int, int]
    height: tuple[int, int]


@dataclass
class Report:
    """What `check` found. `usable` is the index without the bad samples; its problem lines are `problems` too."""

    rows: list[TypeRow]
    problems: list[str]
    usable: DatasetIndex


def check(index: DatasetIndex, progress: Callable[[int, int], None] | None = None) -> Report:
    """Decode every file. `progress(done, total)` is called after each sample. Bad samples leave `Report.usable`."""
    test_good = f"{GOOD} (test)"
    jobs = [((s.category, GOOD), s) for s in index.normals] + [((s.category, test_good), s) for s in index.test_normals]
    jobs += [((s.category, s.anomaly), s) for s in sorted(index.defects, key=lambda s: (s.category, s.anomaly))]
    sides: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    kept: dict[tuple[str, str], list[Sample]] = {}
    problems = list(index.problems)
    for done, (key, sample) in enumerate(jobs, 1):
        size, found = _check_sample(index, sample)
        problems.extend(found)
        sides[key].extend([size] if size else [])
        kept.setdefault(key, []).extend([] if found else [sample])
        if progress:
            progress(done, len(jobs))
    rows = [_row(key, [s for k, s in jobs if k == key], kept[key], sides[key]) for key in kept]
    for key in (key for key, samples in kept.items() if not samples):
        samples = [s for k, s in jobs if k == key]
        where = index.relative(samples[0].image.parent)
        problems.append(f"{where}: none of the {len(samples)} samples of '{key[1]}' is usable")
    good = {s for samples in kept.values() for s in samples}
    usable = replace(
        index,
        normals=[s for s in index.normals if s in good],
        test_normals=[s for s in index.test_normals if s in good],
        defects=[s for s in index.defects if s in good],
        excluded=[*index.excluded, *(s for s in index.defects if s not in good)],
        problems=problems,
    )
    return Report(sorted(rows, key=lambda row: natural_key(row.category)), problems, usable)


def _check_sample(index: DatasetIndex, sample: Sample) -> tuple[tuple[int, int] | None, list[str]]:
    """Size (h, w) of the image if it can be read, and what is wrong."""
    try:
        size = read_image(sample.image).shape[:2]
    except UserError as error:
        return None, [f"{index.relative(sample.image)}: {_what(error, sample.image)}"]
    if sample.mask is None:
        return size, []
    name = index.relative(sample.mask)
    try:
        mask = read_mask(sample.mask)
    except UserError as error:
        return size, [f"{name}: {_what(error, sample.mask)}"]
    if mask.shape != size:
        height, width = size
        return size, [f"{name}: mask is {mask.shape[1]}x{mask.shape[0]}, its image {width}x{height}; make them equal"]
    return size, [] if mask.any() else [f"{name}: empty mask; draw the defect or move the image to the normals"]


def _row(key: tuple[str, str], samples: list[Sample], kept: list[Sample], sides: list[tuple[int, int]]) -> TypeRow:
    heights, widths = [h for h, _ in sides] or [0], [w for _, w in sides] or [0]
    return TypeRow(
        *key,
        images=len(samples),
        masks_ok=sum(s.mask is not None for s in kept),
        groups=len({s.group for s in samples}),
        width=(min(widths), max(widths)),
        height=(min(heights), max(heights)),
    )


def _what(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
