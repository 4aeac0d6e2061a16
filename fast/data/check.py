"""Decode every file of a dataset: counts per type, what is wrong with which file, and the index without it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np

from fast.data.depth import read_with_mode
from fast.data.images import natural_key, read_mask_as
from fast.data.index import GOOD, DatasetIndex, Sample
from fast.data.labelme import Annotation, load_annotation
from fast.data.labelme_masks import beyond, nested
from fast.data.reading import reading_of
from fast.data.turned import ASKED, fits_both_ways, size_problem, turn_without_mask
from fast.runtime.counts import number_of
from fast.runtime.progress import followed
from fast.runtime.signals import is_first_process
from ldm.errors import UserError

WAYS = 6  # lines about masks


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
class DataReport:
    """What `check` found. `usable` is the index without the bad samples; its problem lines are `problems` too."""

    rows: list[TypeRow]
    problems: list[str]
    usable: DatasetIndex


def check(index: DatasetIndex) -> DataReport:
    """Decode every file, and tell how far that is. Bad samples leave `Report.usable`."""
    test_good = f"{GOOD} (test)"
    jobs = [((s.category, GOOD), s) for s in index.normals] + [((s.category, test_good), s) for s in index.test_normals]
    jobs += [((s.category, s.anomaly), s) for s in sorted(index.defects, key=lambda s: (s.category, s.anomaly))]
    looks: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for key, sample in followed(jobs, "checking images", "image", hidden=not is_first_process(), leave=False):
        looks[key].append(look_at(index, sample))
    problems, kept = list(index.problems), dict[tuple[str, str], list[Sample]]()
    for key, seen in looks.items():
        found = [[*one.problems, *inverted] for one, inverted in zip(seen, _inverted(index, seen), strict=True)]
        problems += [line for lines in found for line in lines]
        kept[key] = [one.sample for one, lines in zip(seen, found, strict=True) if not lines]
        if not kept[key]:
            where = index.relative(seen[0].sample.image.parent)
            problems.append(f"{where}: none of the {len(seen)} samples of '{key[1]}' is usable")
    every = [one for seen in looks.values() for one in seen]
    good = {s for samples in kept.values() for s in samples}
    usable = replace(
        index,
        normals=[s for s in index.normals if s in good],
        test_normals=[s for s in index.test_normals if s in good],
        defects=[s for s in index.defects if s in good],
        excluded=[*index.excluded, *(s for s in index.defects if s not in good)],
        problems=problems,
        notes=[*index.notes, *_decisions(every)],
        doubts=[*index.doubts, *_depths_that_differ(index, every)],
    )
    rows = [_row(key, seen, kept[key]) for key, seen in looks.items()]
    return DataReport(sorted(rows, key=lambda row: natural_key(row.category)), problems, usable)


@dataclass
class Look:
    """What decoding a sample showed. `size`: (h, w) of the image if it can be read, `mode`: its depth in words, `bits`:
    those in use of 16; `values`, `taken`: what the mask's values are and what they were taken for; `share`, `border`:
    what the defect covers of the picture and of its border; `turned`: EXIF turns the image, and not the mask;
    `two_valued`: a picture without a mask that may be one itself."""

    sample: Sample
    size: tuple[int, int] | None = None
    mode: str = ""
    bits: int | None = None
    values: str = ""
    taken: str = ""
    share: float = 0.0
    border: float = 0.0
    turned: bool = False
    two_valued: bool = False
    problems: list[str] = field(default_factory=list)


NO_PICTURES = "give the folder that the pictures lie in"


def look_at(index: DatasetIndex, sample: Sample) -> Look:
    """Decode an image and its mask."""
    look = Look(sample)
    try:
        image, mode = read_with_mode(sample.image)
    except UserError as error:
        look.problems.append(f"{index.relative(sample.image)}: {_what(error, sample.image)}")
        return look
    look.size, look.mode = (image.shape[0], image.shape[1]), mode.name
    look.bits = mode.bits if mode.container == 16 else None
    if sample.mask is None:
        look.two_valued = two_valued(image)
        return look
    name = index.relative(sample.mask)
    try:
        reading = read_mask_as(sample.mask)
    except UserError as error:
        look.problems.append(f"{name}: {_what(error, sample.mask)}")
        return look
    mask = reading.mask
    look.values, look.taken = reading.values, reading.taken
    turn = turn_without_mask(sample.image, sample.mask)
    if problem := size_problem(mask.shape, look.size, turn):
        look.problems.append(f"{name}: {problem}")
    elif not mask.any():
        look.problems.append(f"{name}: empty mask; draw the defect or move the image to the normals")
    elif fits_both_ways(turn, look.size) and not reading_of(sample.mask).masks_upright:
        look.problems.append(f"{name}: {ASKED}")
    look.turned = turn != 1 and not look.problems
    look.share, look.border = float(mask.mean()), border_share(mask)
    return look


def two_valued(image: np.ndarray) -> bool:
    """True for an image (H,W,3) with two values in it, as masks have and hardly a picture has."""
    low, high = image.min(), image.max()
    return bool(low < high and ((image == low) | (image == high)).all())


def looks_inverted(mask: np.ndarray) -> bool:
    """True for a mask that covers most of the picture and most of its border: drawn the other way round, perhaps."""
    return 0.5 < float(mask.mean()) < 1 and border_share(mask) > 0.5


def border_share(mask: np.ndarray) -> float:
    """Share of defect in the outermost pixels of a mask (H,W) in {0,1}."""
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _inverted(index: DatasetIndex, seen: list[Look]) -> list[list[str]]:
    """For each sample of a type a problem line if its mask looks inverted and nobody said that it is not."""
    lines: list[list[str]] = []
    for one in seen:
        mask = one.sample.mask
        doubtful = mask is not None and one.share > 0.5 and one.border > 0.5 and not one.problems
        if not doubtful or mask is None or reading_of(mask).mask_values or mask.suffix.lower() == ".json":
            lines.append([])
            continue
        others = [o.share for o in seen if o is not one and o.values]
        if one.share == 1 and not (others and median(others) < 0.5):  # a type may fill its pictures
            lines.append([])
            continue
        beside = f", the type's other masks {median(others):.0%} of theirs" if others else ""
        lines.append(
            [
                f"{index.relative(mask)}: the defect would cover {one.share:.0%} of the picture{beside} "
                f"({one.taken}); if the mask is inverted, say what the defect is with prepare_data.py --mask_values, "
                "or invert it; if it is right, say so there too"
            ]
        )
    return lines


def _depths_that_differ(index: DatasetIndex, seen: list[Look]) -> list[str]:
    """A line for each category whose 16-bit pictures seem to differ in depth, as dark ones do."""
    found: dict[str, dict[int, list[Look]]] = defaultdict(lambda: defaultdict(list))
    for one in seen:
        if one.bits is not None:
            found[one.sample.category][one.bits].append(one)
    lines = []
    for category, depths in found.items():
        if len(depths) > 1:
            told = ", ".join(
                f"{len(of)} of {bits} bits ({index.relative(of[0].sample.image)}{' the first' * (len(of) > 1)})"
                for bits, of in sorted(depths.items())
            )
            lines.append(depths_note(f"16-bit pictures of {category} are by their values {told}", max(depths)))
    return lines


def depths_note(found: str, bits: int) -> str:
    """What to do about pictures whose depths were found to differ, up to `bits`."""
    return f"{found}; if one camera took all, say its depth with prepare_data.py --bits {bits}, or brightness differs"


def _decisions(seen: list[Look]) -> list[str]:
    """How masks and pictures were read: one line for each way, the most frequent first."""
    ways = Counter((one.values, one.taken) for one in seen if one.taken and not one.problems)
    lines = [f"masks: {n} with values {values}: {taken}" for (values, taken), n in ways.most_common(WAYS)]
    if len(ways) > WAYS:
        lines.append(f"masks: {sum(n for _, n in ways.most_common()[WAYS:])} read in {len(ways) - WAYS} more ways")
    for category in dict.fromkeys(one.sample.category for one in seen):
        modes = Counter(one.mode for one in seen if one.mode and one.sample.category == category)
        if set(modes) - {"colour, 8 bit"}:
            told = "; ".join(f"{n} {mode}" for mode, n in modes.most_common())
            lines.append(f"pictures of {category}: {told}")
        plain = [one for one in seen if one.sample.category == category and one.sample.mask is None and one.size]
        if plain and all(one.two_valued for one in plain):
            told = number_of(len(plain), "normal picture has", "normal pictures have")
            lines.append(f"{category}: {told} two values only, as masks have; if that is what they are, {NO_PICTURES}")
    if turned := sum(one.turned for one in seen):
        one, several = "image is turned by EXIF and its mask is", "images are turned by EXIF and their masks are"
        lines.append(f"{number_of(turned, one, several)} not: read as drawn on the upright images")
    annotated = [(found, one.size) for one in seen if one.size and (found := _annotation(one)) is not None]
    if cut := sum(beyond(found, size) for found, size in annotated):
        told = number_of(cut, "shape reaches beyond its image and is", "shapes reach beyond their image and are")
        lines.append(f"LabelMe: {told} cut at its border; were they drawn on the image at another size?")
    inner = sum(nested(found, size) for found, size in annotated)
    if inner:
        several = "shapes lie inside another of their label and change"
        told = number_of(inner, "shape lies inside another of its label and changes", several)
        lines.append(f"LabelMe: {told} nothing; holes are shapes of one group id, or labelled _background_")
    return lines


def _annotation(look: Look) -> Annotation | None:
    """The LabelMe file that is the mask of a picture which can be used."""
    mask = look.sample.mask
    return load_annotation(mask) if mask is not None and mask.suffix.lower() == ".json" and not look.problems else None


def _row(key: tuple[str, str], seen: list[Look], kept: list[Sample]) -> TypeRow:
    heights, widths = ([one.size[axis] for one in seen if one.size] or [0] for axis in (0, 1))
    return TypeRow(
        *key,
        images=len(seen),
        masks_ok=sum(s.mask is not None for s in kept),
        groups=len({one.sample.group for one in seen}),
        width=(min(widths), max(widths)),
        height=(min(heights), max(heights)),
    )


def _what(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
