"""The synthesis command: its options to a filled output folder."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from fast.cli.score import judge, real_defects, table
from fast.runtime.signals import handled_by
from fast.synthesis.options import FIRST_COUNTERFEIT, SynthesisOptions
from ldm.errors import UserError

ROUNDS = 5  # of pairs made for others that show nothing

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    import numpy as np

    from fast.cli.synthesis_job import Maker, SynthesisJob
    from fast.segmentation.data import SegmentationSample
    from fast.synthesis.sources import Pair


class Output(Protocol):
    """Where pairs are written: a folder of pictures, or shards."""

    def share(self, groups: Sequence[range], rank: int, world: int) -> list[int]:
        """The numbers, of all in `groups`, that this process of several makes."""

    def done(self) -> set[int]:
        """The numbers of those that are complete."""

    def write(
        self,
        record: dict[str, Any],
        normal: np.ndarray,
        image: np.ndarray,
        mask: np.ndarray,
        shown: tuple[slice, slice],
        asked: np.ndarray | None,
    ) -> None: ...

    def gather(self) -> int:
        """Complete the manifest. Returns how many pairs it holds."""

    def each(self) -> Iterator[dict[str, Any]]:
        """Records of the complete pairs in order."""

    def brief(self) -> list[dict[str, Any]]:
        """Of each record what the end of a run tells."""

    def close(self) -> None: ...

    def abandon(self) -> None: ...


def synthesize(options: SynthesisOptions) -> None:
    """Fill the output folder, or the part of it that this process of several is to make. Raises `UserError`.

    The folder is touched only once everything else has been found in order.
    """
    from fast.cli.synthesis_job import prepare, preview
    from fast.synthesis.honest import made_again

    rank = int(os.environ.get("RANK", "0"))
    job = prepare(options, say=rank == 0)
    real = _real_defects(options)
    if options.preview and rank == 0:
        preview(job, options)
    settings = {
        **job.common,
        "types": [job.sources.types[i] for i in job.sources.allowed],
        # By content: where the files lie decides nothing.
        "normals": sorted(job.sources.normal_contents),
        "masks": sorted(job.sources.mask_contents),
    }
    with closing(_output(options, settings, rank)) as output:
        try:
            total, stopped = _fill(output, job, options)
        except UserError:
            output.abandon()
            raise
        if options.keep is not None and not stopped:
            total = _kept(output, options, real)
        rows = output.brief()
        again = made_again(rows)
    if again and rank == 0:
        print(again, flush=True)
    rejected = job.rejected()
    if rejected and rank == 0:
        print(f"{rejected} drawn masks were rejected and drawn again", flush=True)
    fakes = sum(bool(row.get("counterfeit")) for row in rows)
    pairs = total - fakes
    if stopped:
        also = f" and {fakes} of {len(counterfeits(options))} counterfeits" if options.counterfeits else ""
        wanted = _candidates(options)
        raise UserError(f"interrupted: {pairs} of {wanted} pairs{also} are made; the same command goes on")
    print(f"{pairs} pairs{f' and {fakes} counterfeits' if fakes else ''} in {options.sample_name}", flush=True)


def _output(options: SynthesisOptions, settings: dict[str, Any], rank: int) -> Output:
    """Where the pairs go. Raises `UserError`."""
    if options.shards:
        from fast.synthesis.shards import ShardFolder

        return ShardFolder(options.sample_name, settings, options.shards)
    from fast.synthesis.output import OutputFolder

    return OutputFolder(options.sample_name, settings, rank, options.extend)


def _fill(output: Output, job: SynthesisJob, options: SynthesisOptions) -> tuple[int, bool]:
    """Make what is missing, with --regenerate pairs in the place of those that show nothing too. Returns (pairs in the
    manifest, stopped early by a signal)."""
    from fast.synthesis.honest import UNCHANGED

    wanted = made = _candidates(options)
    for _ in range(ROUNDS if options.regenerate else 1):
        total, stopped = _make(output, job, options, made)
        if stopped or not options.regenerate:
            break
        shown = sum(row["index"] < made and row.get("rejected") != UNCHANGED for row in output.each())
        if shown >= wanted:
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
    own = options.data_root if options.method == "transplant" else None
    return real_defects(options.defects or own, options.split)


def _kept(output: Output, options: SynthesisOptions, real: Sequence[SegmentationSample]) -> int:
    """Score all pairs and set the worst aside. Returns how many stay."""
    from fast.synthesis.output import OutputFolder

    assert isinstance(output, OutputFolder)  # shards hold all pairs, see `check_options`
    judge(output, real, options.keep, options.count if options.regenerate else None)
    rows = output.rows()
    print(table(rows), flush=True)
    return sum(not row.get("rejected") for row in rows)


def _make(output: Output, job: SynthesisJob, options: SynthesisOptions, count: int) -> tuple[int, bool]:
    """Make what is missing of this process's share of the first `count` pairs and all counterfeits. Returns as `_fill`
    does."""
    from fast.data.index import GOOD
    from fast.runtime.progress import Progress
    from fast.runtime.workers import overlapped
    from fast.synthesis.sources import check_images
    from fast.synthesis.synthesizer import SynthesizedSample, record

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    share, done = output.share([range(count), counterfeits(options)], rank, world), output.done()
    missing = [i for i in share if i not in done]
    check_images({p.normal for p in _pairs(job, options, missing) if p.normal})
    left = len(missing)

    def write(made: SynthesizedSample) -> None:
        index = made.pair.type_index
        kind = job.sources.types[index]
        kind = f"{kind.split('/', 1)[0]}/{GOOD}" if made.pair.counterfeit else kind
        entry = record(made, job.maker.prompt(index), {"type": kind, **job.common})
        output.write(entry, made.normal, made.image, made.mask, made.shown, made.asked)

    try:
        with (
            stop_on_signal(job.maker) as signals,
            closing(job.maker.make(_pairs(job, options, missing), options.batch_size)) as making,
            Progress(len(share), "pairs", "pair", initial=len(share) - left, hidden=rank != 0) as progress,
        ):
            for _ in overlapped(write, making, workers=2, ahead=4):
                left -= 1
                progress.update()
    finally:
        total = output.gather()
    return total, bool(signals) and left > 0


def _pairs(job: SynthesisJob, options: SynthesisOptions, numbers: Sequence[int]) -> Iterator[Pair]:
    """The pairs of these numbers one after another: a million at once would be a gigabyte."""
    return (job.sources.pair(i, options.seed) for i in numbers)


def counterfeits(options: SynthesisOptions) -> range:
    """Numbers of the counterfeits beside the pairs: that of pair i is `FIRST_COUNTERFEIT + i`, so that a larger count
    or share only adds some."""
    return range(FIRST_COUNTERFEIT, FIRST_COUNTERFEIT + round(options.count * options.counterfeits))


@contextmanager
def stop_on_signal(maker: Maker) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM stops the maker between two pairs; yields the list of signals that came.

    A second Ctrl-C is not waited for: it raises KeyboardInterrupt.
    """
    came: list[int] = []

    def handle(number: int) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)
        maker.stop()

    with handled_by(handle):
        yield came
