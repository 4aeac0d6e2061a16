"""Synthesis by the workers of a Ray cluster: each has the model loaded once and takes numbers of pairs from a queue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from typing import Any

from fast.cli.synthesis_job import SynthesisJob, prepare, preview
from fast.cli.synthesize import counterfeits, keep_command, made, settings_of, tell
from fast.data.whole import check_images
from fast.generators import FREE
from fast.runtime.number_queue import MOST_LOSSES, NumberQueue
from fast.runtime.on_ray import GONE, cause_of, go_to, joined, machines, wants_gpu
from fast.runtime.progress import Progress
from fast.runtime.runner import address_of
from fast.runtime.signals import handled_by
from fast.runtime.workers import cores
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.output import OutputFolder
from fast.synthesis.sources import Pair
from ldm.errors import UserError

LOOK = 0.2  # seconds between looks at what the workers have done


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
        pairs = (self.job.sources.pair(i, self.options.seed) for i in numbers)
        check_images(p.normal for p in pairs if p.normal)
        with redirect_stdout(StringIO()) as said:
            if self.options.preview:
                preview(self.job, self.options)
        return said.getvalue()

    def run(self, queue: Any) -> int:
        """Make pairs until the queue has none left. Returns how many drawn masks were rejected."""
        import ray

        options = self.options

        def pairs() -> Iterator[Pair]:
            while numbers := ray.get(queue.take.remote(self.rank, options.batch_size)):
                yield from (self.job.sources.pair(i, options.seed) for i in numbers)

        before = self.job.rejected()
        with closing(OutputFolder(options.sample_name, settings_of(self.job), self.rank)) as output:
            for number in made(output, self.job, pairs(), options.batch_size):
                queue.finish.remote(self.rank, [number])
        return self.job.rejected() - before


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
                raise UserError(
                    f"{MOST_LOSSES} workers died while they made the same pairs ({', '.join(map(str, often[:5]))}); "
                    "if memory ran out, lower --batch_size or --workers"
                ) from None
            self._replace(rank, error)
            return
        self.deaths = 0
        self.idle.add(rank)
        if not loading:
            self.rejected += found

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
        with closing(OutputFolder(options.sample_name, settings, 0, options.extend)) as output, handled_by(came.append):
            keep_command(options)
            total = _fill(ray, crew, output, options, actor, came)
            rows = output.brief()
    finally:
        crew.stop()
    tell(options, rows, total, bool(came), crew.rejected, True)


def _fill(ray: Any, crew: Crew, output: OutputFolder, options: SynthesisOptions, actor: Any, came: list[int]) -> int:
    """Have what is missing made. Returns how many pairs the manifest holds."""
    numbers, done = [*range(options.count), *counterfeits(options)], output.done()
    left = [n for n in numbers if n not in done]
    try:
        print(ray.get(actor.check.remote(left)), end="", flush=True)
    except ray.exceptions.RayTaskError as error:
        output.abandon()
        raise cause_of(error) from None
    # In this process's own machine: it dies with the command, never before.
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), False)
    queue = ray.remote(NumberQueue).options(num_cpus=0, scheduling_strategy=here).remote(left, crew.count)
    try:
        with Progress(len(numbers), "pairs", "pair", initial=len(numbers) - len(left)) as progress:
            crew.work(queue, progress, came)
    finally:
        crew.stop()  # nobody writes while the manifest is put together
        total = output.gather()
    return total
