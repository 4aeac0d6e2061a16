"""What methods on a latent base take, apart from what loads and runs them. No torch here: commands refuse an unknown
option at once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fast.generators.base import Learned
from fast.runtime.flags import takes
from fast.synthesis.options import LatentOptions


class OnBase(Learned):
    """The arguments of a method on a latent base: the fields of `fast.synthesis.options.LatentOptions`, which says what
    each is, and those of `Learned` for `fit`."""

    own_masks = False

    @takes(LatentOptions)
    def __init__(self, **options: Any):
        names = {f.name for f in fields(LatentOptions)}
        self.options = LatentOptions(**{name: value for name, value in options.items() if name in names})
        training = {name: value for name, value in options.items() if name not in names}
        super().__init__(self.options.weights, self.options.step, **training)
