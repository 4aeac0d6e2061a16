"""Training data for adapting a base to a part: beside its few real defects, its normal surface and drawn defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np

from fast.data.images import read_image
from fast.data.index import DatasetIndex
from fast.data.layouts import open_dataset
from fast.data.module import DefectData
from fast.data.sampler import Extra
from fast.data.samples import MadeSample, read_sample
from fast.data.transforms import Resize, Window
from fast.generators.base import Placing
from fast.generators.blend import ImageMask
from fast.generators.looks import drawn_otherwise
from fast.generators.names import drawn_as
from fast.generators.procedural import Procedural
from fast.generators.transplant import Transplant
from fast.masks.augment import augmented
from ldm.errors import UserError
from ldm.rng import seed_of

NORMAL = "normal"  # the word that the untouched surface under a mask has
KINDS = ("transplant", "procedural")
WORDS = ("own", "looks")
POOL = 128
TRIES = 6  # of an image and a place, for a defect that does not show where it was tried first
COVERED = 0.5  # of a window at most, for a mask over the normal surface: the rest tells what to continue
LARGEST = 4  # images are cut to this many windows a side before anything is drawn into them

Rng = np.random.Generator
Job = tuple[Callable[[int], ImageMask], str, str]  # makes the sample of a number; its category and defect type


@dataclass(frozen=True)
class MadeOptions:
    """The options of `AdaptationData` about made samples, which says what each is.

    Raises:
        UserError: when one is unknown or out of range, or concerns samples that are not made.
    """

    normal_share: float
    drawn_share: float
    pool: int
    drawn: tuple[str, ...]
    drawn_words: str

    def __post_init__(self) -> None:
        for name in ("normal_share", "drawn_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"data.params.{name}={getattr(self, name)} is no share; give 0 to below 1")
        if self.normal_share + self.drawn_share >= 1:
            raise UserError(
                f"data.params.normal_share={self.normal_share} and drawn_share={self.drawn_share} leave no real "
                "defect; lower one, their sum must be below 1"
            )
        if self.pool < 1:
            raise UserError(f"data.params.pool={self.pool} must be 1 or more samples")
        if not self.drawn or any(kind not in KINDS for kind in self.drawn):
            raise UserError(f"data.params.drawn={list(self.drawn)} must be a list of {', '.join(KINDS)}")
        if self.drawn_words not in WORDS:
            raise UserError(f"data.params.drawn_words={self.drawn_words} is unknown; use {' or '.join(WORDS)}")
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """UserError for an option about samples of which none are made."""
        if self.pool != POOL and not (self.normal_share or self.drawn_share):
            raise UserError(
                f"data.params.pool={self.pool} counts made samples, and none are asked for; give "
                "data.params.normal_share or drawn_share, or leave pool out"
            )
        words = self.drawn_words != WORDS[0]
        if not self.drawn_share and (words or self.drawn != KINDS):
            given = f"drawn_words={self.drawn_words}" if words else f"drawn={list(self.drawn)}"
            raise UserError(
                f"data.params.{given} says how defects are drawn, and none are asked for; give "
                "data.params.drawn_share, or leave it out"
            )
        if words and "procedural" not in self.drawn:
            raise UserError(
                f"data.params.drawn_words={self.drawn_words} names procedural defects, which drawn={list(self.drawn)} "
                "leaves out; leave one of the two out"
            )


class AdaptationData(DefectData):
    """`DefectData` with more samples beside the real defects, made of the part's normal images.

    There are two kinds. Surface samples show the untouched surface under a mask, with the word "normal", so that the
    network learns to continue the surface. Their masks are those of the training defects, moved, turned and bent. Drawn
    samples are normal images with a defect set in. Only training normals and the training side of the split are read.
    With both shares at 0 this is `DefectData`, and options about made samples are refused.

    Args:
        path: the dataset, see `DefectData`.
        normal_share: the share of all samples that are surface samples, 0 to below 1.
        drawn_share: the share of all samples that are drawn samples, 0 to below 1. The two shares add up to less than
            1.
        pool: how many samples of each kind there are. A sample depends on its number and the seed, and is made and
            encoded once.
        drawn: the methods that set defects in, which take turns. "transplant" sets training defects on other ground,
            under their own type. "procedural" draws the project's own defects.
        drawn_words: the words of procedural defects. "own": their own words. "looks": the words of the part's types
            that look so, where types that no drawn defect looks like are left out.
        options: the other parameters of `DefectData`.

    Raises:
        UserError: when an option is unknown, out of range or without effect.
    """

    def __init__(
        self,
        path: str | None = None,
        normal_share: float = 0.0,
        drawn_share: float = 0.0,
        pool: int = POOL,
        drawn: Sequence[str] = KINDS,
        drawn_words: str = "own",
        **options: Any,
    ):
        drawn = (drawn,) if isinstance(drawn, str) else tuple(drawn)
        self.options = MadeOptions(normal_share, drawn_share, pool, drawn, drawn_words)
        self._narrowing = {name: options[name] for name in ("layout", "category", "anomaly") if name in options}
        super().__init__(path, **options)

    def made(self) -> tuple[Sequence[MadeSample], list[str]]:
        own = self.options
        if not (own.normal_share or own.drawn_share):
            return [], []
        if not self.defects:
            raise UserError("data.params.normal_share and drawn_share need defects; set data.params.use=defects")
        if own.normal_share and any(key.endswith(f"/{NORMAL}") for key in self.types):
            raise UserError(f"a defect type is called {NORMAL}; rename it, or set data.params.normal_share=0")
        index, problems = self._look(open_dataset(self.path, **self._narrowing), "normals")
        self.problems += [line for line in problems if line not in self.problems]
        self.doubts += [line for line in index.doubts if line not in self.doubts]
        index = self.apart(index)
        self.normals = [s for s in index.normals if s.category in {d.category for d in self.defects}]
        without = sorted({d.category for d in self.defects} - {s.category for s in self.normals})
        if without:
            raise UserError(
                f"{without[0]} has no normal training images, of which normal_share and drawn_share make samples; "
                "add some, or set both to 0"
            )
        self._surface = [self._untouched(i) for i in range(own.pool)] if own.normal_share else []
        self._drawn = self._drawn_samples() if own.drawn_share else []
        found = [*self._surface, *self._drawn]
        return found, sorted({f"{s.category}/{s.anomaly}" for s in found} - set(self.types))

    def extras(self) -> list[Extra]:
        pictures, shares = self.pictures, (self.options.normal_share, self.options.drawn_share)
        first, extras = len(pictures.samples), []
        for share, samples in zip(shares, self._parts(), strict=True):
            groups: dict[str, list[int]] = {}
            for number, sample in enumerate(samples, first):
                groups.setdefault(f"{sample.category}/{sample.anomaly}", []).append(number)
            extras.append(Extra(Fraction(str(share)), [groups[key] for key in sorted(groups)]))
            first += len(samples)
        return [extra for extra in extras if extra.share]

    def settings(self) -> list[Any]:
        own = self.options
        if not (own.normal_share or own.drawn_share):
            return []
        stats = [(str(s.image), s.image.stat().st_mtime_ns, s.image.stat().st_size) for s in self.normals]
        parts = [len(part) for part in self._parts()]
        return [parts, own.drawn, own.drawn_words, stats, [s.settings() for s in self._methods()]]

    def describe(self) -> list[str]:
        lines, own = super().describe(), self.options
        shares = ((own.normal_share, "normal surface under masks"), (own.drawn_share, "drawn defects"))
        for (share, what), part in zip(shares, self._parts(), strict=True):
            if share:
                lines.append(f"  {share:.0%} of the samples: {what}, {len(part)} on {len(self.normals)} normal images")
        if own.drawn_share and own.drawn_words == "looks" and "procedural" in own.drawn:
            lines += [f"  {word} is drawn as {looks}" for word, looks in drawn_otherwise(self.types, {}).items()]
        return lines

    def _parts(self) -> tuple[list[MadeSample], list[MadeSample]]:
        made = bool(self.options.normal_share or self.options.drawn_share)
        return (self._surface, self._drawn) if made else ([], [])

    # the untouched surface

    def _untouched(self, number: int) -> MadeSample:
        categories = sorted({s.category for s in self.normals})
        category = categories[number % len(categories)]
        return MadeSample(partial(self._masked, number // len(categories), category), category, NORMAL)

    def _masked(self, number: int, category: str) -> ImageMask:
        """A window of a normal image (size,size,3) and, over it, the varied mask of a training defect."""
        rng = np.random.default_rng(seed_of(self.seed, 21, number))
        image = self._normal(category, rng)
        fit = Window(self.size) if self.native else Resize(self.size)
        window, _ = fit(image, np.zeros(image.shape[:2], np.uint8), rng)
        types = sorted({d.anomaly for d in self.defects if d.category == category})
        own = [d for d in self.defects if d.category == category and d.anomaly == types[number % len(types)]]
        found: list[np.ndarray] = []
        for _ in range(TRIES):
            _, mask = fit(*read_sample(own[int(rng.integers(len(own)))]), rng)
            found.append(augmented(mask, (self.size, self.size), rng))
            if found[-1].mean() <= COVERED:
                break
        return window, min(found, key=lambda m: float(m.mean()))

    def _normal(self, category: str, rng: Rng) -> np.ndarray:
        """A normal image (H,W,3) of a category; of a large one a part."""
        own = [s for s in self.normals if s.category == category]
        image = read_image(own[int(rng.integers(len(own)))].image)
        side = LARGEST * self.size
        if not self.native or min(image.shape[:2]) <= side:
            return image
        return Window(side)(image, np.zeros(image.shape[:2], np.uint8), rng)[0]

    # drawn defects

    @cached_property
    def _transplant(self) -> Transplant:
        method = Transplant()
        method.fit(DatasetIndex(self.index.root, self.index.layout, [], [], self.defects, []))
        return method

    @cached_property
    def _procedural(self) -> Procedural:
        return Procedural()

    def _methods(self) -> list[Placing]:
        if not self.options.drawn_share:
            return []
        return [getattr(self, f"_{kind}") for kind in self.options.drawn]

    def _drawn_samples(self) -> list[MadeSample]:
        """`pool` samples: the methods take turns, and in each of them its types."""
        lists = [self._jobs(kind) for kind in self.options.drawn]
        lists = [jobs for jobs in lists if jobs]
        if not lists:
            raise UserError(
                "no type of this part looks like a drawn one; set data.params.drawn_words=own or drawn=[transplant]"
            )
        samples = []
        for number in range(self.options.pool):
            lap, place = divmod(number, len(lists))
            make, category, anomaly = lists[place][lap % len(lists[place])]
            samples.append(MadeSample(partial(make, number), category, anomaly))
        return samples

    def _jobs(self, kind: str) -> list[Job]:
        """For each type that a method makes here."""
        jobs: list[Job] = []
        for key in self.types:
            category, anomaly = key.split("/", 1)
            if kind == "transplant":
                jobs.append((partial(self._set_in, kind, key, category), category, anomaly))
            elif self.options.drawn_words == "looks" and drawn_as(anomaly):
                jobs.append((partial(self._set_in, kind, anomaly, category), category, anomaly))
        if kind == "procedural" and self.options.drawn_words == "own":
            for category in sorted({key.split("/", 1)[0] for key in self.types}):
                jobs += [(partial(self._set_in, kind, w, category), category, w) for w in self._procedural.words]
        return jobs

    def _set_in(self, kind: str, word: str, category: str, number: int) -> ImageMask:
        """A normal image with a defect of the method's type `word`, and its mask."""
        method: Placing = getattr(self, f"_{kind}")
        for attempt in range(TRIES):
            rng = np.random.default_rng(seed_of(self.seed, 22, number, attempt))
            image = self._normal(category, rng)
            try:
                made, mask = method.synthesize(image, None, rng, word)
            except UserError:
                if attempt == TRIES - 1:
                    raise
                continue
            return made, mask
        raise AssertionError
