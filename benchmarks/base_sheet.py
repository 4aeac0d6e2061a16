"""A sheet to judge a base by eye: a row for each type with the normal picture, the mask, the true drawn defect and what
the base makes in its place.

%(prog)s --out sheet.png
%(prog)s --base models/mini --scales 1 2 3 --precision bf16 --out sheet.png
%(prog)s --base none --out true.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fast.procedural.traits import HELD_APART
from fast.runtime.options import Parser
from ldm.errors import UserError

# Materials that a type is shown on where none of those kept apart has it, and for comparison.
OTHERS = ("brushed_metal", "fabric", "painted", "wood", "circuit_board", "leather", "cardboard")


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/base_sheet.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", default="models/mini", metavar="FOLDER",
                   help="the base and its fast-<step>.safetensors; none: true defects alone (default: models/mini)")
    p.add_argument("--out", type=Path, default=Path("base_sheet.png"), metavar="FILE", help="default: base_sheet.png")
    p.add_argument("--materials", nargs="+", default=[*HELD_APART, *OTHERS], metavar="NAME",
                   help="a type is shown on the first ones that have it (default: those kept apart, then others)")
    p.add_argument("--per_type", type=int, default=2, help="rows of a type (default: 2)")
    p.add_argument("--scales", type=float, nargs="+", metavar="S",
                   help="of the guidance, a column each (default: one, that of the weights)")
    p.add_argument("--view", choices=("whole", "near"), default="whole",
                   help="near: the 112 pixels around the middle of the mask (default: whole)")
    p.add_argument("--tile", type=int, default=128, help="side of a tile in pixels (default: 128)")
    p.add_argument("--blocks", type=int, default=3, help="rows side by side (default: 3)")
    p.add_argument("--size", type=int, default=256, help="side of the pictures (default: 256)")
    p.add_argument("--seed", type=int, default=100, help="default: 100, not that of the measured ones")
    p.add_argument("--evaluations", type=int, default=10, help="of the network (default: 10)")
    p.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--workers", type=int, help="threads that synthesize on a CPU (default: its cores)")
    # fmt: on
    return p


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    for name in ("per_type", "tile", "blocks", "evaluations"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out}: give the name of a PNG file")

    from benchmarks.base_scores.sheet import sheet

    print(sheet(options))
