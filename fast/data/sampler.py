"""Which samples make up which batch: a function of (seed, step), so that resumed and distributed runs draw the same."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ldm.rng import seed_of


class SampleIndex(NamedTuple):
    """A sample to fetch, the seed for everything random about it, and whether it is left uncropped."""

    sample: int
    seed: int
    whole: bool = False


class StepSampler(Sampler[list[SampleIndex]]):
    """Batches of tickets for the steps from `start()` to `steps`.

    `groups`: lists of sample numbers that take turns, so that each defect type is seen equally often; each group is
    gone through in a new order every time around. A rank takes its slice of the global batch of
    `batch_size * world` samples, so two ranks see what one rank with the doubled batch would. From step `whole_from`
    on tickets ask for whole pictures. `groups_at(step)`: the numbers of the groups that take turns then (None: all).
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
    ):
        self.groups = [list(g) for g in groups if len(g)]
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
        )

    def _order(self, group: int, lap: int) -> np.ndarray:
        """The order of a group's samples on one lap; group -1 is the order of the groups themselves."""
        if (group, lap) not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != group}
            size = len(self.groups) if group < 0 else len(self.groups[group])
            rng = np.random.default_rng(seed_of(self.seed, group + 1, lap))
            self._orders[group, lap] = rng.permutation(size)
        return self._orders[group, lap]

    def ticket(self, number: int, within: Sequence[int] | None = None) -> SampleIndex:
        """The sample that the run draws as its `number`-th, `within` some of the groups."""
        turn, place = divmod(number, len(self.groups if within is None else within))
        group = int([g for g in self._order(-1, turn) if within is None or g in within][place])
        lap, item = divmod(turn, len(self.groups[group]))
        return SampleIndex(self.groups[group][int(self._order(group, lap)[item])], seed_of(self.seed, 7, number))

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for step in range(self.start(), self.steps):
            first = (step * self.world + self.rank) * self.batch_size
            whole = step >= self.whole_from
            within = None if self.groups_at is None else self.groups_at(step)
            yield [self.ticket(first + i, within)._replace(whole=whole) for i in range(self.batch_size)]

    def __len__(self) -> int:
        # All steps, those before a resumed run's start included: the trainer goes on counting from there.
        return self.steps
