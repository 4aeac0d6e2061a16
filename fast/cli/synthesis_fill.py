"""Pairs into a folder or shards: what is missing is made and written, and a signal stops it between two pairs."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fast.runtime.signals import handled_by
from fast.synthesis.options import SynthesisOptions

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


def output_of(options: SynthesisOptions, settings: dict[str, Any], rank: int) -> Output:
    """Where the pairs go. Raises `UserError`."""
    if options.shards:
        from fast.synthesis.shards import ShardFolder

        return ShardFolder(options.sample_name, settings, options.shards)
    from fast.synthesis.output import OutputFolder

    return OutputFolder(options.sample_name, settings, rank, options.extend)


def keep_command(options: SynthesisOptions) -> None:
    """Write the options into the folder, so that pairs of it can be made anew."""
    from fast.data.images import write_bytes
    from fast.synthesis.output import COMMAND

    write_bytes(Path(options.sample_name) / COMMAND, json.dumps(asdict(options), default=str, indent=1).encode())


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
