"""Synthesize image-mask pairs: `python generate_with_mask.py --data_root ... --mask_path ... --pt_path ...`."""

import sys

from fast.runtime.signals import listen

listen(__name__)

from fast.cli.synthesis_options import check_options, parse_synthesis  # noqa: E402
from fast.cli.synthesize import synthesize  # noqa: E402
from fast.runtime.command import open_door  # noqa: E402


def main(argv: list[str]) -> None:
    options = parse_synthesis(argv)
    check_options(options)
    synthesize(options)


if __name__ == "__main__":
    sys.exit(open_door(main))
