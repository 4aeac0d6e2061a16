"""The synthesis command: its options to a filled output folder."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fast.cli.score import TrainingDefects, judge, real_defects, table
from fast.runtime.counts import number_of
from fast.runtime.signals import handled_by
from fast.synthesis.options import FIRST_COUNTERFEIT, SynthesisOptions, transplants
from ldm.errors import UserError

ROUNDS = 5  # of pairs made for others that show nothing

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.cli.synthesis_job import SynthesisJob
    from fast.synthesis.maker import Maker
    from fast.synthesis.pair import Pair, PairImages


class Output(Protocol):
    """Where pairs are written: a folder of pictures, or shards."""

    def share(self, groups: Sequence[range], rank: int, world: int) -> list[int]:
        """The numbers, of all in `groups`, that this process of several makes."""

    def done(self) -> set[int]:
        """The numbers of those that are complete."""

    def drop_damaged(self, numbers: Iterable[int]) -> list[Path]:
        """Remove the damaged files of these, whose pairs are then no longer complete. Returns them."""

    def to_replace(self) -> list[int]:
        """Numbers of pairs that came in the place of rejected ones, which no run makes, and are damaged or gone."""

    def write(self, record: dict[str, Any], images: PairImages) -> None:
        """Store a pair."""

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

    rank = int(os.environ.get("RANK", "0"))
    real = _real_defects(options)
    job = prepare(options, say=rank == 0)
    if options.preview and rank == 0:
        preview(job, options)
    with closing(output_of(options, settings_of(job), rank)) as output:
        try:
            if rank == 0 and not options.shards:
                keep_command(options)
            total, stopped = _made(output, job, options)
        except UserError:
            output.abandon()
            raise
        if options.keep is not None and not stopped:
            total = _kept(output, options, real)
        lost = [] if rank else output.to_replace()
        rows = output.brief()
    types = [job.sources.types[i] for i in job.sources.allowed]
    tell(options, types, rows, total, stopped, job.rejected() if rank == 0 else 0, rank == 0)
    if lost:
        one = "pair that came in the place of a rejected one is"
        several = "pairs that came in the place of rejected ones are"
        print(
            f"note: {number_of(len(lost), one, several)} damaged or gone ({lost[0]:06d} the first): "
            f"scripts/review.py {options.sample_name} --regenerate makes what is missing again",
            flush=True,
        )


def settings_of(job: SynthesisJob) -> dict[str, Any]:
    """What makes two runs the same run."""
    return {
        **job.common,
        "types": [job.sources.types[i] for i in job.sources.allowed],
        # By content: where the files lie decides nothing.
        "normals": sorted(job.sources.normal_contents),
        "masks": sorted(job.sources.mask_contents),
    }


def tell(
    options: SynthesisOptions,
    types: Sequence[str],
    rows: list[dict[str, Any]],
    total: int,
    stopped: bool,
    rejected: int,
    first: bool,
) -> None:
    """The last lines of the command: of `rows`, all records, `total` are kept; `rejected` masks were drawn again.
    `types`: those that were asked for; `first`: for the process that speaks for all. Raises `UserError` for a run that
    was `stopped`."""
    from fast.synthesis.honest import made_again

    again = made_again(rows)
    if again and first:
        print(again, flush=True)
    if rejected:
        print(f"{number_of(rejected, 'drawn mask was', 'drawn masks were')} rejected and drawn again", flush=True)
    fakes = sum(bool(row.get("counterfeit")) and not row.get("rejected") for row in rows)
    pairs = total - fakes
    if stopped:
        also = f" and {fakes} of {number_of(len(counterfeits(options)), 'counterfeit')}" if options.counterfeits else ""
        wanted = _candidates(options)
        be = "is" if wanted == 1 and not also else "are"
        raise UserError(
            f"interrupted: {pairs} of {number_of(wanted, 'pair')}{also} {be} made; the same command goes on"
        )
    also = f" and {number_of(fakes, 'counterfeit')}" if fakes else ""
    print(f"{number_of(pairs, 'pair')}{also} in {options.sample_name}", flush=True)
    if first and options.keep is None:  # with --keep the table of scores says so
        # Shards are not read for it: `Output.brief`.
        shown = [row for row in rows if not row.get("counterfeit") and not row.get("rejected")]
        counts = Counter(row["type"] for row in shown if "type" in row)
        every = dict.fromkeys([*types, *sorted(counts)])
        if counts and len(every) > 1:
            told = ", ".join(f"{kind.lstrip('/')} {counts[kind]}" for kind in every)
            print(f"by type: {told}", flush=True)
    if first and options.keep is None and pairs > options.count:
        print(f"note: {options.count} were asked for; the others were there before, and stay", flush=True)


def output_of(options: SynthesisOptions, settings: dict[str, Any], rank: int) -> Output:
    """Where the pairs go. Raises `UserError`."""
    if options.shards:
        from fast.synthesis.shards import ShardFolder

        return ShardFolder(options.sample_name, settings, options.shards)
    from fast.synthesis.output import OutputFolder

    return OutputFolder(options.sample_name, settings, rank, options.extend)


def _made(output: Output, job: SynthesisJob, options: SynthesisOptions) -> tuple[int, bool]:
    """Make what is missing, with --regenerate pairs in the place of those that show nothing too. Returns (pairs in the
    manifest, stopped early by a signal)."""
    from fast.synthesis.honest import UNCHANGED

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    wanted = made = _candidates(options)
    for _ in range(ROUNDS if options.regenerate else 1):
        share = output.share([range(made), counterfeits(options)], rank, world)
        total, stopped = fill(output, job, options, share, lambda numbers: _pairs(job, options, numbers))
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


def _real_defects(options: SynthesisOptions) -> TrainingDefects:
    """Those that the pairs are to be compared with. Raises `UserError`."""
    if options.keep is None:
        return TrainingDefects()
    own = options.data_root if transplants(options) else None
    return real_defects(options.defects or own, options.split)


def _kept(output: Output, options: SynthesisOptions, real: TrainingDefects) -> int:
    """Score all pairs and set the worst aside. Returns how many stay."""
    from fast.review.decisions import rejected
    from fast.synthesis.output import OutputFolder

    assert isinstance(output, OutputFolder)  # shards hold all pairs, see `check_options`
    judge(output, real, options.keep, options.count if options.regenerate else None)
    rows, refused = output.rows(), rejected(output.folder)
    print(table(rows, refused), flush=True)
    return sum(not row.get("rejected") and row["index"] not in refused for row in rows)


def fill(
    output: Output,
    job: SynthesisJob,
    options: SynthesisOptions,
    share: Sequence[int],
    pairs_of: Callable[[Sequence[int]], Iterator[Pair]],
    more: Callable[[Pair], dict[str, Any]] = lambda pair: {},
) -> tuple[int, bool]:
    """Make what is missing of the pairs with the numbers of `share`, this process's. `pairs_of`: the pairs of numbers;
    `more`: what their records say besides. Returns (pairs in the manifest, stopped early by a signal)."""
    from fast.data.whole import check_images
    from fast.runtime.progress import Progress

    rank = int(os.environ.get("RANK", "0"))
    done = complete(output, share)
    missing = [i for i in share if i not in done]
    check_images({p.normal for p in pairs_of(missing) if p.normal})
    left = len(missing)
    try:
        with (
            stop_on_signal(job.maker) as signals,
            closing(made(output, job, pairs_of(missing), options.batch_size, more)) as making,
            Progress(len(share), "pairs", "pair", initial=len(share) - left, hidden=rank != 0) as progress,
        ):
            for _ in making:
                left -= 1
                progress.update()
    finally:
        total = output.gather()
    return total, bool(signals) and left > 0


def complete(output: Output, share: Sequence[int]) -> set[int]:
    """The numbers of the complete pairs. Of those of `share` damaged files are removed, which is told. Raises
    `UserError`."""
    done = output.done()
    damaged = output.drop_damaged(i for i in share if i in done)
    if not damaged:
        return done
    more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    print(f"{damaged[0]}{more} cut off or no image: what they belong to is made again", flush=True)
    return output.done()


def keep_command(options: SynthesisOptions) -> None:
    """Write the options into the folder, so that pairs of it can be made anew."""
    from fast.data.images import write_bytes
    from fast.synthesis.output import COMMAND

    write_bytes(Path(options.sample_name) / COMMAND, json.dumps(asdict(options), default=str, indent=1).encode())


def made(
    output: Output,
    job: SynthesisJob,
    pairs: Iterator[Pair],
    in_flight: int,
    more: Callable[[Pair], dict[str, Any]] = lambda pair: {},
) -> Generator[int, None, None]:
    """Make pairs and write them; the number of each once it is on the disk. `more`: what its record says besides."""
    from fast.data.index import GOOD
    from fast.runtime.workers import overlapped
    from fast.synthesis.pair import SynthesizedSample, record

    def write(made: SynthesizedSample) -> int:
        index = made.pair.type_index
        kind = job.sources.types[index]
        kind = f"{kind.split('/', 1)[0]}/{GOOD}" if made.pair.counterfeit else kind
        spoken = job.maker.prompt(index if made.prompt_index is None else made.prompt_index)
        entry = record(made, spoken, {"type": kind, **job.common, **more(made.pair)})
        output.write(entry, made)
        return made.pair.index

    with closing(job.maker.make(pairs, in_flight)) as making:
        yield from overlapped(write, making, workers=2, ahead=4)


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
