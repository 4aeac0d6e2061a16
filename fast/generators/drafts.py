"""First versions of defects for AIAS to start from: real ones set into the picture, or drawn ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np

from fast.data.index import DatasetIndex
from fast.generators import create, method_class
from fast.generators.base import Placing
from fast.generators.transplant import split_file
from fast.synthesis.maker import Draft, MaskOf
from fast.synthesis.options import draft_methods
from fast.synthesis.pair import Pair
from ldm.errors import UserError
from ldm.rng import seed_of


class NoDraft(UserError):
    """A method cannot make drafts of a type."""


class Drafter:
    """Drafts by a method that places defects itself, `transplant` or `procedural`: for a pair the very one that the
    method alone would make of the same picture and seed.

    `types`: "category/anomaly" by the pairs' type numbers; `region_of(image, pair)`: where defects may lie, None leaves
    it to the method. Raises `UserError` for a type that the method cannot make, unless it may be `partial`, which is
    asked for none of those.
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
        rng = np.random.default_rng(pair.seed)
        region = None if self.region_of is None or mask is not None else self.region_of(image, pair)
        made, found = self.method.synthesize(image, mask, rng, name, region)
        look = self.method.look(np.random.default_rng(pair.seed), name, mask is not None)
        return Draft(made, found, self.origin(pair), look)

    def origin(self, pair: Pair) -> dict[str, str]:
        """Which real defect takes part, as `Generator.origin`."""
        return self.method.origin(np.random.default_rng(pair.seed), self.names[pair.type_index])

    @property
    def drafters(self) -> list[Drafter]:
        return [self]

    def settings(self) -> Mapping[str, Any]:
        return self.method.settings()


class MixedDrafter:
    """Drafts of one or the other drafter, by each pair's seed, half of them each; of a type that one of them cannot
    make, all are the other's.

    `drafters`: partial ones for the same types.
    """

    def __init__(self, drafters: Sequence[Drafter]):
        self.drafters = list(drafters)

    def check(self, number: int, key: str) -> None:
        """Raise `UserError` for the type of this number, called `key`, that none of them can make."""
        whys = [str(d.refused[number]) for d in self.drafters if number in d.refused]
        if len(whys) == len(self.drafters):
            raise UserError(f"--draft mixed can make no {key!r}: {'; and '.join(whys)}")

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        return replace(self._of(pair)(image, pair, mask), origin=self.origin(pair))

    def origin(self, pair: Pair) -> dict[str, str]:
        """As a drafter's, and under `draft_by` whose draft it is."""
        drafter = self._of(pair)
        return {"draft_by": drafter.method.name, **drafter.origin(pair)}

    def _of(self, pair: Pair) -> Drafter:
        self.check(pair.type_index, f"type {pair.type_index}")
        able = [drafter for drafter in self.drafters if pair.type_index not in drafter.refused]
        return able[seed_of(pair.seed, 9) % len(able)]

    def settings(self) -> Mapping[str, Any]:
        return {drafter.method.name: drafter.settings() for drafter in self.drafters}


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
    """The drafts that `draft` names, for pairs of these types. `options`: of the methods that make them, each taken by
    those that have it; `index`: whose real defects are taken, where the options name none. Raises `UserError`."""
    own = _options_of_drafts(draft, options)
    found = [_of_method(name, given, types, index, partial=len(own) > 1) for name, given in own.items()]
    return found[0] if len(found) == 1 else MixedDrafter(found)


def check_drafts(draft: str, options: Mapping[str, Any]) -> None:
    """Raise `UserError` for options of drafts that their methods refuse, as far as no real defect is read for it."""
    for name, own in _options_of_drafts(draft, options).items():
        create(name, **{k: v for k, v in own.items() if k not in ("defects", "split")})
        if "split" in own:
            split_file(own["split"])


def _options_of_drafts(draft: str, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those of `options` that each method has which makes the drafts. Raises `UserError` for one that none has."""
    names = draft_methods(draft)
    taken = {name: set(signature(method_class(name)).parameters) for name in names}
    unknown = sorted(set(options) - set().union(*taken.values()))
    if unknown and names:
        raise UserError(f"draft_options.{unknown[0]} is no option of {' or '.join(names)}; leave it out")
    return {name: {k: v for k, v in options.items() if k in taken[name]} for name in names}


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
