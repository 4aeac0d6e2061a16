"""Synthesis by the workers of a Ray cluster, which take numbers of pairs, or of shards, from a queue."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from fast.cli.synthesis_fill import Output, complete, keep_command, output_of
from fast.cli.synthesis_options import counterfeits
from fast.cli.synthesis_worker import Worker
from fast.cli.synthesize import tell
from fast.generators import FREE
from fast.runtime.number_queue import MOST_LOSSES, LotQueue, NumberQueue
from fast.runtime.on_ray import GONE, cause_of, joined, machines, wants_gpu
from fast.runtime.progress import Progress
from fast.runtime.runner import address_of
from fast.runtime.signals import handled_by
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.shards import ShardFolder
from ldm.errors import UserError

LOOK = 0.2  # seconds between looks at what the workers have done


class Crew:
    """The workers of one run, those that died replaced."""

    def __init__(self, ray: Any, options: SynthesisOptions):
        self.ray, self.options = ray, options
        found = machines(ray)
        on_gpu = options.method not in FREE and wants_gpu(options.device, found)
        self.count, self.need = found.share(options.workers, on_gpu)
        if options.method not in FREE:
            self.options = replace(options, device="cuda" if on_gpu else "cpu")
        self.actor = ray.remote(Worker)
        self.actors: dict[int, Any] = {}
        self.preparing: dict[Any, int] = {}
        self.running: dict[Any, int] = {}
        self.idle: set[int] = set()
        self.rank = self.rejected = self.deaths = 0
        self.settings: dict[str, Any] = {}  # of the first worker that is ready
        for _ in range(self.count):
            self._start()

    def _start(self) -> None:
        self.rank += 1
        new = self.actor.options(**self.need, scheduling_strategy="SPREAD", max_restarts=0)
        actor = new.remote(self.options, self.rank, os.getcwd(), int(self.need["num_cpus"]))
        self.actors[self.rank] = actor
        self.preparing[actor.prepare.remote()] = self.rank

    def first(self) -> tuple[Any, dict[str, Any], str]:
        """(actor, settings, words) of the first worker that is ready. Raises `UserError`."""
        while True:
            (future,), _ = self.ray.wait(list(self.preparing))
            rank = self.preparing.pop(future)
            try:
                settings, said = self.ray.get(future)
            except Exception as error:
                self._replace(rank, error)
                continue
            self.idle.add(rank)
            self.settings = settings
            return self.actors[rank], settings, said

    def work(self, queue: Any, progress: Progress, stopped: list[int]) -> None:
        """Until every number is finished or a signal is in `stopped`. Raises `UserError`."""
        while not stopped:
            done, waiting, held = self.ray.get(queue.state.remote())
            progress.to(progress.initial + done)
            if not (waiting or held) and not self.running:
                return
            for rank in list(self.idle) if waiting else []:
                self._run(rank, queue)
            futures = [*self.preparing, *self.running]
            if not futures:  # the last word of a worker is still on its way
                time.sleep(LOOK)
                continue
            ready, _ = self.ray.wait(futures, num_returns=len(futures), timeout=LOOK)
            for future in ready:
                self._ready(future, queue)

    def _run(self, rank: int, queue: Any) -> None:
        self.idle.discard(rank)
        self.running[self.actors[rank].run.remote(queue)] = rank

    def _ready(self, future: Any, queue: Any) -> None:
        """A worker has loaded the model, has found the queue empty, or is gone."""
        loading = future in self.preparing
        rank = (self.preparing if loading else self.running).pop(future)
        try:
            found = self.ray.get(future)
        except Exception as error:
            often = self.ray.get(queue.lose.remote(rank))
            if often:
                what = "shard, which begins with pair" if self.options.shards else "pairs, numbers"
                raise UserError(
                    f"{MOST_LOSSES} workers died while they made the same {what} {', '.join(map(str, often[:5]))}; if "
                    "memory ran out, lower --batch_size or --workers; the same command goes on"
                ) from None
            self._replace(rank, error)
            return
        self.deaths = 0
        self.idle.add(rank)
        if loading:
            self._agree(found[0])
        else:
            self.rejected += found

    def _agree(self, settings: dict[str, Any]) -> None:
        """Raises `UserError` for a worker that would make other pairs than the first."""
        both = settings.keys() | self.settings.keys()
        if differing := sorted(key for key in both if settings.get(key) != self.settings.get(key)):
            raise UserError(
                f"the machines of the Ray cluster would make different pairs (they differ in {', '.join(differing)}); "
                "let all see the same files, and say with --precision and --device what all of them can do"
            )

    def _replace(self, rank: int, error: Exception) -> None:
        """Another worker in the place of one that died; what was raised in a living one is raised here."""
        del self.actors[rank]
        errors = self.ray.exceptions
        # Out of memory: Ray ends the worker itself, before the machine is full.
        gone = errors.RayActorError | errors.WorkerCrashedError | errors.NodeDiedError | errors.OutOfMemoryError
        if not isinstance(error, gone):
            raise cause_of(error)
        self.deaths += 1
        if self.deaths > MOST_LOSSES:
            raise UserError(f"{self.deaths} workers died one after another before they made a pair; see Ray's logs")
        print(f"worker {rank} died; its pairs are given out again", flush=True)
        self._start()

    def stop(self) -> None:
        """End all workers now; what they have not finished is made again by the next run."""
        for actor in self.actors.values():
            with suppress(self.ray.exceptions.RayError):  # gone already
                self.ray.kill(actor)


def synthesize_on_ray(options: SynthesisOptions) -> None:
    """As `fast.cli.synthesize.synthesize`, by the workers of a cluster, and with the same files. Raises `UserError`."""
    with joined(address_of(options.runner)) as ray:
        try:
            _synthesize(ray, options)
        except (ray.exceptions.RaySystemError, ray.exceptions.RayActorError, ConnectionError) as error:
            raise UserError(GONE) from error


def _synthesize(ray: Any, options: SynthesisOptions) -> None:
    came: list[int] = []
    crew = Crew(ray, options)
    try:
        actor, settings, said = crew.first()
        print(said, end="", flush=True)
        with closing(output_of(options, settings, 0)) as output, handled_by(came.append):
            if not options.shards:
                keep_command(options)
            total = _fill(ray, crew, output, options, actor, came)
            rows = output.brief()
    finally:
        crew.stop()
    tell(options, settings["types"], rows, total, bool(came), crew.rejected, True)


def _fill(ray: Any, crew: Crew, output: Output, options: SynthesisOptions, actor: Any, came: list[int]) -> int:
    """Have what is missing made. Returns how many pairs the manifest holds."""
    numbers = output.share([range(options.count), counterfeits(options)], 0, 1)
    done = complete(output, numbers)
    left = [n for n in numbers if n not in done]
    try:
        print(ray.get(actor.check.remote(left)), end="", flush=True)
    except ray.exceptions.RayTaskError as error:
        output.abandon()
        raise cause_of(error) from None
    kind, given_out = _work(output, left)
    if options.shards and 0 < len(given_out) < crew.count:
        print(
            f"work for {len(given_out)} of {crew.count} workers, as many as shards are left; smaller --shards, in a "
            "new folder, let more of them work",
            flush=True,
        )
    # In this process's own machine: it dies with the command, never before.
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), False)
    queue = ray.remote(kind).options(num_cpus=0, scheduling_strategy=here).remote(given_out, crew.count)
    try:
        with Progress(len(numbers), "pairs", "pair", initial=len(numbers) - len(left)) as progress:
            crew.work(queue, progress, came)
    finally:
        crew.stop()  # nobody writes while the manifest is put together
        total = output.gather()
    return total


def _work(output: Output, left: list[int]) -> tuple[type[NumberQueue], list[int]]:
    """The queue, and what it gives out: the pairs that are `left`, or for each shard the number of its first."""
    if isinstance(output, ShardFolder):
        return LotQueue, [shard.numbers[0] for shard in output.missing()]
    return NumberQueue, left
