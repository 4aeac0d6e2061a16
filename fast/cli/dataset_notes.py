"""What a command says of a dataset that it reads."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fast.runtime.counts import number_of


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
