"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

import sys

from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.cli.synthesize import synthesize
from fast.runtime.command import run_cli


def main(argv: list[str]) -> None:
    options = parse_synthesis(argv)
    check_options(options)
    synthesize(options)


if __name__ == "__main__":
    sys.exit(run_cli(main))
