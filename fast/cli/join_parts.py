"""Make a file whole again that was written in parts: `%(prog)s parts/base.safetensors.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fast.runtime.options import Parser


def main(argv: Sequence[str]) -> None:
    parser = Parser(prog="scripts/join_parts.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("about", nargs="+", type=Path, metavar="NAME.json", help="what lies beside the parts of a file")
    parser.add_argument("--out", type=Path, help="folder of the whole files (default: the one above the parts)")
    args = parser.parse_args(argv)

    from fast.pretraining.parts import join_file

    for about in args.about:
        print(join_file(about, args.out or about.absolute().parent.parent))
