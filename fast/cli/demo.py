"""What the shipped base does for parts it never saw: words and masks to pairs, and what the pairs are worth.

Draws surfaces that were kept out of all training, fills masks in them, trains a small segmenter without and with these
pairs, tests both on defects that nobody used, and writes report.html. Everything lies in one folder and is kept: a
second run goes on where the first stopped. Start over with `make clean`.
"""

from __future__ import annotations

from pathlib import Path

from fast.runtime.options import Parser
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    p = Parser(prog="scripts/demo.py", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    p.add_argument(
        "--pt_path", default="mini", help="weights that serve any words (default: mini, which come with the project)"
    )
    p.add_argument("--pairs", type=int, help="pairs of each type on each material (default 3)")
    p.add_argument("--steps", type=int, help="steps of each segmenter's training (default 900)")
    options = p.parse_args(argv)
    given = {name: value for name in ("pairs", "steps") if (value := getattr(options, name)) is not None}
    for name, value in given.items():
        if value < 1:
            raise UserError(f"--{name} {value} must be at least 1")

    from fast.bench.demo.case import DemoPlan
    from fast.bench.demo.run import run
    from fast.cli.synthesize import synthesize

    run(DemoPlan(**given), options.out, options.pt_path, synthesize)
