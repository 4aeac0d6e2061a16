"""Does synthesis help, and whose helps most? From a dataset to tables beside the papers' numbers, or to one answer.

fast-bench --protocol protocols/mini_methods.yaml --dataset parts --out bench    # a table
fast-bench --dataset parts --out bench                                           # does it help?
fast-bench --dataset parts --auto --minutes 30 --out auto                        # what helps most, and a segmenter
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast.cli import bench_auto
from fast.cli.dataset_notes import tell_leaks, tell_left_out, tell_normals
from fast.cli.segment import share_of_real
from fast.generators import FREE, LATENT, METHODS, require_method
from fast.runtime.command import command_line, run_cli
from fast.runtime.flags import add_flags
from fast.runtime.options import Parser
from fast.runtime.project import named
from fast.runtime.runner import NAMES, RunnerOptions, address_of, check_runner, kind_of, without_runner
from fast.segmentation.names import require_name
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.bench.given import Given
    from fast.bench.plan import SweepPlan
    from fast.bench.protocol import Entry, Protocol


def parser() -> Parser:
    # fmt: off
    p = Parser(
        prog="scripts/bench.py", allow_abbrev=False,
        description="Train methods, make pairs, train segmenters on them, test those on real defects, write tables.",
        epilog="With --protocol section.key=value overrides anything of the protocol, e.g. pairs.per_type=100.",
    )
    p.add_argument("--dataset", metavar="FOLDER", help="a dataset with defects and masks (default: the protocol's)")
    p.add_argument("--protocol", metavar="FILE", help="a file of protocols/; without one: does it help?")
    p.add_argument("--out", type=Path, default=Path("bench"), metavar="FOLDER",
                   help="folder of the grid; protocols that share one share what they have in common (default bench)")
    p.add_argument("--category", help="only this category of the dataset")
    p.add_argument("--weights", action="append", default=[], metavar="METHOD=FOLDER",
                   help="a run of this split, instead of training the method")
    p.add_argument("--imagenet", action="append", default=[], metavar="SEGMENTER=FILE",
                   help="initial weights of a segmenter, .safetensors")
    p.add_argument("--base", type=Path, metavar="FILE", help="checkpoint that the methods on a latent base stand on")
    p.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="the tokenizer of that checkpoint")
    p.add_argument("--textures", type=Path, metavar="FOLDER", help="textures for draem and glass (default: drawn)")
    p.add_argument("--inception", type=Path, metavar="FILE", help="network for KID and IS")
    p.add_argument("--lpips", type=Path, metavar="FILE", help="network for IC-LPIPS")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    p.add_argument("--plan", action="store_true", help="only list the cells and which are done")
    p.add_argument("--tables", action="store_true", help="only write tables and figures of what is done")
    helps = p.add_argument_group("without --protocol")
    helps.add_argument("--method", help="what makes the pairs (default: fast)")
    helps.add_argument("--count", type=int, help="pairs of each defect type (default: 100)")
    helps.add_argument("--segmenter", help="default: fpn; quick: a judge that trains in seconds")
    helps.add_argument("--seeds", type=int, help="trainings of each kind (default: 3)")
    helps.add_argument("--steps", type=int, help="optimiser steps of each segmenter (default: 700 for fpn, else 600)")
    helps.add_argument("--size", type=int, help="side in pixels that a segmenter sees (default: 256)")
    helps.add_argument("--precision", choices=("auto", "fp32", "bf16"),
                       help="default: auto, bf16 where the machine computes in it, else fp32, as for fpn on a CPU")
    helps.add_argument("--split", metavar="FILE", help="a file of prepare_data.py (default: a third trains)")
    helps.add_argument("--native", action="store_true",
                       help="images keep their size, of which a segmenter sees windows of --size: large images, small "
                            "defects")
    helps.add_argument("--upright", action="store_true", help="the part must not be turned by large angles")
    helps.add_argument("--looks", action="append", metavar="TYPE=A,B",
                       help="what is drawn for a type, e.g. blowhole=pit,hole, or none; may be given several times")
    helps.add_argument("--real_share", type=lambda text: share_of_real(text) or "merge", metavar="R",
                       help="share of the defects drawn that are real where there are both; or merge: all equally "
                            "often (default: 0.5)")
    # fmt: on
    bench_auto.add_flags(p)
    add_flags(p.add_argument_group("on more than one machine (docs/scale.md)"), RunnerOptions, NAMES)
    return p


def main(argv: list[str]) -> None:
    options, overrides = parser().parse_known_args(argv)
    options.command = f"{command_line('scripts/bench.py')} {shlex.join(argv)}"
    check_options(options, overrides)
    if kind_of(options.runner) == "slurm" and not (options.plan or options.tables):
        from fast.runtime.on_slurm import submit

        asked_for = RunnerOptions(**{name: getattr(options, name) for name in NAMES})
        submit("fast.cli.bench", without_runner(argv), asked_for, options.out / "slurm", numbered=False)
        return
    if options.auto:
        bench_auto.run(options)
        return
    if options.protocol:
        from fast.bench.protocol import load_protocol

        protocol = load_protocol(options.protocol, tuple(overrides))
    else:
        from fast.generators.looks import given_looks

        options.looks = given_looks(options.looks or [])  # refused before what takes long to import
        from fast.bench.answer import protocol_of

        trained = [item.partition("=")[0] for item in options.weights]
        protocol = protocol_of(**asked(options), trained=trained)
    run(options, protocol)


def check_options(options: argparse.Namespace, overrides: list[str]) -> None:
    odd = next((o for o in overrides if o.startswith("-") or "=" not in o), None)
    if odd is not None:
        raise UserError(f"{odd} is not understood{parser().meant(odd.partition('=')[0])}; see --help")
    bench_auto.check_flags(options, parser())
    check_runner(options)
    if options.segmenter is not None:
        require_name(options.segmenter)
    if options.method is not None:
        require_method(options.method)
    if options.auto and overrides:
        raise UserError(f"{overrides[0]} overrides a protocol, which --auto has not; leave it out")
    if options.protocol and (changed := next(iter(asked(options)), None)):
        raise UserError(f"--{changed} is for a run without --protocol; override the protocol, e.g. pairs.per_type=100")
    if not options.protocol and overrides:
        raise UserError(f"{overrides[0]} overrides a protocol; give --protocol FILE")
    if not options.protocol and not options.dataset:
        raise UserError("give --dataset FOLDER, --protocol FILE, or both")
    if options.segmenter == "quick":
        refuse_for_quick(options)
    if options.dataset and Path(options.dataset).resolve() == options.out.resolve():
        raise UserError(f"--out {options.out} is the dataset, which nothing is written into; give another folder")


def refuse_for_quick(options: argparse.Namespace) -> None:
    """UserError for flags that neither the quick judge's training nor the making of pairs takes."""
    if options.steps is not None:
        raise UserError("--steps is not for --segmenter quick, whose training is fixed; leave it out or use fpn")
    if options.size is not None and options.native:
        raise UserError("--size is not for --segmenter quick with --native, which sees whole images; leave it out")
    if options.precision is not None and (options.method or "fast") not in LATENT:
        raise UserError(
            f"--precision is not for --segmenter quick, nor for {options.method}'s pairs; leave it out or use fpn"
        )


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """What is given of the flags for a run without a protocol."""
    helps = ["method", "count", "segmenter", "seeds", "steps", "size", "precision"]
    helps += ["split", "native", "upright", "looks", "real_share"]
    found = {name: getattr(options, name) for name in helps}
    return {name: value for name, value in found.items() if value is not None and value is not False}


