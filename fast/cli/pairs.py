"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

import os
import sys
from pathlib import Path

from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.cli.synthesis_parts import for_each_part, parts_of
from fast.cli.synthesize import synthesize
from fast.runtime.command import run_cli
from fast.runtime.runner import kind_of, without_runner
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    asked = parse_synthesis(argv)
    parts = parts_of(asked)
    for options in parts.values():
        check_options(options)
    kind = kind_of(asked.runner)
    if kind != "local" and (len(parts) > 1 or asked.shards):
        what = "--shards" if asked.shards else "several --pt_path"
        raise UserError(f"--runner {asked.runner} takes no {what}; leave one of the two out")
    if len(parts) > 1:
        from fast.cli.synthesis_method import check_weights

        for options in parts.values():
            check_weights(options)
    if kind == "ray":
        from fast.cli.synthesis_ray import synthesize_on_ray

        synthesize_on_ray(asked)
    elif kind == "slurm":
        from fast.runtime.on_slurm import submit

        submit("fast.cli.pairs", without_runner(argv), asked, Path(f"{asked.sample_name.rstrip('/')}.slurm"))
    else:
        for_each_part(parts, synthesize, say=os.environ.get("RANK", "0") == "0")


if __name__ == "__main__":
    sys.exit(run_cli(main))
