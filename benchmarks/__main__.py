"""Measure, print the tables and write them into a page: `python -m benchmarks`."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import best_device, describe
from benchmarks.network import RECIPES, trained_side
from benchmarks.report import write_parts
from benchmarks.runner import PROJECT, Result, Setting, run_all
from benchmarks.sections import SECTIONS, pairs, unet
from benchmarks.sections.section import paragraphs
from fast.runtime.command import run_cli
from fast.runtime.device import no_gpu
from fast.runtime.options import Parser
from fast.runtime.workers import cores
from ldm.errors import UserError

PAGE = PROJECT / "docs" / "performance.md"
ORDER = ["machine", "ratios", *SECTIONS]


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    # fmt: off
    p.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)} (default: all)")
    p.add_argument("--device", default=best_device(), choices=["cpu", "cuda"], help="default: a GPU if there is one")
    p.add_argument("--size", default="full", choices=list(RECIPES), help="of the networks (default full)")
    p.add_argument("--repeat", type=int, default=2, help="rounds of the short cases, the best counts (default 2)")
    p.add_argument("--out", type=Path, default=None, metavar="FILE",
                   help="page whose measured parts are renewed (default with --size full: docs/performance.md)")
    p.add_argument("--results", type=Path, default=None, metavar="FILE",
                   help="keep the figures here; what it holds already is not measured again")
    # fmt: on
    return p


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    wanted = options.only.split(",")
    unknown = sorted(set(wanted) - set(SECTIONS))
    if unknown:
        raise UserError(f"--only {','.join(unknown)} is unknown; use some of {','.join(SECTIONS)}")
    if options.repeat < 1:
        raise UserError(f"--repeat {options.repeat} must be at least 1")
    if options.device == "cuda" and best_device() != "cuda":
        raise no_gpu("--device ", "cuda")
    setting = Setting(options.device, options.size, cores(), trained_side(options.size))
    known = _read(options.results)
    jobs = {name: SECTIONS[name].jobs(setting) for name in wanted}
    run_all([job for own in jobs.values() for job in own.values()], options.repeat, known, options.results)
    results = {name: {label: known[job.key] for label, job in own.items()} for name, own in jobs.items()}
    parts = report(results, setting, options.repeat)
    print("\n\n".join(parts.values()))
    page = options.out or (PAGE if options.size == "full" else None)
    if page:
        write_parts(page, {f"{options.device}/{name}": text for name, text in parts.items()}, ORDER)
        print(f"\nwritten: {page}", file=sys.stderr)


def report(results: Mapping[str, Mapping[str, Result]], setting: Setting, rounds: int) -> dict[str, str]:
    """The page's parts by name. The ratios come first, if what they need was measured."""
    command = f"python -m benchmarks --device {setting.device} --repeat {rounds}"
    command += f" --size {setting.size}" if setting.size != "full" else ""
    where = {"cpu": "On a CPU", "cuda": "On a GPU"}[setting.device]
    parts = {
        "machine": f"### {where}\n\n{describe(setting.device)}.\n\n`{command}`; the best of {rounds} rounds, "
        "in which the cases take turns; pairs, windows and the profile once."
    }
    firsts = [unet.ratios(results["unet"])] if "unet" in results else []
    if "pairs" in results:
        firsts.append(pairs.summary(results["pairs"], setting))
    if firsts:
        parts["ratios"] = paragraphs(*firsts)
    return parts | {name: SECTIONS[name].text(own, setting) for name, own in results.items()}


def _read(path: Path | None) -> dict[str, Result]:
    if path is None or not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise UserError(f"--results {path} is damaged; remove it or give another file") from None


if __name__ == "__main__":
    sys.exit(run_cli(main))
