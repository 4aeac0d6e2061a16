"""How many real defects are synthetic pairs worth? Scores of a segmenter with 0, 3, 5, 10 and all real defects of
each type of the training side, alone and with the pairs of each method; the test side is tested on and nothing else.
With --nested the test side is left alone: choices are made on splits inside the training side. The quick judge takes
seconds a row, a network such as fpn minutes; what helps one need not help the other.

%(prog)s --dataset parts --split parts.split.json --out few
%(prog)s --dataset parts --split parts.split.json --out nested --nested 5 --counts all \\
    --row feather=transplant,blend=feather --folder fast=samples/{seed} --mix half=feather:fast
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast.cli.segment import STEPS, share_of_real
from fast.runtime.options import Parser
from fast.segmentation.names import require_name
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.bench.trial import Judge
    from fast.data.index import DatasetIndex
    from fast.data.split import Split


COUNTS = "0,3,5,10,all"


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/few_defects.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dataset", required=True, metavar="FOLDER", help="a dataset with masks")
    p.add_argument("--split", default="third", help="third, or a file of prepare_data.py (default: third)")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="for rows.json, table.md and features")
    p.add_argument("--nested", type=int, metavar="N",
                   help="measure on N splits inside the training side; the test side is not looked at")
    p.add_argument("--write_splits", type=Path, metavar="FOLDER",
                   help="write the nested splits as 0.json, 1.json, ... for main.py --split, and end; with --counts "
                        "those that train on so many defects of each type, as COUNT-SEED.json")
    p.add_argument("--counts", help=f"real defects of each type (default: {COUNTS})")
    p.add_argument("--seeds", type=int, nargs="+",
                   help="choices and trainings; with --nested numbers of its splits (default: 0 1 2, or all of those)")
    p.add_argument("--methods", nargs="*", default=["procedural", "transplant"], metavar="NAME",
                   help="methods that need no training (default: procedural transplant)")
    p.add_argument("--at_all", nargs="*", default=[], metavar="LABEL",
                   help="rows that are measured beside all real defects alone")
    p.add_argument("--folder", action="append", default=[], metavar="LABEL=FOLDER",
                   help="a row of finished pairs (generate_with_mask.py), {seed} the nested split's number; may be "
                        "given several times")
    p.add_argument("--row", action="append", default=[], metavar="LABEL=METHOD[,KEY=VALUE...]",
                   help="a row of a method with options, e.g. feather=transplant,blend=feather or "
                        "fast=fast,weights=logs/{seed},masks=given,counterfeits=0.5, options of what makes its drafts "
                        "as draft_options.NAME=VALUE; {count} stands for how many real defects of each type there "
                        "are; may be given several times")
    p.add_argument("--mix", action="append", default=[], metavar="LABEL=A:B",
                   help="a row of half of the pairs of each of two rows; may be given several times")
    p.add_argument("--looks", action="append", default=[], metavar="TYPE=A,B",
                   help="what is drawn for a type, e.g. blowhole=pit,hole, or none; may be given several times")
    p.add_argument("--pairs", type=int, default=60,
                   help="of each type; of finished ones the first so many (default: 60)")
    p.add_argument("--normals", type=float, default=0.0, metavar="R",
                   help="share of what every row is trained on that are normal images, which pairs stand on and real "
                        "defects alone do not show; bench.py takes 0.3 (default: 0)")
    p.add_argument("--real_share", type=share_of_real, default=0.5, metavar="R",
                   help="share of the defects drawn that are real in rows with pairs; or merge: all equally often "
                        "(default: 0.5)")
    p.add_argument("--draw", choices=("parts", "images"), default="parts",
                   help="of the real defects: every type, and of it every physical part, equally often, or every image "
                        "(default: parts)")
    p.add_argument("--segmenter", default="quick",
                   help="what is trained on each row: quick, a pixel classifier on frozen features, or a network of "
                        "segment.py, such as fpn (default: quick)")
    p.add_argument("--steps", type=int, help=f"with a network: optimiser steps (default: {STEPS})")
    p.add_argument("--prior", choices=("real", "drawn"),
                   help="with a network: how common defect pixels are taken to be, as in the real pictures with a "
                        "defect, or as in what training draws (a network's default: real)")
    p.add_argument("--size", type=int, default=256, help="side that images are resized to (default: 256)")
    p.add_argument("--native", action="store_true",
                   help="images keep their size: large images, small defects; a network sees windows of --size")
    p.add_argument("--upright", action="store_true", help="the part must not be turned by large angles")
    # fmt: on
    return p


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    _check(options)
    from fast.cli.few_rows import notes_of, rows_of

    counts = tuple(_count(text) for text in (COUNTS if options.counts is None else options.counts).split(","))
    rows = rows_of(options)

    from fast.bench.few import Few, Shares, measure
    from fast.bench.few_table import report
    from fast.data.images import write_bytes

    if options.real_share != Shares.real_share and not rows:
        share = options.real_share or "merge"
        raise UserError(f"--real_share {share} is of rows with pairs, and there are none; add --methods or --row")
    judge, judged = judge_of(options)
    index, split = opened(options)
    seeds = tuple(options.seeds or (range(options.nested) if options.nested else (0, 1, 2)))
    if options.write_splits:
        for file in written(options, counts, seeds, index, split):
            print(file)
        return
    for note in notes_of(rows.values(), [f"{category}/{anomaly}" for category, anomaly in index.types]):
        print(note, flush=True)
    shares = Shares(options.normals, options.draw, options.real_share)
    nested = options.nested is not None
    few = Few(counts, seeds, rows, options.pairs, tuple(options.at_all), nested, shares, judged)
    found = measure(index, split, few, judge, options.out / "rows.json", report=lambda line: print(line, flush=True))
    write_bytes(options.out / "table.md", report(found).encode())
    print(report(found))


def written(
    options: argparse.Namespace, counts: Sequence[int | None], seeds: Sequence[int], index: DatasetIndex, split: Split
) -> list[Path]:
    """The splits of --write_splits. Raises `UserError`."""
    from fast.bench.few import save_few
    from fast.bench.nested import save_nested

    if options.counts is None:
        return save_nested(index, split, options.nested, options.write_splits)
    some = [count for count in counts if count]
    return save_few(index, split, some, seeds, options.write_splits, options.nested is not None)


def judge_of(options: argparse.Namespace) -> tuple[Judge, dict[str, Any]]:
    """What is trained on each row, and what decides its figures as plain data. Raises `UserError`."""
    from fast.bench.trial import NetworkJudge
    from fast.runtime.device import pick_device
    from fast.segmentation.networks import precision_of
    from fast.segmentation.quick import QuickJudge

    augment = "upright" if options.upright else "classical"
    device = pick_device("auto", "").type
    if options.segmenter == "quick":
        cache = None if options.out is None else options.out / "features"
        judge = QuickJudge(None if options.native else options.size, augment, cache=cache, device=device)
        return judge, judge.settings()
    training = {"steps": STEPS if options.steps is None else options.steps, "augment": augment}
    if options.prior != "drawn":  # which goes unsaid, as all was before there was anything else
        training["prior"] = "real"
    seen = {"size": options.size, "native": options.native}
    where = {"device": device, "bf16": precision_of(options.segmenter, "auto", device) == "bf16"}
    network = NetworkJudge(options.segmenter, training, {**seen, **where})
    return network, {"segmenter": options.segmenter, **training, **seen, **where}


def opened(options: argparse.Namespace) -> tuple[DatasetIndex, Split]:
    """The dataset and its split; with --nested and a split file no picture of the test side is opened."""
    from dataclasses import replace

    from fast.bench.nested import usable_training_side
    from fast.cli.dataset_notes import tell_alike, tell_leak, tell_left_out, tell_normals
    from fast.data.layouts import check, open_dataset
    from fast.data.split import Split, make_split

    given = None if options.split == "third" else Split.load(options.split)  # refused before an image is read
    found = open_dataset(options.dataset)
    if given is None or not options.nested:
        index = check(found).usable
        tell_left_out(options.dataset, index.left_out, index.doubts)
        split = make_split(index) if given is None else given
        train, test = split.apply(index)
        tell_normals(options.dataset, index, split)
        if options.nested:
            tell_alike(options.dataset, train)
        else:
            tell_leak(options.dataset, train, test)
        return index, split
    usable = usable_training_side(found, given)
    tell_left_out(options.dataset, usable.left_out, usable.doubts)
    tell_normals(options.dataset, found, given)
    tell_alike(options.dataset, usable.defects)
    _, test = given.apply(found)
    return replace(usable, defects=[*usable.defects, *test]), given


def _check(options: argparse.Namespace) -> None:
    require_name(options.segmenter)
    if options.nested is not None and not 1 <= options.nested <= 100:
        raise UserError(f"--nested {options.nested} lies outside 1..100; change it")
    for name, value, least in (
        ("seeds", min(options.seeds or [0]), 0), ("pairs", options.pairs, 1), ("size", options.size, 16)
    ):  # fmt: skip
        if not least <= value <= 65535:
            raise UserError(f"--{name} {value} lies outside {least}..65535; change it")
    if not 0 <= options.normals < 1:
        raise UserError(f"--normals {options.normals:g} lies outside 0..1; change it")
    if options.steps is not None and (options.segmenter == "quick" or options.steps < 1):
        why = "is below 1; raise it" if options.steps < 1 else "is for networks; add --segmenter fpn"
        raise UserError(f"--steps {options.steps} {why}")
    if options.prior is not None and options.segmenter == "quick":
        raise UserError(f"--prior {options.prior} is for networks; add --segmenter fpn, or leave it out, as quick "
                        "chooses its threshold itself")  # fmt: skip
    if options.write_splits and (idle := _measures(options)):
        raise UserError(f"--write_splits {options.write_splits} writes splits and measures nothing; leave out {idle}")
    if options.write_splits and options.counts is None and options.seeds:
        raise UserError(f"--seeds {options.seeds[0]}: they choose a few real defects, whose splits are written with "
                        "--counts; give that, or leave them out")  # fmt: skip
    if options.write_splits and options.counts is not None and not re.search("[1-9]", options.counts):
        raise UserError(f"--counts {options.counts} names no number of real defects to write splits of; give some")
    if options.write_splits and not options.nested and options.counts is None:
        raise UserError(f"--write_splits {options.write_splits} writes nested splits, or those of a few real defects; "
                        "say how many with --nested N, or with --counts")  # fmt: skip
    if not options.write_splits and not options.out:
        raise UserError("--out is missing; give a folder for the table")
    for flag, place in (("--out", options.out), ("--write_splits", options.write_splits)):
        if place and place.resolve() == Path(options.dataset).resolve():
            raise UserError(f"{flag} {place} is the dataset, which nothing is written into; give another folder")
    if options.nested and options.seeds and max(options.seeds) >= options.nested:
        raise UserError(f"--seeds {max(options.seeds)} is no number of the {options.nested} nested splits; they are "
                        f"0..{options.nested - 1}")  # fmt: skip


def _measures(options: argparse.Namespace) -> str:
    """The first flag that decides how rows are measured, as it was given; empty where there is none."""
    plain = parser()
    for name in ("normals", "real_share", "draw", "segmenter", "steps", "native", "upright"):
        value = getattr(options, name)
        if value != plain.get_default(name):
            return f"--{name}" if value is True else f"--{name} {'merge' if value is None else value}"
    return ""


def _count(text: str) -> int | None:
    if text.strip() == "all":
        return None
    if not text.strip().isdigit():
        raise UserError(f"--counts {text} is no number of defects; write numbers from 0 and all, as in 0,5,all")
    return int(text)


def main(argv: list[str]) -> None:
    run(parser().parse_args(argv))
