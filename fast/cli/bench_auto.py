"""`scripts/bench.py --auto`: find out what helps, and deliver pairs and a segmenter made so."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fast.runtime.command import command_line
from fast.runtime.folders import sole
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.data.index import DatasetIndex
    from fast.data.split import Split

# Flags of the bench that --auto has too.
TAKEN = (
    "dataset", "out", "category", "count", "steps", "size", "device", "split", "native", "upright", "looks",
    "real_share",
)  # fmt: skip
OWN = ("minutes",)


def add_flags(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    auto = parser.add_argument_group(
        "with --auto (and --split, --native, --upright, --looks, --real_share, and --count, --device, --size and "
        "--steps of the final segmenter)"
    )
    auto.add_argument("--auto", action="store_true",
                      help="try methods and mixtures on splits inside the training side, take what helps most, and "
                           "deliver its pairs and a segmenter as ONNX")
    auto.add_argument("--minutes", type=float, help="for all of it (default: 30)")
    # fmt: on


def check_flags(options: argparse.Namespace, plain: argparse.ArgumentParser) -> None:
    """UserError for flags that do not go together."""
    if not options.auto:
        if name := next((name for name in OWN if getattr(options, name)), None):
            raise UserError(f"--{name} is for --auto; add --auto, or leave it out")
        return
    for name, value in vars(options).items():
        known = name in (*TAKEN, *OWN, "auto", "command")
        if not known and value != plain.get_default(name):
            raise UserError(f"--{name} is not for --auto, which settles it; leave it out")
    if not options.dataset:
        raise UserError("--auto needs a dataset with defects and masks; give --dataset FOLDER")


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    from fast.generators.looks import given_looks, looks_notes

    looks = given_looks(options.looks or [])  # refused before what takes long to import
    from fast.bench.auto import STEPS, Job, Plan, deliver
    from fast.bench.auto_page import page
    from fast.bench.few import Shares
    from fast.bench.foresight import Budget
    from fast.data.images import write_bytes
    from fast.reports.report import render
    from fast.runtime.device import pick_device
    from fast.segmentation.export import require_onnx

    require_onnx()  # before the minutes are spent
    given = {"minutes": options.minutes, "per_type": options.count, "size": options.size, "steps": options.steps}
    share = Shares.real_share if options.real_share is None else options.real_share
    plan = Plan(
        **{"steps": STEPS, **{name: value for name, value in given.items() if value is not None}},
        native=options.native,
        augment="upright" if options.upright else "classical",
        looks=looks,
        device=pick_device(options.device, "--device ").type,
        real_share=None if share == "merge" else share,
    )
    budget = Budget(60 * plan.minutes)
    index, split = opened(options)
    kinds = [f"{category}/{anomaly}" for category, anomaly in index.types]
    for note in looks_notes(kinds, looks, "--looks {name}=scratch,pit"):
        print(note, flush=True)
    with sole(options.out / "report.html", "--out"):  # before the trials of an earlier run are read
        found = deliver(Job(index, split, options.out, plan, budget, lambda line: print(line, flush=True)))
        sheet = shlex.join([str(options.out / "pairs"), "--out", "pairs.png"])
        commands = [("This again; trials that are done are not done again", options.command)]
        if found.final.made:
            commands.append(("Look at more of the pairs", f"{command_line('scripts/contact_sheet.py')} {sheet}"))
        write_bytes(options.out / "report.html", render(page(found, commands)).encode(errors="backslashreplace"))
    print(f"asked for {plan.minutes:g} minutes, taken {(budget.seconds - budget.left) / 60:.1f}")
    print(options.out / "report.html")


def opened(options: argparse.Namespace) -> tuple[DatasetIndex, Split]:
    """The usable part of one category, and its split."""
    from fast.cli.dataset_notes import tell_alike, tell_leak, tell_left_out, tell_normals
    from fast.data.layouts import check, open_dataset, require_defects
    from fast.data.normals import apart
    from fast.data.split import Split, make_split

    given = Split.load(options.split) if options.split else None  # refused before the images are read
    index = check(open_dataset(Path(options.dataset), category=options.category)).usable
    require_defects(index)
    tell_left_out(options.dataset, index.left_out, index.doubts)
    if len(index.categories) > 1:
        raise UserError(f"{options.dataset} holds {', '.join(index.categories)}; choose one with --category")
    split = make_split(index) if given is None else given
    train, test = split.apply(index)  # one of another dataset is told before anything is written
    tell_leak(options.dataset, train, test)
    tell_normals(options.dataset, index, split)
    tell_alike(options.dataset, train)
    return replace(apart(index, split), test_normals=[]), split
