"""Rows of a table of scores: where the pairs of each come from, and the pairs themselves."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fast.artifact import find_weights
from fast.bench.nested import Sides
from fast.bench.placeholders import COUNT, SEED, SHIPPED
from fast.bench.provenance import check_finished, check_weights
from fast.data.images import read_image
from fast.data.index import GOOD, Sample
from fast.data.source_mode import keep_grey
from fast.generators import create, method_class
from fast.generators.base import Generator, Learned
from fast.generators.latent import LatentGenerator
from fast.generators.looks import Looks, looks_among, own_looks, undrawable
from fast.masks.source import OF_FILES, Masks
from fast.review.decisions import FILE as DECIDED
from fast.segmentation.data import SegmentationSample, check_pairs, from_output, is_normal
from fast.synthesis.accepted import NOTES
from fast.synthesis.options import MAX_DISTANCE, draft_methods
from fast.synthesis.records import manifests
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import seed_of


@dataclass(frozen=True)
class Row:
    """Where the pairs of a row of scores come from: a method, a finished run, or two other rows.

    Give one of `method`, `folder` and `mix`. In `folder` and in the options `{seed}` stands for the number of the
    nested split, and in the options `{count}` for how many real defects of each type there are: weights may have
    learned from those alone.

    Args:
        method: one of `fast.generators.METHODS`.
        options: the method's options, by name.
        folder: a finished run, whose pairs are taken.
        mix: labels of two other rows, of each of which half of the pairs is taken.
        masks: what a method that makes no masks of its own is given: the masks of the real defects as they are
            ("given") or varied ("augmented").
        counterfeits: for a method on a latent base, so many for each pair, from 0 to 1. A counterfeit has normal
            content in the same masks.

    Raises:
        UserError: when `counterfeits` or `masks` are none of these, or the method makes no counterfeits.
    """

    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    mix: tuple[str, str] | None = None
    masks: str = "augmented"
    counterfeits: float = 0.0

    def __post_init__(self) -> None:
        share: Any = self.counterfeits
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise UserError(f"counterfeits={self.counterfeits} lies outside 0..1; change it")
        if self.counterfeits and (self.method is None or not issubclass(method_class(self.method), LatentGenerator)):
            raise UserError(f"counterfeits are of methods on a latent base, not of {self.method}; leave them out")
        if self.masks not in OF_FILES:
            raise UserError(f"masks={self.masks} is unknown; use one of {', '.join(OF_FILES)}")

    @property
    def drafted(self) -> bool:
        """Whether its pairs start from drafts, which bring their masks."""
        return self.options.get("draft", "none") != "none"

    @property
    def looks(self) -> Looks | None:
        """What its types are drawn as, where they are drawn, as pairs or as drafts."""
        return looks_among(self.method or "", self.options)

    def cannot_draw(self, kinds: Sequence[str]) -> str:
        """Why it cannot draw the first of these types that it cannot, and what flag changes that; empty where it can
        draw all. Mixed drafts of a type may be real defects alone."""
        if self.options.get("draft") == "mixed" or self.looks is None:
            return ""
        words = undrawable(kinds, own_looks(self.looks))
        if not words:
            return ""
        word = words[0]
        if word in self.looks:
            return f"--looks {word}=none says that {word} is not drawn, as it has to be here; leave that out"
        return f"nothing that can be drawn is called {word}; say what it looks like, as in --looks {word}=scratch,pit"

    def options_for(self, run: str, count: int | None = None) -> dict[str, Any]:
        """The options with `run` in place of `{seed}`, and `count`, or "all", of `{count}`."""
        number = "all" if count is None else str(count)
        return {
            k: v.replace(SEED, run).replace(COUNT, number) if isinstance(v, str) else v for k, v in self.options.items()
        }

    def describe(self) -> dict[str, Any]:
        """What decides its pairs, as plain data."""
        named = {"method": self.method, "folder": self.folder, "mix": None if self.mix is None else list(self.mix)}
        found = {name: value for name, value in named.items() if value is not None}
        given = self.method and not method_class(self.method).own_masks and not self.drafted
        masks = {"masks": self.masks} if given else {}
        fakes = {"counterfeits": self.counterfeits} if self.counterfeits else {}
        # Where its options say nothing else; what was measured before there was a distance is another row.
        near = {"max_distance": MAX_DISTANCE} if self.options.get("draft") == "mixed" else {}
        # Networks of colours make grey pictures a little coloured; what was measured on such is another row.
        grey = {"keep_grey": True} if self.method and issubclass(method_class(self.method), LatentGenerator) else {}
        return {**found, **masks, **fakes, **near, **grey, **({"options": dict(self.options)} if self.options else {})}

    def files(self, run: str, count: int | None = None) -> dict[str, str]:
        """Hashes of the weights and of the finished run that its pairs come from; `run`, `count`: as `options_for` has
        them. Raises `UserError` where they are not there."""
        found, options = {}, self.options_for(run, count)
        learned = None if self.method is None else method_class(self.method)
        if learned is not None and issubclass(learned, Learned) and options.get("weights", SHIPPED) != SHIPPED:
            file = find_weights(options["weights"], learned.artifact, options.get("step"))
            found["weights_sha256"] = file_hash(file)
        if self.folder is not None:
            place = Path(self.folder.replace(SEED, run))
            told = [*manifests(place), *(place / name for name in (*NOTES, DECIDED))]
            lines = [f"{file.name} {file_hash(file)}" for file in told if file.is_file()]
            found["folder_sha256"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return found


@dataclass(frozen=True)
class Made:
    """A pair, and what a manifest says about it: its method and the files it was made from. `filled` (H,W): where its
    picture was changed, if that is more than its mask."""

    sample: SegmentationSample
    record: Mapping[str, Any]
    filled: np.ndarray | None = None

    @property
    def counterfeit(self) -> bool:
        return bool(self.record.get("counterfeit"))


def learns(row: Row) -> bool:
    """Whether its pairs depend on which real defects there are to learn from."""
    if row.method is None:
        return False
    if row.options.get("weights") == SHIPPED:
        return row.options.get("draft", "none") != "procedural"
    return row.method == "transplant" or issubclass(method_class(row.method), Learned)


class RowPairs:
    """The pairs of each row; those of methods that see no real defect are made once for all splits with the same normal
    images, the same whichever asks first.

    `per_type`: how many of each type. A row whose method needs real defects has none where there are none.
    """

    def __init__(self, rows: Mapping[str, Row], per_type: int):
        self.rows, self.per_type = rows, per_type
        self.seconds: dict[str, float] = {}  # that making a row's pairs took the last time
        self._made: dict[tuple[Any, ...], list[Made]] = {}
        self._whole: set[Path] = set()  # finished runs whose files have been looked at

    def needs_all(self, label: str) -> bool:
        """Whether a row's pairs may hold any defect of the training side: it is not measured beside a few of them."""
        row = self.rows[label]
        if row.mix is not None:
            return any(map(self.needs_all, row.mix))
        trained = row.method is not None and issubclass(method_class(row.method), Learned)
        weights = str(row.options.get("weights"))
        return row.folder is not None or (trained and weights != SHIPPED and COUNT not in weights)

    def needs_some(self, label: str) -> bool:
        """Whether a row has no pairs without a real defect."""
        row = self.rows[label]
        return any(map(self.needs_some, row.mix)) if row.mix is not None else learns(row)

    def check(self, label: str, sides: Sides, run: str, count: int | None = None) -> None:
        """Raise `UserError` for weights and finished pairs of a row that are not there, or of another split, and for
        types that it is to draw and nothing says the looks of."""
        row = self.rows[label]
        if why := row.cannot_draw(_types(sides)):
            raise UserError(f"{label}: {why}")
        for name in row.mix or ():
            self.check(name, sides, run, count)
        if row.folder is not None:
            place = Path(row.folder.replace(SEED, run))
            check_finished(place, sides)
            if place.resolve() not in self._whole:  # one set for all splits is looked at once
                self._whole.add(place.resolve())
                check_pairs(from_output(place)[0])
        elif row.method is not None and issubclass(method_class(row.method), Learned):
            check_weights(row.method, row.options_for(run, count), sides)

    def of(
        self, label: str, sides: Sides, real: Sequence[Sample], count: int | None, seed: int
    ) -> list[SegmentationSample]:
        """The pairs of a row, none of them made from a file that `sides` forbids. Raises `UserError`."""
        return [made.sample for made in self.made(label, sides, real, count, seed)]

    def made(
        self, label: str, sides: Sides, real: Sequence[Sample], count: int | None, seed: int, run: str | None = None
    ) -> list[Made]:
        """The pairs of `of` with what they were made from; `run`: what stands for `{seed}` in place of the number."""
        row = self.rows[label]
        if row.mix is not None:
            halves = [_by_type(self.made(name, sides, real, count, seed, run)) for name in row.mix]
            return _mixed(*halves) if all(halves) else []
        if learns(row) and not real:
            return []
        run = str(seed) if run is None else run
        own = learns(row) or row.folder is not None
        # What learned nothing of a split serves all that have the same types and normals.
        of_any = (label, *_types(sides), *(s.image for s in sides.index.normals))
        key = (label, count, seed, run) if own else of_any
        if key not in self._made:
            start = time.monotonic()
            self._made[key] = (
                _finished(row.folder, sides, run, self.per_type)
                if row.folder
                else self._make(row, sides, real, count, seed if own else 0, run)
            )
            self.seconds[label] = time.monotonic() - start
        return list(self._made[key])

    def _make(
        self, row: Row, sides: Sides, real: Sequence[Sample], count: int | None, seed: int, run: str
    ) -> list[Made]:
        generator = generator_of(row, sides, real, run, count)
        masks = {kind: masks_of(row, kind, real) for kind in _types(sides)} if not generator.own_masks else {}
        normals = [s.image for s in sides.index.normals]
        fakes = math.ceil(row.counterfeits * self.per_type)
        pairs = []
        for number, kind in enumerate(_types(sides)):
            for k, fake in (*((k, False) for k in range(self.per_type)), *((k, True) for k in range(fakes))):
                rng = np.random.default_rng(seed_of(seed, number, k))
                normal = normals[int(rng.integers(len(normals)))]
                pairs.append(one_pair(generator, normal, kind, rng, masks.get(kind), fake))
        return pairs


