"""What the demo says of itself while it runs, and how long its stages took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fast.data.images import write_bytes


def times(out: Path) -> dict[str, float]:
    """Seconds of work by stage, over all runs in this folder."""
    path = out / "times.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


@contextmanager
def timed(out: Path, stage: str, afresh: bool = False) -> Iterator[None]:
    """Add what is done here to the stage's time, also when it is stopped; `afresh`: forget what there was."""
    start, before = time.perf_counter(), 0.0 if afresh else times(out).get(stage, 0.0)
    try:
        yield
    finally:
        spent = {**times(out), stage: before + time.perf_counter() - start}
        write_bytes(out / "times.json", json.dumps(spent).encode())


def say(line: str) -> None:
    print(f"\n$ {line}" if line.startswith(("python ", "fast-")) else f"\n{line}", flush=True)
