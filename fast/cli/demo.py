"""What the shipped base does for parts it never saw: words and masks to pairs, and what the pairs are worth.

Draws surfaces that were kept out of all training, fills masks in them, trains a small segmenter without and with these
pairs, tests both on defects that nobody used, and writes report.html. Everything lies in one folder and is kept: a
second run goes on where the first stopped. Start over with `make clean`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from fast.bench.demo.case import Plan, draw
from fast.bench.demo.page import report
from fast.bench.demo.record import times
from fast.bench.demo.work import segment, synthesize
from fast.data.images import write_bytes
from fast.procedural.dataset import VERSION
from fast.reports.report import duration
from fast.runtime.folders import held
from fast.runtime.options import Parser
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    p = Parser(prog="scripts/demo.py", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    p.add_argument("--pt_path", default="models/mini", help="weights that serve any words (default: models/mini)")
    p.add_argument("--pairs", type=int, default=Plan.pairs, help="pairs of each type on each material (default 3)")
    p.add_argument("--steps", type=int, default=Plan.steps, help="steps of each segmenter's training (default 900)")
    options = p.parse_args(argv)
    for name in ("pairs", "steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    run(Plan(pairs=options.pairs, steps=options.steps), options.out, options.pt_path)


def run(plan: Plan, out: Path, weights: str) -> Path:
    """All stages, or what is left of them. Returns the report's path. Raises `UserError`."""
    claim(plan, out, weights)
    draw(plan, out)
    for material in plan.materials:
        synthesize(plan, out, material, weights)
    segment(plan, out)
    page = report(plan, out)
    total = duration(sum(times(out).values()))
    print(f"\nfinished, {total} of work in all; open {page.resolve()}", flush=True)
    return page


def claim(plan: Plan, out: Path, weights: str) -> None:
    """Make `out` this run's own. Raises `UserError` where it holds something else or there are no weights."""
    from fast.artifact import find_artifact

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
