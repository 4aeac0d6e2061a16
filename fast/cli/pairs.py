"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

import os
import sys

from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.cli.synthesis_parts import for_each_part, parts_of
from fast.cli.synthesize import synthesize
from fast.runtime.command import run_cli


def main(argv: list[str]) -> None:
    parts = parts_of(parse_synthesis(argv))
    for options in parts.values():
        check_options(options)
    if len(parts) > 1:
        from fast.cli.synthesis_method import check_weights

        for options in parts.values():
            check_weights(options)
    for_each_part(parts, synthesize, say=os.environ.get("RANK", "0") == "0")


if __name__ == "__main__":
    sys.exit(run_cli(main))
