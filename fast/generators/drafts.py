"""First versions of defects for AIAS to start from: real ones set into the picture, or drawn ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fast.generators.base import Placing
from fast.synthesis.maker import Draft, MaskOf
from fast.synthesis.pair import Pair
from ldm.errors import UserError
from ldm.rng import seed_of


class Drafter:
    """Drafts by a method that places defects itself, `transplant` or `procedural`: for a pair the very one that the
    method alone would make of the same picture and seed.

    `types`: "category/anomaly" by the pairs' type numbers; `region_of(image, pair)`: where defects may lie, None leaves
    it to the method. Raises `UserError` for a type that the method cannot make.
    """

    def __init__(self, method: Placing, types: Sequence[str], region_of: MaskOf | None = None):
        self.method, self.region_of = method, region_of
        self.names = [_name(method, key) for key in types]

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


class Mixed:
    """Drafts of one or the other drafter, by each pair's seed, half of them each."""

    def __init__(self, drafters: Sequence[Drafter]):
        self.drafters = list(drafters)

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        return replace(self._of(pair)(image, pair, mask), origin=self.origin(pair))

    def origin(self, pair: Pair) -> dict[str, str]:
        """As a drafter's, and under `draft_by` whose draft it is."""
        drafter = self._of(pair)
        return {"draft_by": drafter.method.name, **drafter.origin(pair)}

    def _of(self, pair: Pair) -> Drafter:
        return self.drafters[seed_of(pair.seed, 9) % len(self.drafters)]

    def settings(self) -> Mapping[str, Any]:
        return {drafter.method.name: drafter.settings() for drafter in self.drafters}


def _name(method: Placing, key: str) -> str:
    """What the drafts' method calls a type: the same, or what has the same word."""
    if method.words:
        try:
            method.check_word(key)
        except UserError as error:  # it names the option as the method alone would be given it
            raise UserError(str(error).replace("method.looks.", "method.draft_options.looks.")) from None
        return key
    own = list(method.types)
    word = key.rpartition("/")[2].replace("_", " ")
    found = [key] if key in own else [t for t in own if t.rpartition("/")[2].replace("_", " ") == word]
    if len(found) == 1:
        return found[0]
    says = "has no real defect" if not found else f"has defects of several parts ({', '.join(found)})"
    raise UserError(f"--draft {method.name} {says} of type {key!r}; it has {', '.join(own)}; choose by --anomaly_name")
