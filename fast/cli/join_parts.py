"""Make a file whole again that was written in parts: `python scripts/join_parts.py parts/base.safetensors.json`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# Lets the script run from a checkout that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.runtime.signals import listen

listen(__name__)

from fast.runtime.command import open_door  # noqa: E402
from fast.runtime.options import Parser  # noqa: E402


def main(argv: Sequence[str]) -> None:
    parser = Parser(prog="join_parts.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("about", nargs="+", type=Path, metavar="NAME.json", help="what lies beside the parts of a file")
    parser.add_argument("--out", type=Path, help="folder of the whole files (default: the one above the parts)")
    args = parser.parse_args(argv)

    from fast.pretraining.parts import join_file

    for about in args.about:
        print(join_file(about, args.out or about.absolute().parent.parent))


if __name__ == "__main__":
    sys.exit(open_door(main))
