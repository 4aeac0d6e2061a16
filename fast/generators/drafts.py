"""First versions of defects for AIAS to start from: real ones set into the picture, or drawn ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from fast.data.index import DatasetIndex
from fast.data.split import split_file
from fast.features.likeness import Likeness
from fast.generators import create, method_class
from fast.generators.base import Placing
from fast.generators.outline import outlined
from fast.generators.transplant import Transplant
from fast.synthesis.maker import Draft, MaskOf
from fast.synthesis.options import MAX_DISTANCE, draft_methods
from fast.synthesis.pair import Pair
from ldm.errors import UserError
from ldm.rng import seed_of

DRAWS = 4  # of a drawn draft, until one is like the real defects


class NoDraft(UserError):
    """A method cannot make drafts of a type."""


class Drafter:
    """Drafts by a method that places defects itself, `transplant` or `procedural`.

    The draft of a pair is the very one that the method alone would make of the same picture and seed.

    Args:
        method: the method.
        types: the pairs' types "category/anomaly", by their numbers.
        region_of: `region_of(image, pair)` says where defects may lie. None: the method decides.
        partial: True allows types that the method cannot make. It is not to be asked for them, and `refused` says why.

    Raises:
        UserError: when the method cannot make one of the types, unless `partial`.
    """

    def __init__(self, method: Placing, types: Sequence[str], region_of: MaskOf | None = None, partial: bool = False):
        self.method, self.region_of = method, region_of
        self.refused: dict[int, NoDraft] = {}  # why it makes no drafts of these types
        self.names = [self._named(number, key, partial) for number, key in enumerate(types)]

    def _named(self, number: int, key: str, partial: bool) -> str:
        try:
            return _name(self.method, key)
        except NoDraft as error:
            if not partial:
                raise
            self.refused[number] = error
            return ""

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        """A draft for a picture (H,W,3) uint8, in a given mask (H,W) where the method takes one. Raises `UserError`."""
        if mask is not None and not self.method.takes_mask:
            raise UserError(f"--draft {self.method.name} brings its defects' own masks; give no mask")
        name = self.names[pair.type_index]
        region = None if self.region_of is None or mask is not None else self.region_of(image, pair)
        made = self.method.pair(image, mask, np.random.default_rng(pair.seed), name, region)
        look = self.method.look(np.random.default_rng(pair.seed), name, mask is not None)
        return Draft(made.image, made.mask, made.origin, look, made.filled)

    @property
    def drafters(self) -> list[Drafter]:
        return [self]

    def settings(self) -> Mapping[str, Any]:
        return self.method.settings()


class MixedDrafter:
    """Drafts of which half are moved real defects and half are drawn ones, chosen by each pair's seed.

    Of a type that one of the two drafters cannot make, all drafts are the other's. A drawn draft that is too far from
    the real defects of its type is drawn anew, and after `DRAWS` draws a real defect is moved instead: what looks like
    no defect of this part would teach a segmenter another one. The mask of a drawn draft ends where the real ones'
    masks do, at the same share of the defect's contrast (`fast.generators.outline`). The `origin` of a draft tells
    under `draft_by` whose it is.

    Args:
        moved: the drafter of real defects, by `transplant`, with `partial=True`.
        drawn: the drafter of drawn defects, for the same types, with `partial=True`.
        max_distance: how far a drawn draft may be from the real defects of its type. 1 is as far as moved real defects
            are, in the median, from those of other parts (`Likeness`). None: any is taken, as it is for a type that has
            real defects of one part alone, which tell nothing about others.
    """

    def __init__(self, moved: Drafter, drawn: Drafter, max_distance: float | None = MAX_DISTANCE):
        self.moved, self.drawn, self.max_distance = moved, drawn, max_distance
        assert isinstance(moved.method, Transplant)
        self.likeness = Likeness(moved.method.samples, self._move)
        found = {kind: outline.level for kind, outline in moved.method.outlines.items()}
        self._levels = {kind: None if level is None else round(level, 4) for kind, level in found.items()}

    @property
    def drafters(self) -> list[Drafter]:
        return [self.moved, self.drawn]

    def check(self, number: int, key: str) -> None:
        """Raise `UserError` if neither drafter can make the type of this number, which the message calls `key`."""
        whys = [str(d.refused[number]) for d in self.drafters if number in d.refused]
        if len(whys) == len(self.drafters):
            raise UserError(f"--draft mixed can make no {key!r}: {'; and '.join(whys)}")

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        self.check(pair.type_index, f"type {pair.type_index}")
        able = [drafter for drafter in self.drafters if pair.type_index not in drafter.refused]
        if mask is not None and self.moved in able:
            raise UserError("--draft mixed moves real defects, which bring their own masks; give no mask")
        drafter = able[seed_of(pair.seed, 9) % len(able)]
        draft = None
        if drafter is self.drawn:
            draft = self._like_real(image, pair, mask) if self.moved in able else self.drawn(image, pair, mask)
        if draft is None:
            drafter, draft = self.moved, self.moved(image, pair, mask)
        return replace(draft, origin={"draft_by": drafter.method.name, **draft.origin})

    def _like_real(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None) -> Draft | None:
        """The first of a few drawn drafts that is as near to the real defects as it has to be; None: none of them."""
        kind = self.moved.names[pair.type_index]
        for attempt in range(DRAWS):
            seed = seed_of(pair.seed, 10, attempt) if attempt else pair.seed
            try:
                draft = self.drawn(image, replace(pair, seed=seed), mask)
            except UserError:
                if not attempt:  # what would have been told without a distance
                    raise
                continue
            draft = self._outlined(image, kind, draft)
            if self.max_distance is None:
                return draft
            apart = self.likeness.distance(kind, draft.image, draft.mask)
            if apart is None or apart <= self.max_distance:
                return draft
        return None

    def _outlined(self, image: np.ndarray, kind: str, draft: Draft) -> Draft:
        """A drawn draft with the mask that those who marked the real defects would give it."""
        level = self._levels[kind]
        found = draft.mask if level is None else outlined(image, draft.image, draft.mask, level)
        return replace(draft, mask=found, filled=draft.mask) if (found < draft.mask).any() else draft

    def settings(self) -> Mapping[str, Any]:
        own: dict[str, Any] = {drafter.method.name: drafter.settings() for drafter in self.drafters}
        own["outline"] = self._levels
        near = {} if self.max_distance is None else {"likeness": self.likeness.settings()}
        return {**own, "max_distance": self.max_distance, **near}

    def _move(self, image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Path]:
        made = self.moved.method.pair(image, None, rng, kind)
        return made.image, made.mask, Path(made.origin["defect_source"])


def _name(method: Placing, key: str) -> str:
    """What the drafts' method calls a type: the same, or what has the same word."""
    if method.words:
        try:
            method.check_word(key)
        except UserError as error:  # it names the option as the method alone would be given it
            raise NoDraft(str(error).replace("method.looks.", "method.draft_options.looks.")) from None
        return key
    own = list(method.types)
    word = key.rpartition("/")[2].replace("_", " ")
    found = [key] if key in own else [t for t in own if t.rpartition("/")[2].replace("_", " ") == word]
    if len(found) == 1:
        return found[0]
    says = "has no real defect" if not found else f"has defects of several parts ({', '.join(found)})"
    told = f"--draft {method.name} {says} of type {key!r}; it has {', '.join(own)}; choose by --anomaly_name"
    raise UserError(told) if found else NoDraft(told)