def run(options: argparse.Namespace, protocol: Protocol) -> None:
    from dataclasses import replace

    from fast.bench.given import notes
    from fast.bench.grid import alone
    from fast.bench.outcome import write
    from fast.bench.plan import plan

    if options.category:
        protocol = replace(protocol, categories=(options.category,))
    dataset = options.dataset or protocol.dataset
    if not dataset:
        raise UserError(f"{options.protocol} names no dataset; give --dataset FOLDER")
    beside = given(options)
    found = plan(protocol, dataset, options.out, beside)
    for note in notes(protocol, beside):
        print(f"note: {note}", flush=True)
    indexes = [category.index for category in found.categories]
    tell_left_out(dataset, [f for i in indexes for f in i.left_out], [d for i in indexes for d in i.doubts])
    for category in found.categories:
        tell_leaks(dataset, category.leaks, len(category.test))
        tell_normals(dataset, category.whole, category.split)
    kinds = sorted({kind for category in found.categories for kind in category.types})
    if options.protocol:
        tell_drawn(protocol.entries, kinds)
    else:
        tell_looks(options.looks, protocol.entries[-1], kinds)
    if options.plan:
        show(found)
        return
    failed = {} if options.tables else done(options, found)
    first = next((f"{name}: {why}" for name, why in failed.items()), "")
    told = f"{len(failed)} of {len(found.cells)} cells failed, the first, {first}"
    if failed and not any(cell.done for column in found.columns for cell in column.segments.values()):
        raise UserError(told)
    folder = options.out / found.name
    with alone(folder):
        for file in [*write(found, folder), *pages(options, found, folder)]:
            print(file)
    if failed:
        raise UserError(told)


