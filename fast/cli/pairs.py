"""Synthesize image-mask pairs: the command behind `generate_with_mask.py`."""

import os
import sys
from pathlib import Path

from fast.cli.synthesis_names import check_names
from fast.cli.synthesis_options import check_options, parse_synthesis
from fast.cli.synthesis_parts import for_each_part, parts_of
from fast.cli.synthesize import synthesize
from fast.runtime.command import run_cli
from fast.runtime.flags import flag_of
from fast.runtime.project import in_project
from fast.runtime.runner import kind_of, without_runner
from fast.synthesis.options import SynthesisOptions
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    asked, named = parse_synthesis(argv)
    parts = parts_of(asked)
    for options in parts.values():
        check_options(options, named)
        check_names(options)
    kind = kind_of(asked.runner)
    if kind != "ray":  # whose machines may see folders that this one does not
        for options in parts.values():
            check_inputs(options)
    if kind != "local" and len(parts) > 1:
        raise UserError(f"--runner {asked.runner} takes no several --pt_path; leave one of the two out")
    if len(parts) > 1:
        from fast.cli.synthesis_method import check_weights

        for options in parts.values():
            check_weights(options)
    if kind == "ray":
        from fast.cli.synthesis_ray import synthesize_on_ray

        synthesize_on_ray(asked)
    elif kind == "slurm":
        from fast.runtime.on_slurm import submit

        submit("fast.cli.pairs", without_runner(argv), asked, _logs(asked.sample_name))
    else:
        for_each_part(parts, synthesize, say=os.environ.get("RANK", "0") == "0")


def check_inputs(options: SynthesisOptions) -> None:
    """Raise `UserError` for a folder that is not there: said before torch is imported, or a job waits in a queue."""
    for name in ("data_root", "mask_path", "defects", "mask_weights"):
        place = getattr(options, name)
        if place and not in_project(Path(place).expanduser()).exists():
            raise UserError(f"{flag_of(options, name)} {place} is not there; check the path")


def _logs(sample_name: str) -> Path:
    """Where jobs write what they say: beside the output, or here where that is a URL."""
    name = sample_name.rstrip("/")
    return Path(f"{name.rpartition('/')[2] if '://' in name else name}.slurm")


if __name__ == "__main__":
    sys.exit(run_cli(main))
