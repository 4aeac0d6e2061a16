"""Which samples make up which batch: a function of (seed, step), so that resumed and distributed runs draw the same."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ldm.rng import seed_of

_APART = 1 << 40  # keys of the extras' orders, which no group's number reaches


class SampleIndex(NamedTuple):
    """A sample to fetch, the seed for everything random about it, and whether it is left uncropped."""

    sample: int
    seed: int
    whole: bool = False


class Extra(NamedTuple):
    """Samples beside the main ones that make up a `share` of all that a run draws; its groups take turns."""

    share: Fraction
    groups: Sequence[Sequence[int]]


class StepSampler(Sampler[list[SampleIndex]]):
    """Which samples make up each batch, as a function of the seed and the step.

    It yields a list of `SampleIndex` tickets for each step from `start()` to `steps`. A step's global batch has
    `batch_size * world` samples, of which each rank takes its slice. So two ranks see what one rank with the doubled
    batch would.

    Args:
        groups: lists of sample numbers that take turns, so that each defect type is seen equally often. A group is gone
            through in a new order every time around.
        batch_size: samples in a batch of one rank.
        steps: number of steps at which the run ends.
        seed: decides the order and everything random about a sample.
        rank, world: number of this process, and how many there are.
        start: called when the batches are asked for, returns the step to begin with.
        whole_from: from this step on tickets ask for whole pictures instead of crops.
        groups_at: `groups_at(step)` gives the numbers of the groups that take turns at a step. None: all of them.
        extras: samples beside the main ones, spread evenly over the run. The rest of the draws go through `groups` as
            in a run without extras.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        whole_from: int = 0,
        groups_at: Callable[[int], Sequence[int]] | None = None,
        extras: Sequence[Extra] = (),
    ):
        self.groups = [list(g) for g in groups if len(g)]
        self.extras = [self._added(extra) for extra in extras if extra.share]
        self.groups_at = groups_at
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.rank, self.world, self.start, self.whole_from = rank, world, start, whole_from
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @classmethod
    def of(
        cls,
        trainer: Any,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        seed: int,
        crop_until: float = 0,
        groups_at: Callable[[int], Sequence[int]] | None = None,
        extras: Sequence[Extra] = (),
    ) -> "StepSampler":
        """The tickets of a Lightning trainer's run and rank; `crop_until`: the share of its steps that see crops."""
        per_step = trainer.accumulate_grad_batches
        return cls(
            groups,
            batch_size,
            trainer.max_steps * per_step,
            seed,
            trainer.global_rank,
            trainer.world_size,
            start=lambda: trainer.global_step * per_step,
            whole_from=round(crop_until * trainer.max_steps) * per_step,
            groups_at=None if groups_at is None else lambda batch: groups_at(batch // per_step),
            extras=extras,
        )

    def _added(self, extra: Extra) -> tuple[Fraction, range]:
        """(share, numbers of its groups, which stand behind the main ones)."""
        first = len(self.groups)
        self.groups += [list(group) for group in extra.groups if len(group)]
        return extra.share, range(first, len(self.groups))

    def _order(self, group: int, lap: int, size: int) -> np.ndarray:
        """The order of a group's samples on one lap; group -1 is the order of the main groups themselves, -2 and below
        those of the extras."""
        if (group, lap) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != group}
            rng = np.random.default_rng(seed_of(self.seed, group + 1 if group >= -1 else _APART - group, lap))
            self._orders[group, lap] = rng.permutation(size)
        return self._orders[group, lap]

    def _part(self, number: int) -> tuple[int, range, int]:
        """Whose turn the run's `number`-th draw is: (-1 for the main groups, -2 and below for the extras; the numbers
        of its groups; how many draws it had before)."""
        taken = Fraction(0)
        for k, (share, groups) in enumerate(self.extras):
            own = share / (1 - taken)  # of what the extras before leave
            before, after = int(number * own), int((number + 1) * own)
            if after > before:
                return -2 - k, groups, before
            number, taken = number - before, taken + share
        return -1, range(self.extras[0][1].start if self.extras else len(self.groups)), number

    def ticket(self, number: int, within: Sequence[int] | None = None) -> SampleIndex:
        """The sample that the run draws as its `number`-th, `within` some of the main groups."""
        part, groups, drawn = self._part(number)
        allowed = groups if within is None or part < -1 else within
        turn, place = divmod(drawn, len(allowed))
        order = self._order(part, turn, len(groups))
        group = int([groups[g] for g in order if groups[g] in allowed][place])
        lap, item = divmod(turn, len(self.groups[group]))
        chosen = self.groups[group][int(self._order(group, lap, len(self.groups[group]))[item])]
        return SampleIndex(chosen, seed_of(self.seed, 7, number))

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for step in range(self.start(), self.steps):
            first = (step * self.world + self.rank) * self.batch_size
            whole = step >= self.whole_from
            within = None if self.groups_at is None else self.groups_at(step)
            yield [self.ticket(first + i, within)._replace(whole=whole) for i in range(self.batch_size)]

    def __len__(self) -> int:
        # All steps, those before a resumed run's start included: the trainer goes on counting from there.
        return self.steps
