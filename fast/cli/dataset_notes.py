"""What a command says of a dataset that it reads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fast.data.alike import Alike, find_alike, leak_of
from fast.data.index import Sample, relative_to
from fast.runtime.counts import number_of

REMEDY = "--alike FILE draws them, --join_alike keeps each on one side of a new split"


def tell_left_out(place: str | Path, files: Sequence[str], doubts: Sequence[str] = ()) -> None:
    """The `doubts` of the dataset at `place`, a line each, then how many of its `files` are left out because nothing
    can be made of them, and the first. Says nothing where there are none. `files`: `DatasetIndex.left_out`, relative to
    it; `doubts`: `DatasetIndex.doubts`."""
    for doubt in doubts:
        print(f"note: in {place} {doubt}", flush=True)
    if not files:
        return
    told = number_of(len(files), "bad file is", "bad files are")
    which = f", {files[0]}" if len(files) == 1 else f", {files[0]} the first"
    command = f"scripts/prepare_data.py {shlex.quote(str(place))}"
    print(f"note: of {place} {told} left out{which}; {command} lists what is wrong", flush=True)


def tell_leak(place: str | Path, train: Sequence[Sample], test: Sequence[Sample]) -> None:
    """How many pictures to test on show a part that is trained on, as far as pictures tell, and what to do."""
    leak = leak_of(train, test)
    if leak is None:
        return
    of = f"of {len(test)} pictures to test on"
    told = number_of(len(leak.seen), f"{of} shows a part", f"{of} show parts")
    a, b = (relative_to(s.image, Path(place)) for s in (leak.why.first, leak.why.second))
    same = leak.why.first.group == leak.why.second.group
    why = f"{a} and {b}, by groups.csv or their names" if same else f"{a} and {b} look alike"
    print(
        f"note: in {place} {told} that are trained on, too ({why}), so that scores come out too good; {_remedy(place)}",
        flush=True,
    )


def tell_alike(place: str | Path, samples: Sequence[Sample]) -> None:
    """How many parts of those that are divided further look like another."""
    if pairs := find_alike(samples):
        print(f"note: in {place} {alike_note(pairs, Path(place))}; {_remedy(place)}", flush=True)


def alike_note(pairs: Sequence[Alike], root: Path) -> str:
    """What was found by `find_alike`, and what it means for a split."""
    parts = len({s.group for pair in pairs for s in (pair.first, pair.second)})
    a, b = (relative_to(s.image, root) for s in (pairs[0].first, pairs[0].second))
    return (
        f"{parts} parts look like another of them ({a} and {b} most, correlation {pairs[0].correlation:.2f}), so that "
        "a split may train on a part and test on it"
    )


def _remedy(place: str | Path) -> str:
    return f"of scripts/prepare_data.py {shlex.quote(str(place))} {REMEDY}"
