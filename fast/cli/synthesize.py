"""The synthesis command: its options to a filled output folder."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fast.cli.score import judge, real_defects, table
from fast.runtime.signals import handled_by
from fast.synthesis.options import FIRST_COUNTERFEIT, SynthesisOptions, transplants
from ldm.errors import UserError

ROUNDS = 5  # of pairs made for others that show nothing

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.cli.synthesis_job import Maker, SynthesisJob
    from fast.segmentation.data import SegmentationSample
    from fast.synthesis.output import OutputFolder
    from fast.synthesis.sources import Pair


def synthesize(options: SynthesisOptions) -> None:
    """Fill the output folder, or the part of it that this process of several is to make. Raises `UserError`.

    The folder is touched only once everything else has been found in order.
    """
    from fast.cli.synthesis_job import prepare, preview
    from fast.synthesis.honest import made_again
    from fast.synthesis.output import OutputFolder

    rank = int(os.environ.get("RANK", "0"))
    job = prepare(options, say=rank == 0)
    real = _real_defects(options)
    if options.preview and rank == 0:
        preview(job, options)
    with closing(OutputFolder(options.sample_name, settings_of(job), rank, options.extend)) as output:
        try:
            if rank == 0:
                keep_command(output, options)
            total, stopped = _made(output, job, options)
        except UserError:
            output.abandon()
            raise
        if options.keep is not None and not stopped:
            total = _kept(output, options, real)
        rows = output.rows()
        again = made_again(rows)
    if again and rank == 0:
        print(again, flush=True)
    rejected = job.rejected()
    if rejected and rank == 0:
        print(f"{rejected} drawn masks were rejected and drawn again", flush=True)
    fakes = sum(bool(row.get("counterfeit")) and not row.get("rejected") for row in rows)
    pairs = total - fakes
    if stopped:
        also = f" and {fakes} of {len(counterfeits(options))} counterfeits" if options.counterfeits else ""
        wanted = _candidates(options)
        raise UserError(f"interrupted: {pairs} of {wanted} pairs{also} are made; the same command goes on")
    print(f"{pairs} pairs{f' and {fakes} counterfeits' if fakes else ''} in {options.sample_name}", flush=True)


def _made(output: OutputFolder, job: SynthesisJob, options: SynthesisOptions) -> tuple[int, bool]:
    """Make what is missing, with --regenerate pairs in the place of those that show nothing too. Returns (pairs in the
    manifest, stopped early by a signal)."""
    from fast.synthesis.honest import UNCHANGED

    wanted = made = _candidates(options)
    for _ in range(ROUNDS if options.regenerate else 1):
        total, stopped = fill(output, job, options, _pairs(job, options, made))
        shown = sum(row["index"] < made and row.get("rejected") != UNCHANGED for row in output.rows())
        if stopped or shown >= wanted:
            break
        made += wanted - shown
    return total, stopped


def _candidates(options: SynthesisOptions) -> int:
    """How many pairs to make so that --count can be kept."""
    if options.keep is None or not options.regenerate:
        return options.count
    return math.ceil(options.count / options.keep - 1e-9)


def _real_defects(options: SynthesisOptions) -> list[SegmentationSample]:
    """Those that the pairs are to be compared with. Raises `UserError`."""
    if options.keep is None:
        return []
    own = options.data_root if transplants(options) else None
    return real_defects(options.defects or own, options.split)


def _kept(output: OutputFolder, options: SynthesisOptions, real: Sequence[SegmentationSample]) -> int:
    """Score all pairs and set the worst aside. Returns how many stay."""
    judge(output, real, options.keep, options.count if options.regenerate else None)
    rows = output.rows()
    print(table(rows), flush=True)
    return sum(not row.get("rejected") for row in rows)


def _pairs(job: SynthesisJob, options: SynthesisOptions, count: int) -> list[Pair]:
    """The first `count` pairs and all counterfeits."""
    return [job.sources.pair(i, options.seed) for i in (*range(count), *counterfeits(options))]


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
        output.write(entry, made.normal, made.image, made.mask, made.shown, made.asked)

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
