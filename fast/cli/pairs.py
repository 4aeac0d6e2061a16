"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

from fast.cli.synthesize import check_options, parse_synthesis, synthesize


def main(argv: list[str]) -> None:
    options = parse_synthesis(argv)
    check_options(options)
    synthesize(options)
