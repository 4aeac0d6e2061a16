"""Photographs of one physical part that are listed as photographs of different parts.

A split keeps the photographs of a part on one side. It knows parts by `groups.csv` or by the files' names; where those
are wrong or missing, one part is trained on and tested on, and every score is too good. Looked for by correlation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fast.data.images import natural_key, read_image
from fast.data.index import Sample

Floats = NDArray[np.float32]

SIDE = 64  # pixels of a side that pictures are compared at
FINE, COARSE = 0.67, 4.0  # standard deviations of two blurs, pixels; what lies between is neither grain nor light
CLIP = 3.0  # standard deviations: one bright edge does not decide
ALIKE = 0.81  # correlation; on magnetic tile 35 of 36 pairs of tiles above it are one tile to the eye, the next are two
CANDIDATE = 0.6  # at half the side, where all pairs are compared; all that are alike were above 0.7 there
USUAL = 0.5  # median at half the side of all pairs; where it is more (parts in a holder, a pattern) nothing can be told
CHUNK = 256  # pictures compared with one at a time, for memory's sake


@dataclass(frozen=True)
class Alike:
    """Two samples of different groups whose pictures show the same, at a `correlation` of at least `ALIKE`."""

    first: Sample
    second: Sample
    correlation: float


def find_alike(samples: Sequence[Sample]) -> list[Alike]:
    """Of every two groups of a category that look like one, the two samples most alike; the most alike pair first.

    Pictures are made `SIDE` pixels square, and what is finer than grain and coarser than light and shade is taken out;
    two are alike if they correlate at any shift, quarter turn or mirroring. A category whose pictures nearly all
    correlate gives none: there, a part cannot be told from its like. Raises `UserError` for a file that cannot be read.
    """
    categories: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        categories[sample.category].append(sample)
    found = [pair for part in categories.values() if len({s.group for s in part}) > 1 for pair in _of_category(part)]
    return sorted(found, key=lambda pair: (-pair.correlation, natural_key(pair.first.image)))


def joined(pairs: Sequence[Alike]) -> dict[str, str]:
    """The one name that each group in `pairs` gets, where groups that look alike, also by way of a third, are one: the
    first of their names in natural order."""
    name: dict[str, str] = {}

    def now(group: str) -> str:
        while group != name.setdefault(group, group):
            group = name[group]
        return group

    for pair in pairs:
        one, other = sorted((now(pair.first.group), now(pair.second.group)), key=natural_key)
        name[other] = one
    return {group: now(group) for group in name}


@dataclass(frozen=True)
class Leak:
    """Samples `seen` of a side to test on whose parts are trained on as well: of a group that both sides have, or that
    looks like one of the other side's. `why`: the two samples most alike, or two of one group."""

    seen: list[Sample]
    why: Alike

    @property
    def groups(self) -> set[str]:
        return {s.group for s in self.seen}


def leak_of(train: Sequence[Sample], test: Sequence[Sample]) -> Leak | None:
    """What of the samples to test on shows a part that is trained on; None if nothing does. Raises `UserError`."""
    trained = {(s.category, s.group): s for s in train}
    tested = {(s.category, s.group): s for s in test}
    pairs = [Alike(trained[key], tested[key], 1.0) for key in sorted(trained.keys() & tested.keys())]
    for pair in find_alike([*train, *test]):
        keys = {(s.category, s.group) for s in (pair.first, pair.second)}
        if keys & trained.keys() and keys & tested.keys():
            pairs.append(pair)
    if not pairs:
        return None
    leaking = {(s.category, s.group) for pair in pairs for s in (pair.first, pair.second)}
    return Leak([s for s in test if (s.category, s.group) in leaking], pairs[0])


def correlation(one: Floats, other: Floats) -> float:
    """The greatest correlation of two prints (n,n) of norm 1 over all shifts and the eight ways to lay one down."""
    side = [2 * n for n in one.shape]  # padded: no shift wraps around
    spectrum = np.fft.rfft2(one, side)
    return max(float(np.fft.irfft2(spectrum * np.fft.rfft2(way, side).conj(), side).max()) for way in _ways(other))


def printed(image: np.ndarray) -> Floats:
    """What two photographs of a part have in common, float32 (SIDE,SIDE) of norm 1, of a picture uint8 (H,W,3); zeros
    of a picture without anything in it."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    band = cv2.GaussianBlur(small, (0, 0), FINE) - cv2.GaussianBlur(small, (0, 0), COARSE)
    spread = float(band.std())
    band = np.clip(band, -CLIP * spread, CLIP * spread)
    fade = np.hanning(SIDE + 2)[1:-1]
    return _normed((band - band.mean()) * np.outer(fade, fade) ** 0.25)


def _of_category(samples: Sequence[Sample]) -> list[Alike]:
    prints = np.stack([printed(read_image(s.image)) for s in samples])
    numbers = {group: k for k, group in enumerate(dict.fromkeys(s.group for s in samples))}
    groups = np.array([numbers[s.group] for s in samples])
    i, j = np.triu_indices(len(samples), 1)
    apart = groups[i] != groups[j]
    rough = _rough(prints)[i, j][apart]
    i, j = i[apart], j[apart]
    if np.median(rough) > USUAL:
        return []
    best: dict[tuple[int, int], Alike] = {}
    for k in np.flatnonzero(rough >= CANDIDATE):
        value = correlation(prints[i[k]], prints[j[k]])
        between = int(min(groups[i[k]], groups[j[k]])), int(max(groups[i[k]], groups[j[k]]))
        if value >= ALIKE and (between not in best or value > best[between].correlation):
            best[between] = Alike(samples[i[k]], samples[j[k]], value)
    return list(best.values())


def _rough(prints: Floats) -> Floats:
    """Correlations (N,N), above the diagonal, of prints (N,SIDE,SIDE) made half as large, shifts wrapping around."""
    small = np.stack([_normed(cv2.resize(p, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)) for p in prints])
    found = np.zeros((len(small), len(small)), np.float32)
    spectra = np.fft.rfft2(small)
    for way in _ways(small):
        others = np.fft.rfft2(way).conj()
        for k in range(len(small) - 1):
            for start in range(k + 1, len(small), CHUNK):
                part = slice(start, start + CHUNK)
                values = np.fft.irfft2(spectra[k] * others[part]).max(axis=(1, 2))
                np.maximum(found[k, part], values, out=found[k, part])
    return found


def _ways(prints: Floats) -> list[Floats]:
    """The eight ways (...,n,n) to lay square pictures down: quarter turns, and those of the mirror image."""
    return [np.rot90(p, k, (-2, -1)) for p in (prints, prints[..., ::-1]) for k in range(4)]


def _normed(picture: NDArray[np.floating]) -> Floats:
    norm = float(np.linalg.norm(picture))
    return (picture / norm if norm > 0 else np.zeros_like(picture)).astype(np.float32)
