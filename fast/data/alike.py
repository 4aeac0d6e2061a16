"""Photographs of one physical part that are listed as photographs of different parts.

A split keeps the photographs of a part on one side. It knows parts by `groups.csv` or by the files' names; where those
are wrong or missing, one part is trained on and tested on, and every score is too good. They are looked for in three
steps, each among what the one before leaves: spectra, which shifts do not change; correlation of small pictures at any
shift, quarter turn or mirroring; and whether they agree nearly everywhere when laid on each other (`fast.data.prints`).
The last tells one part from two that only share an edge, a holder or a row of holes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fast.data.images import is_image, natural_key, read_image
from fast.data.index import Sample
from fast.data.prints import AGREE, SPECTRA, WHOLE, Print, agreement, correlation, spectra
from fast.data.reading import reading_of
from fast.runtime.progress import followed

Group = tuple[str, str]  # category and group

MOST = 40  # pairs for each picture with spectra alike; beyond, looking at all takes too long, and tells nothing
CHUNK = 512  # pictures whose spectra are compared with all at a time


@dataclass(frozen=True)
class Alike:
    """Two samples of different groups whose pictures show the same; `agreement`: the median correlation of places."""

    first: Sample
    second: Sample
    agreement: float

    @property
    def groups(self) -> tuple[Group, Group]:
        return group_of(self.first), group_of(self.second)


@dataclass(frozen=True)
class Found:
    """`pairs`: of every two groups that look like one, two samples; those that agree most come first. `unclear`:
    categories of which so many pictures look alike (a pattern, parts in a holder) that only same pixels were found."""

    pairs: list[Alike]
    unclear: list[str]


@dataclass(frozen=True)
class Leak:
    """Samples `seen` of a side to test on whose parts are trained on as well. `why`: one trained on and one tested on
    that look alike, or that are listed as one part, as `listed` says."""

    seen: list[Sample]
    why: tuple[Sample, Sample]
    listed: bool


def group_of(sample: Sample) -> Group:
    return sample.category, sample.group


def find_alike(samples: Sequence[Sample], hidden: bool = True) -> Found:
    """The groups of a category that look like one, by their pictures; samples under a `reading.json` that says
    `parts_apart` are left out. `hidden`: does not tell how far it is. UserError for a file that cannot be read."""
    categories: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if not reading_of(sample.image).parts_apart:
            categories[sample.category].append(sample)
    pairs, unclear = list[Alike](), []
    for name, part in categories.items():
        if len({s.group for s in part}) > 1:
            own, clear = _of_category(part, hidden)
            pairs += own
            unclear += [] if clear else [name]
    return Found(sorted(pairs, key=lambda pair: (-pair.agreement, natural_key(pair.first.image))), unclear)


def joined(pairs: Sequence[Alike]) -> dict[Group, str]:
    """The one name that each group in `pairs` gets, where groups that look alike, also by way of a third, are one: the
    first of their names in natural order, one that is no file's before others."""
    above: dict[Group, Group] = {}

    def now(group: Group) -> Group:
        while group != above.setdefault(group, group):
            group = above[group]
        return group

    for pair in pairs:
        one, other = sorted(map(now, pair.groups), key=lambda g: (is_image(Path(g[1])), natural_key(g[1])))
        above[other] = one
    return {group: now(group)[1] for group in above}


def regrouped(samples: Sequence[Sample], names: Mapping[Group, str]) -> list[Sample]:
    """The samples under the new names of their groups."""
    return [replace(s, group=names.get(group_of(s), s.group)) for s in samples]


def leaks_of(train: Sequence[Sample], test: Sequence[Sample]) -> list[Leak]:
    """What of the samples to test on shows a part that is trained on: what is listed so, then what looks so and is not
    listed. Raises `UserError`."""
    names = joined(find_alike([*train, *test]).pairs)
    found: list[Leak] = []
    for listed, (learned, asked) in ((True, (train, test)), (False, (regrouped(train, names), regrouped(test, names)))):
        trained = {group_of(s): s for s in reversed(learned)}
        known = {s.image for leak in found for s in leak.seen}
        seen = [s for s in asked if group_of(s) in trained and s.image not in known]
        if seen:
            found.append(Leak(seen, (trained[group_of(seen[0])], seen[0]), listed))
    return found


def _of_category(samples: Sequence[Sample], hidden: bool) -> tuple[list[Alike], bool]:
    """Pairs of groups that look like one, and whether all that look alike could be looked at."""
    prints, pixels = [], []
    for sample in followed(samples, "looking for the same part twice", "image", hidden=hidden, leave=False):
        image = read_image(sample.image)
        prints.append(Print.of(image))
        pixels.append(hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest())
    best: dict[frozenset[Group], Alike] = {}
    for i, j in _same(pixels):
        if prints[i].whole.any():  # not for want of anything to see
            _note(best, Alike(samples[i], samples[j], 1.0))
    wholes = np.stack([p.whole for p in prints])
    groups = np.unique([s.group for s in samples], return_inverse=True)[1]
    candidates = list(islice(_candidates(wholes, groups), MOST * len(samples) + 1))
    if len(candidates) > MOST * len(samples):
        return list(best.values()), False
    for i, j in followed(candidates, "comparing pictures that may show one part", "pair", hidden=hidden, leave=False):
        value, way = correlation(wholes[i], wholes[j])
        if value >= WHOLE:
            least, median = agreement(prints[i], prints[j], way)
            if least >= AGREE:
                _note(best, Alike(samples[i], samples[j], median))
    return list(best.values()), True


def _note(best: dict[frozenset[Group], Alike], pair: Alike) -> None:
    """Keep a pair if its groups have none that agrees as much."""
    one, other = pair.groups
    between = frozenset((one, other))
    if one != other and (between not in best or pair.agreement > best[between].agreement):
        best[between] = pair


def _same(pixels: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Numbers of pictures of the same pixels, each with the first of them."""
    first: dict[bytes, int] = {}
    for k, value in enumerate(pixels):
        if first.setdefault(value, k) != k:
            yield first[value], k


def _candidates(wholes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[int, int]]:
    """Numbers i < j of pictures of different groups whose spectra are alike."""
    plain, *others = spectra(wholes)
    for start in range(0, len(plain), CHUNK):
        rows = slice(start, start + CHUNK)
        alike = np.max([plain[rows] @ other.T for other in (plain, *others)], axis=0)
        apart = groups[rows, None] != groups[None]
        for i, j in np.argwhere((alike >= SPECTRA) & apart):
            if start + i < j:
                yield int(start + i), int(j)