def tell_looks(looks: dict[str, list[str]], entry: Entry, kinds: list[str]) -> None:
    """What the types are drawn as where their names say it and no flag does. UserError for one that is to be drawn and
    is not to be, or cannot."""
    from fast.bench.rows import Row
    from fast.cli.few_rows import notes_of
    from fast.generators.looks import with_looks

    method = entry.method or ""
    row = Row(method, with_looks(method, {"draft": entry.draft}, looks))
    if why := row.cannot_draw(kinds):
        raise UserError(why)
    for note in notes_of([row], kinds):
        print(note, flush=True)


def tell_drawn(entries: Sequence[Entry], kinds: list[str]) -> None:
    """What types are drawn as because of their names, in the entries of a protocol that say nothing of it."""
    from fast.bench.rows import Row
    from fast.cli.few_rows import notes_of

    silent = [entry for entry in entries if entry.method and not any("looks" in text for text in entry.options)]
    rows = [Row(str(entry.method), {"draft": entry.draft}) for entry in silent]
    for note in notes_of(rows, kinds, "method.looks.{name}=[scratch] in an entry's options"):
        print(note, flush=True)


def done(options: argparse.Namespace, found: SweepPlan) -> dict[str, str]:
    """Do the cells, here or on a Ray cluster. Returns those that failed, folder name -> the error's line."""
    from fast.bench.grid import Grid
    from fast.bench.work import work

    def say(line: str) -> None:
        print(line, flush=True)

    if kind_of(options.runner) != "ray":
        return Grid(found.cells, work, say).run()
    from fast.bench.ray_grid import RayGrid
    from fast.runtime.on_ray import GONE, joined

    with joined(address_of(options.runner)) as ray:
        try:
            return RayGrid(found.cells, work, say, ray=ray, most=options.workers, device=options.device).run()
        except (ray.exceptions.RaySystemError, ray.exceptions.LocalRayletDiedError, ConnectionError) as error:
            raise UserError(GONE) from error


def pages(options: argparse.Namespace, found: SweepPlan, folder: Path) -> list[Path]:
    """The pages of a run without a protocol: does it help?"""
    if options.protocol:
        return []
    from fast.bench.answer import write_pages
    from fast.data.images import write_bytes

    written = []
    for name, html in write_pages(found, options.command):
        written.append(folder / name)
        write_bytes(written[-1], html.encode(errors="backslashreplace"))
    return written


def given(options: argparse.Namespace) -> Given:
    """Raises `UserError` for a name that stands for nothing."""
    from fast.bench.given import Given
    from fast.segmentation import SEGMENTERS

    networks = {name: getattr(options, name) for name in ("inception", "lpips") if getattr(options, name)}
    for path in [*networks.values(), options.textures, options.base, options.tokenizer]:
        if path is not None and not path.exists():
            raise UserError(f"{path} does not exist; check the path")
    learning = [name for name in METHODS if name not in FREE]
    return Given(
        weights=_named("--weights", options.weights, learning),
        imagenet=_named("--imagenet", options.imagenet, list(SEGMENTERS)),
        base=options.base,
        tokenizer=options.tokenizer,
        networks=networks,
        textures=options.textures,
        device=options.device,
    )


def _named(flag: str, items: list[str], allowed: list[str]) -> dict[str, Path]:
    found = {}
    for item in items:
        name, _, given = item.partition("=")
        path = str(named(given))
        if name not in allowed or not Path(path).exists() or not path:
            what = f"{path or 'a path'} does not exist" if name in allowed else f"use one of {', '.join(allowed)}"
            raise UserError(f"{flag} {item}: {what}; write {flag} {allowed[0]}=PATH")
        found[name] = Path(path)
    return found


def show(found: SweepPlan) -> None:
    cells = found.cells
    for cell in cells:
        print(f"{'done' if cell.done else 'open'}  {cell.kind:8} {cell.folder}")
    print(f"{sum(cell.done for cell in cells)} of {len(cells)} cells are done")


if __name__ == "__main__":
    sys.exit(run_cli(main))