def generator_of(row: Row, sides: Sides, real: Sequence[Sample], run: str, count: int | None = None) -> Generator:
    """A row's method, ready to make pairs from the defects `real` alone. UserError for weights of another split."""
    assert row.method is not None
    options = row.options_for(run, count)
    if issubclass(method_class(row.method), Learned):
        check_weights(row.method, options, sides)
        if options["weights"] == SHIPPED:  # they take any names
            options.setdefault("types", _types(sides))
    generator = create(row.method, **options)
    if row.method == "transplant":
        generator.fit(replace(sides.index, defects=list(real)))
    if isinstance(generator, LatentGenerator) and "transplant" in draft_methods(options.get("draft", "none")):
        generator.draft_from(replace(sides.index, defects=list(real)))
    return generator


def one_pair(
    generator: Generator,
    normal: Path,
    kind: str,
    rng: np.random.Generator,
    masks: Masks | None = None,
    counterfeit: bool = False,
) -> Made:
    """A pair of the type `kind` on a normal image; `masks`: where the masks of a method that makes none come from. Or
    the `counterfeit` of the pair that the same `rng` makes, by a method on a latent base."""
    named = kind if generator.types or generator.name == "procedural" else None
    image, mask, file = read_image(normal), None, None
    if masks is not None:
        file = masks.files[int(rng.integers(len(masks.files)))]
        mask = masks.draw(image, rng, file)
    if counterfeit:
        assert isinstance(generator, LatentGenerator)
        made = generator.pair(image, mask, rng, named, counterfeit=True)
    else:
        made = generator.pair(image, mask, rng, named)
    shown = f"{kind.split('/', 1)[0]}/{GOOD}" if counterfeit else kind
    # Which of its defects a pair holds decides what the threshold may be chosen on.
    origin = made.origin.get("defect_source")
    used = [path for path in (file, Path(origin) if origin else None) if path is not None]
    sources = frozenset(path.resolve() for path in used)
    record = {
        "type": shown,
        "method": generator.name,
        "normal_source": str(normal),
        "mask_source": None if file is None else str(file),
        **({"defect_source": origin} if origin else {}),
        **({"counterfeit": True} if counterfeit else {}),
    }
    # As a pair is stored: on a grey camera's picture a colour would say where the mask is.
    sample = SegmentationSample(keep_grey(made.image, image), made.mask, shown, synthetic=True, sources=sources)
    return Made(sample, record, made.filled)


