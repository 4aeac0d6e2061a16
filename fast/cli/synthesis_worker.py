"""A worker of a Ray cluster: it has the model loaded once and takes pairs, or whole shards of them, from a queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from io import StringIO
from typing import Any

from fast.cli.synthesis_fill import made, output_of
from fast.cli.synthesis_job import SynthesisJob, prepare, preview
from fast.cli.synthesis_options import counterfeits
from fast.cli.synthesize import settings_of
from fast.data.whole import check_images
from fast.runtime.on_ray import go_to
from fast.runtime.workers import cores
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import Pair
from fast.synthesis.shards import ShardFolder


class Worker:
    """An actor. `rank`: its own, never used twice; `folder`: the command's; `cpus`: cores of its machine that are its
    own."""

    def __init__(self, options: SynthesisOptions, rank: int, folder: str, cpus: int):
        self.options, self.rank, self.folder, self.cpus = options, rank, folder, cpus

    def prepare(self) -> tuple[dict[str, Any], str]:
        """Load everything. Returns (the run's settings, what the command says of them). Raises `UserError`."""
        go_to(self.folder)
        os.environ["LOCAL_WORLD_SIZE"] = str(max(1, cores() // self.cpus))
        with redirect_stdout(StringIO()) as said:
            self.job: SynthesisJob = prepare(self.options, say=True)
        return settings_of(self.job), said.getvalue()

    def check(self, numbers: list[int]) -> str:
        """Look at the normal images of these pairs and write the preview that is asked for. Returns what is to be said.
        Raises `UserError` for an image that cannot be read."""
        check_images(p.normal for p in self._pairs(numbers) if p.normal)
        with redirect_stdout(StringIO()) as said:
            if self.options.preview:
                preview(self.job, self.options)
        return said.getvalue()

    def run(self, queue: Any) -> int:
        """Make pairs until the queue, a `NumberQueue` or with --shards a `LotQueue`, has none left. Returns how many
        drawn masks were rejected."""
        before = self.job.rejected()
        with closing(output_of(self.options, settings_of(self.job), self.rank)) as output:
            if isinstance(output, ShardFolder):
                self._make_shards(output, queue)
            else:
                assert isinstance(output, OutputFolder)
                self._make_pairs(output, queue)
        return self.job.rejected() - before

    def _make_pairs(self, output: OutputFolder, queue: Any) -> None:
        """One by one, read ahead."""

        def pairs() -> Iterator[Pair]:
            while numbers := self._take(queue, self.options.batch_size):
                yield from self._pairs(numbers)

        for number in made(output, self.job, pairs(), self.options.batch_size):
            queue.finish.remote(self.rank, [number])

    def _make_shards(self, output: ShardFolder, queue: Any) -> None:
        """A shard, which the number of its first pair stands for, and only then the next: so no more than one is lost
        with this worker."""
        output.share([range(self.options.count), counterfeits(self.options)], 0, 1)
        while first := self._take(queue, 1):
            pairs = self._pairs(output.shard_of(first[0]).numbers)
            for _ in made(output, self.job, pairs, self.options.batch_size):
                queue.advance.remote(self.rank)
            queue.finish.remote(self.rank, first)  # the last of `made` has put it in its place

    def _take(self, queue: Any, most: int) -> list[int]:
        import ray

        numbers: list[int] = ray.get(queue.take.remote(self.rank, most))
        return numbers

    def _pairs(self, numbers: Any) -> Iterator[Pair]:
        return (self.job.sources.pair(i, self.options.seed) for i in numbers)
