"""What a command says of a dataset that it reads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fast.data.alike import Alike, Leak, find_alike, leaks_of
from fast.data.index import DatasetIndex, Sample, relative_to
from fast.data.normals import normals_notes, normals_of_test
from fast.data.split import Split
from fast.runtime.counts import number_of

REMEDY = (
    "--alike FILE draws them, --join_alike keeps each on one side of a new split, --parts_apart says that they differ"
)


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
    print(f"note: of {place} {told} left out{which}; {_prepare(place)} lists what is wrong", flush=True)


def tell_leak(place: str | Path, train: Sequence[Sample], test: Sequence[Sample]) -> None:
    """How many pictures to test on show a part that is trained on, as lists and pictures have it, and what to do."""
    tell_leaks(place, leaks_of(train, test), len(test))


def tell_leaks(place: str | Path, leaks: Sequence[Leak], tested: int) -> None:
    """The same of `leaks` that are known, among so many pictures to test on."""
    root = Path(place)
    for leak in leaks:
        of = f"of {tested} pictures to test on"
        told = number_of(len(leak.seen), f"{of} shows a part that is", f"{of} show parts that are")
        learned, asked = (relative_to(s.image, root) for s in leak.why)
        why = f"{asked} is listed as a part of {learned}" if leak.listed else f"{asked} looks like {learned}"
        remedy = f"make a new split with {_prepare(place)}" if leak.listed else f"{REMEDY} (of {_prepare(place)})"
        print(f"note: in {place} {told} trained on, too ({why}): scores come out too good; {remedy}", flush=True)


def tell_normals(place: str | Path, index: DatasetIndex, split: Split) -> None:
    """What becomes of the normals of an index that show parts which a split tests on."""
    for note in normals_notes(index, normals_of_test(index, split)):
        print(f"note: in {place} {note}", flush=True)


def tell_alike(place: str | Path, samples: Sequence[Sample]) -> None:
    """How many parts of those that are divided further look like another."""
    if pairs := find_alike(samples).pairs:
        print(f"note: in {place} {alike_note(pairs, Path(place))}; {REMEDY} (of {_prepare(place)})", flush=True)


def alike_note(pairs: Sequence[Alike], root: Path) -> str:
    """What was found by `find_alike`, and what it means for a split."""
    a, b = (relative_to(s.image, root) for s in (pairs[0].first, pairs[0].second))
    parts = len({group for pair in pairs for group in pair.groups})
    return f"{parts} parts look like another of them ({a} and {b} most): a split may train on a part and test on it"


def _prepare(place: str | Path) -> str:
    return f"scripts/prepare_data.py {shlex.quote(str(place))}"
