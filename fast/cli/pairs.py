"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

import sys
from pathlib import Path

from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.cli.synthesize import synthesize
from fast.runtime.command import run_cli
from fast.runtime.runner import kind_of, without_runner


def main(argv: list[str]) -> None:
    options = parse_synthesis(argv)
    check_options(options)
    kind = kind_of(options.runner)
    if kind == "ray":
        from fast.cli.synthesis_ray import synthesize_on_ray

        synthesize_on_ray(options)
    elif kind == "slurm":
        from fast.runtime.on_slurm import submit

        submit("fast.cli.pairs", without_runner(argv), options, Path(f"{options.sample_name.rstrip('/')}.slurm"))
    else:
        synthesize(options)


if __name__ == "__main__":
    sys.exit(run_cli(main))
