"""Synthesize image-mask pairs: `python generate_with_mask.py --data_root ... --mask_path ... --pt_path ...`."""

import sys

from fast.door import open_door
from fast.synthesis_door import check_options, parse_synthesis, synthesize


def main(argv: list[str]) -> None:
    options = parse_synthesis(argv)
    check_options(options)
    synthesize(options)


if __name__ == "__main__":
    sys.exit(open_door(main))
