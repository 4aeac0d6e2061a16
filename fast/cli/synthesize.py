"""The synthesis command: its options to a filled output folder."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fast.runtime.signals import handled_by
from fast.synthesis.options import FIRST_COUNTERFEIT, SynthesisOptions
from ldm.errors import UserError

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.cli.synthesis_job import Maker, SynthesisJob
    from fast.synthesis.output import OutputFolder
    from fast.synthesis.sources import Pair


def synthesize(options: SynthesisOptions) -> None:
    """Fill the output folder, or the part of it that this process of several is to make. Raises `UserError`.

    The folder is touched only once everything else has been found in order.
    """
    from fast.cli.synthesis_job import prepare, preview
    from fast.synthesis.output import OutputFolder, read_records

    rank = int(os.environ.get("RANK", "0"))
    job = prepare(options, say=rank == 0)
    if options.preview and rank == 0:
        preview(job, options)
    with closing(OutputFolder(options.sample_name, settings_of(job), rank, options.extend)) as output:
        try:
            if rank == 0:
                keep_command(output, options)
            numbers = [*range(options.count), *counterfeits(options)]
            total, stopped = fill(output, job, options, [job.sources.pair(i, options.seed) for i in numbers])
        except UserError:
            output.abandon()
            raise
    rejected = job.rejected()
    if rejected and rank == 0:
        print(f"{rejected} drawn masks were rejected and drawn again", flush=True)
    pairs = len(read_records(output.folder, rejected=True))
    fakes = total - pairs
    if stopped:
        also = f" and {fakes} of {len(counterfeits(options))} counterfeits" if options.counterfeits else ""
        raise UserError(f"interrupted: {pairs} of {options.count} pairs{also} are made; the same command goes on")
    print(f"{pairs} pairs{f' and {fakes} counterfeits' if fakes else ''} in {options.sample_name}", flush=True)


def settings_of(job: SynthesisJob) -> dict[str, Any]:
    """What makes two runs the same run."""
    return {
        **job.common,
        "types": [job.sources.types[i] for i in job.sources.allowed],
        # By content: where the files lie decides nothing.
        "normals": sorted(job.sources.normal_contents),
        "masks": sorted(job.sources.mask_contents),
    }


def fill(
    output: OutputFolder,
    job: SynthesisJob,
    options: SynthesisOptions,
    wanted: Sequence[Pair],
    more: Callable[[Pair], dict[str, Any]] = lambda pair: {},
) -> tuple[int, bool]:
    """Make what is missing of this process's share of the `wanted` pairs; `more`: what their records say besides.
    Returns (pairs in the manifest, stopped early by a signal)."""
    from fast.data.index import GOOD
    from fast.runtime.progress import Progress
    from fast.runtime.workers import overlapped
    from fast.synthesis.sources import check_images
    from fast.synthesis.synthesizer import SynthesizedSample, record

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share, done = wanted[rank::world], output.done()
    pairs = [pair for pair in share if pair.index not in done]
    check_images(p.normal for p in pairs if p.normal)
    left = len(pairs)

    def write(made: SynthesizedSample) -> None:
        index = made.pair.type_index
        kind = job.sources.types[index]
        kind = f"{kind.split('/', 1)[0]}/{GOOD}" if made.pair.counterfeit else kind
        entry = record(made, job.maker.prompt(index), {"type": kind, **job.common, **more(made.pair)})
        output.write(entry, made.normal, made.image, made.mask, made.shown)

    try:
        with (
            stop_on_signal(job.maker) as signals,
            closing(job.maker.make(iter(pairs), options.batch_size)) as making,
            Progress(len(share), "pairs", "pair", initial=len(share) - len(pairs), hidden=rank != 0) as progress,
        ):
            for _ in overlapped(write, making, workers=2, ahead=4):
                left -= 1
                progress.update()
    finally:
        total = output.gather()
    return total, bool(signals) and left > 0


def keep_command(output: OutputFolder, options: SynthesisOptions) -> None:
    """Write the options into the folder, so that pairs of it can be made anew."""
    from fast.data.images import write_bytes
    from fast.synthesis.output import COMMAND

    write_bytes(output.folder / COMMAND, json.dumps(asdict(options), default=str, indent=1).encode())


def counterfeits(options: SynthesisOptions) -> range:
    """Numbers of the counterfeits beside the pairs: that of pair i is `FIRST_COUNTERFEIT + i`, so that a larger count
    or share only adds some."""
    return range(FIRST_COUNTERFEIT, FIRST_COUNTERFEIT + round(options.count * options.counterfeits))


@contextmanager
def stop_on_signal(maker: Maker) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM stops the maker between two pairs; yields the list of signals that came.

    A second Ctrl-C is not waited for: it raises KeyboardInterrupt. In a thread of a server no signal arrives.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)
        maker.stop()

    with handled_by(handle):
        yield came
