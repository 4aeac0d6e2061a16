"""All stages of the demo, in one folder that keeps what is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fast.artifact import find_artifact
from fast.bench.demo.case import DemoPlan, draw
from fast.bench.demo.page import report
from fast.bench.demo.record import times
from fast.bench.demo.work import segment, synthesize
from fast.data.images import write_bytes
from fast.procedural.dataset import VERSION
from fast.reports.report import duration
from fast.runtime.folders import held
from fast.synthesis.options import SynthesisOptions
from ldm.errors import UserError


def run(plan: DemoPlan, out: Path, weights: str, fill: Callable[[SynthesisOptions], object]) -> Path:
    """All stages, or what is left of them. `fill`: the synthesis command, which takes its options. Returns the report's
    path. Raises `UserError`."""
    claim(plan, out, weights)
    draw(plan, out)
    for material in plan.materials:
        synthesize(plan, out, material, weights, fill)
    segment(plan, out)
    page = report(plan, out)
    total = duration(sum(times(out).values()))
    print(f"\nfinished, {total} of work in all; open {page.resolve()}", flush=True)
    return page


def claim(plan: DemoPlan, out: Path, weights: str) -> None:
    """Make `out` this run's own. Raises `UserError` where it holds something else or there are no weights."""
    artifact = find_artifact(weights)
    digest = hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    settings = json.dumps({**asdict(plan), "weights": digest, "drawing": VERSION}, indent=1)
    mark = out / "settings.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder")
    if mark.is_file() and mark.read_text(encoding="utf-8") != settings:
        raise UserError(f"{out} holds a run with other settings or weights; start over with make clean, or use --out")
    if not mark.is_file() and held(out):
        raise UserError(f"{out} holds other files; start over with make clean, or use --out")
    write_bytes(mark, settings.encode())
