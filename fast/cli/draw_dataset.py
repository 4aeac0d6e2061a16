"""Draw the project's own dataset of surfaces and defects, in MVTec-AD layout."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fast.procedural import DEFECTS, MATERIALS, draw_dataset
from fast.runtime.options import Parser
from fast.runtime.progress import Progress


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="scripts/draw_dataset.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/drawn"), help="folder of the dataset")
    parser.add_argument("--size", type=int, default=256, help="side of a picture in px")
    parser.add_argument("--normals", type=int, default=24, help="flawless training pictures per material")
    parser.add_argument("--test-normals", type=int, default=6, help="flawless test pictures per material")
    parser.add_argument("--defects", type=int, default=6, help="pictures per type of defect")
    parser.add_argument(
        "--types",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"types of defect to draw on every material, any of {', '.join(DEFECTS)}; none: those it can have",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn")
    parser.add_argument("--products", type=int, default=0, help="colourings of a material; 0: each picture its own")
    parser.add_argument(
        "--materials", nargs="+", default=list(MATERIALS), metavar="NAME", help=f"any of {', '.join(MATERIALS)}"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Path:
    """Draw what the arguments ask for, and say how far it is."""
    with Progress(None, "drawing", "picture") as bar:

        def progress(done: int, total: int, path: str) -> None:
            bar.update(done - bar.done, total)

        return draw_dataset(
            args.out,
            materials=tuple(args.materials),
            normals=args.normals,
            test_normals=args.test_normals,
            defects_per_type=args.defects,
            size=args.size,
            seed=args.seed,
            products=args.products,
            defects=tuple(args.types),
            progress=progress,
        )


def main(argv: Sequence[str]) -> None:
    print(run(parse_args(argv)))