def masks_of(row: Row, kind: str, real: Sequence[Sample]) -> Masks:
    files = [s.mask for s in real if f"{s.category}/{s.anomaly}" == kind and s.mask is not None]
    return Masks(row.masks, files=files)


def _types(sides: Sides) -> list[str]:
    """Those that there is something to train on for."""
    return sorted({f"{s.category}/{s.anomaly}" for s in sides.train})


def _finished(folder: str, sides: Sides, run: str, per_type: int) -> list[Made]:
    """The first pairs of each type of a finished run, and as large a share of its counterfeits. UserError where its
    method learned from another split."""
    place = Path(folder.replace(SEED, run))
    check_finished(place, sides)
    found = [Made(sample, {"type": sample.kind}) for sample in from_output(place, sides.forbidden)[0]]
    pairs, fakes = ([made for made in found if is_normal(made.sample) is fake] for fake in (False, True))
    kept = [made for own in _by_type(pairs).values() for made in own[:per_type]]
    return [*kept, *fakes[: round(len(fakes) * len(kept) / max(1, len(pairs)))]]


def _by_type(pairs: Sequence[Made]) -> dict[str, list[Made]]:
    found: dict[str, list[Made]] = {}
    for pair in pairs:
        found.setdefault(pair.sample.kind, []).append(pair)
    return found


def _mixed(first: Mapping[str, Sequence[Made]], second: Mapping[str, Sequence[Made]]) -> list[Made]:
    """Of each type every other pair of the first and, where those are left out, of the second."""
    kinds = sorted({*first, *second})
    return [pair for kind in kinds for pair in (*first.get(kind, ())[::2], *second.get(kind, ())[1::2])]