def drafter_for(
    draft: str, options: Mapping[str, Any], types: Sequence[str], index: DatasetIndex | None = None
) -> Drafter | MixedDrafter:
    """The drafter that `draft` names, for pairs of these types.

    Args:
        draft: "transplant", "procedural" or "mixed".
        options: options of the methods that make the drafts, each of which takes those that it has, and `max_distance`
            of `MixedDrafter`.
        types: the pairs' types "category/anomaly", by their numbers.
        index: the dataset whose real defects `transplant` cuts out. None: those that `options` name.

    Raises:
        UserError: when an option is unknown or wrong, or when a type cannot be made.
    """
    own, mixing = _options_of_drafts(draft, options)
    found = [_of_method(name, given, types, index, partial=len(own) > 1) for name, given in own.items()]
    return found[0] if len(found) == 1 else MixedDrafter(found[0], found[1], **mixing)


def check_drafts(draft: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` for options of drafts that their methods refuse, as far as no real defect is read for it."""
    for name, own in _options_of_drafts(draft, options)[0].items():
        create(name, **{k: v for k, v in own.items() if k not in ("defects", "split")})
        if "split" in own:
            split_file(own["split"])


def _options_of_drafts(draft: str, options: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Those of `options` that each method has which makes the drafts, and those of `MixedDrafter`. Raises `UserError`
    for one that nothing has."""
    names = draft_methods(draft)
    taken = {name: set(signature(method_class(name)).parameters) for name in names}
    mixing = {k: _max_distance(v) for k, v in options.items() if k == "max_distance" and draft == "mixed"}
    unknown = sorted(set(options) - set().union(*taken.values(), mixing))
    if unknown and names:
        raise UserError(f"draft_options.{unknown[0]} is no option of {' or '.join(names)}; leave it out")
    return {name: {k: v for k, v in options.items() if k in taken[name]} for name in names}, mixing


def _max_distance(given: Any) -> float | None:
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool) and given > 0):
        return given
    raise UserError(
        f"draft_options.max_distance={given} is no distance; give a number above 0 (1: as far as moved real "
        "ones are), or null for any"
    )


def _of_method(
    method: str, options: Mapping[str, Any], types: Sequence[str], index: DatasetIndex | None, partial: bool
) -> Drafter:
    made = create(method, **options)
    assert isinstance(made, Placing)
    if index is not None and method == "transplant":
        made.fit(index)
    if not made.types and not made.words:
        raise UserError(f"--draft {method} has no defects to start from; give draft_options={{'defects': FOLDER}}")
    return Drafter(made, types, partial=partial)
