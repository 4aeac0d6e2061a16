"""The synthesis command: its options to a filled output folder."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from fast.cli.score import TrainingDefects, judge, real_defects, table
from fast.cli.synthesis_fill import Output, fill, keep_command, output_of
from fast.cli.synthesis_options import counterfeits
from fast.runtime.counts import number_of
from fast.synthesis.options import SynthesisOptions, transplants
from ldm.errors import UserError

ROUNDS = 5  # of pairs made for others that show nothing

if TYPE_CHECKING:  # heavy: imported only once the flags are understood
    from fast.cli.synthesis_job import SynthesisJob
    from fast.synthesis.pair import Pair


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

    again = made_again(rows, options.shards is not None)
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
        drafts = Counter((row["type"], row["draft_by"]) for row in shown if "draft_by" in row)
        if drafts:
            told = ", ".join(
                f"{kind.lstrip('/')} {drafts[kind, 'transplant']} real and {drafts[kind, 'procedural']} drawn"
                for kind in dict.fromkeys(kind for kind, _ in sorted(drafts))
            )
            print(f"drafts: {told}", flush=True)
    if first and options.keep is None and pairs > options.count:
        print(f"note: {options.count} were asked for; the others were there before, and stay", flush=True)


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


def _pairs(job: SynthesisJob, options: SynthesisOptions, numbers: Sequence[int]) -> Iterator[Pair]:
    """The pairs of these numbers one after another: a million at once would be a gigabyte."""
    return (job.sources.pair(i, options.seed) for i in numbers)
