"""Look at a dataset before anything is trained on it: what it holds, what is wrong with it, and the one split of it.

fast-prepare-data DATASET [--layout auto] [--category C] [--anomaly A] [--out split.json]
fast-prepare-data ANNOTATIONS --import coco --out DATASET

Where files can be meant in two ways, what is said here (--mask_values, --ignore, --line_width, --bits,
--masks_upright, --parts_apart) is kept in the dataset's reading.json, and obeyed by everything that reads the dataset.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fast.cli.prepare_alike import alike_notes, joining, refuse_alike, told_alike
from fast.cli.prepare_import import add_import_flags, import_data, refuse_without_import
from fast.data.alike import find_alike, joined
from fast.data.groups import GroupTables
from fast.data.known import about, known_dataset
from fast.data.layouts import LAYOUTS, DataReport, DatasetIndex, TypeRow, check, open_dataset, require_defects
from fast.data.normals import normals_notes, normals_of_test
from fast.data.reading import NAME, Reading, parse_values, reading_of, trying
from fast.data.split import Split, make_split
from fast.runtime.counts import number_of
from fast.runtime.folders import new_files
from fast.runtime.options import Parser
from fast.runtime.signals import is_first_process
from ldm.errors import UserError

LEFT_OUT = " by training on this split and by the bench, by generate_with_mask.py with --split"
ANSWERS = ("mask_values", "ignore", "line_width", "bits", "masks_upright", "parts_apart")  # kept in reading.json
HEADER = ("category", "type", "images", "masks ok", "width x height", "groups", "train", "test")


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="scripts/prepare_data.py",
        description="Check a dataset and split its defects, whole parts at a time. Bad files are named and left out of "
        "the split, which is written all the same (exit code 0); with --strict they are an error (2). Training and the "
        "bench leave them out too; synthesis stops at a normal image that cannot be read.",
    )
    p.add_argument("path", help="dataset, one category of it, or the folder of one defect type; or what to --import")
    p.add_argument("--layout", default="auto", choices=["auto", *LAYOUTS], help="default: found out by itself")
    p.add_argument("--category", help="only this category")
    p.add_argument("--anomaly", help="only this defect type; its split is not that of all types")
    p.add_argument("--out", help="split file to write (default: split.json); with --import the dataset's new folder")
    p.add_argument("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    p.add_argument("--fraction", type=float, default=1 / 3, help="share of the defects to train on (default: 1/3)")
    # fmt: off
    p.add_argument("--mask_values", metavar="V,V", type=parse_values,
                   help="values of masks that mean defect: grey levels or labels (1,2), colours (#ff0000), opaque or "
                        "transparent; an empty one: found out by itself (default)")
    p.add_argument("--ignore", metavar="V,V", type=parse_values, help="values of masks that mean neither (255)")
    p.add_argument("--line_width", metavar="PX", type=float, help="how wide lines and points of annotations are")
    p.add_argument("--bits", type=int, help="bits in use of 16-bit pictures (default: what their values need)")
    p.add_argument("--masks_upright", action="store_true", default=None,
                   help="masks are drawn on the images as EXIF turns them; asked where the size cannot tell")
    p.add_argument("--alike", metavar="FILE",
                   help="draw the pictures of different parts that look like one part, side by side")
    p.add_argument("--join_alike", action="store_true", default=None,
                   help="write in groups.csv that parts which look alike are one, so that a split keeps them together")
    p.add_argument("--parts_apart", action="store_true", default=None,
                   help="parts which look alike are different ones all the same; they are not told again")
    # fmt: on
    p.add_argument("--force", action="store_true", help="overwrite a split file that differs")
    p.add_argument("--strict", action="store_true", help="write no split, and end with an error, if a file is bad")
    add_import_flags(p)
    return p


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; numbers (columns 2 and on) to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return " | ".join(cells).rstrip()

    return "\n".join([line(rows[0]), "-+-".join("-" * w for w in widths), *map(line, rows[1:])])


def cells(row: TypeRow, train: int, test: int, defect: bool) -> list[str]:
    def span(side: tuple[int, int]) -> str:
        return str(side[0]) if side[0] == side[1] else f"{side[0]}-{side[1]}"

    size = f"{span(row.width)} x {span(row.height)}"
    only = [str(row.masks_ok), str(train), str(test)] if defect else ["-", "-", "-"]
    return [row.category, row.anomaly, str(row.images), only[0], size, str(row.groups), *only[1:]]


def render(index: DatasetIndex, report: DataReport, split: Split | None) -> str:
    """The table; train and test count images of the split."""
    sides: Counter[tuple[str, str, str]] = Counter()
    if split is not None:
        for name, samples in zip(("train", "test"), split.apply(report.usable), strict=True):
            sides.update((s.category, s.anomaly, name) for s in samples)
    kinds = {(s.category, s.anomaly) for s in [*index.defects, *index.excluded]}
    lines: list[Sequence[str]] = [HEADER]
    for row in report.rows:
        kind = (row.category, row.anomaly)
        lines.append(cells(row, sides[(*kind, "train")], sides[(*kind, "test")], kind in kinds))
    return table(lines)


def refuse_other(split: Split, out: Path, force: bool) -> None:
    """UserError where a different split stands: results made with that one could not be compared."""
    if not out.exists() or force:
        return
    try:
        old = Split.load(out).hash
    except UserError as error:
        raise UserError(f"{error}; or overwrite it with --force") from error
    if old != split.hash:
        raise UserError(
            f"{out}: holds another split ({old[:12]}, this one is {split.hash[:12]}); "
            "choose another --out, or overwrite it with --force"
        )


def said(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say about reading the files."""
    return {name: value for name in ANSWERS if (value := getattr(args, name)) is not None}


def none_usable(args: argparse.Namespace, report: DataReport, new: bool) -> None:
    """UserError, with the reasons, of a dataset without any defect that can be used. `new`: the flags say something
    that is not kept yet, nor will be."""
    try:
        require_defects(report.usable)
    except UserError as error:
        more = f"; nothing is kept of {', '.join(f'--{name}' for name in said(args))}: answer all that is asked at once"
        raise UserError(f"{error}{more if new else ''}") from None


def normal_notes(index: DatasetIndex, usable: DatasetIndex) -> list[str]:
    """What synthesis will say of the normal images: that it stops at bad ones, and that some are needed."""
    notes, good = [], set(usable.normals)
    if bad := [s.image for s in index.normals if s not in good]:
        told = number_of(len(bad), "normal image", "normal images")
        which = index.relative(bad[0]) + (" the first" if len(bad) > 1 else "")
        notes.append(f"synthesis stops at {told} that cannot be read, {which}; restore or remove what is bad")
    having = {s.category for s in usable.normals}
    without = [name for name in usable.categories if name not in having]
    if without:
        place = f" of {', '.join(without)}" if having else ""
        notes.append(
            f"there is no normal image{place} to synthesize from: all methods that fill normal images, transplant and "
            "procedural too, need some; give generate_with_mask.py a folder of them with --data_root"
        )
    return notes


def run(args: argparse.Namespace) -> None:
    """Everything is looked at as the flags say it is to be read, and written at the end; after an error nothing is."""
    out = Path(args.out or "split.json")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name the split's file, as in --out {out / 'split.json'} (a "
                        "folder is for --import)")  # fmt: skip

    def opened() -> DatasetIndex:
        return open_dataset(args.path, args.layout, args.category, args.anomaly)

    index = opened()
    refuse_alike(args, index)
    before = reading_of(index.root)
    answers = replace(before, **said(args))
    if answers == before:
        prepare(args, index, out, None)
        return
    with trying(index.root / NAME, answers):
        prepare(args, opened(), out, answers)


def prepare(args: argparse.Namespace, index: DatasetIndex, out: Path, answers: Reading | None) -> None:
    """Check and split `index`, tell what was found, and write the split, the groups and the `answers`, if there are
    any, about how it is to be read."""
    report = check(index)
    found = find_alike(report.usable.defects, hidden=not is_first_process())
    names = joined(found.pairs) if args.join_alike else {}
    tables = GroupTables(report.usable, names)
    report = joining(report, names)
    split = make_split(report.usable, args.fraction, args.seed) if report.usable.defects else None
    print(f"{index.root} ({index.layout})")
    if known := known_dataset(index):
        print("\n".join(about(known)))
    print(render(index, report, split))
    notes = [
        *report.usable.notes,
        *report.usable.doubts,
        *alike_notes(args, found, index),
        *normal_notes(index, report.usable),
        *(normals_notes(report.usable, normals_of_test(report.usable, split), LEFT_OUT) if split else []),
        *(split.notes if split else []),
    ]
    for line in [*report.problems, *(f"note: {note}" for note in notes)]:
        print(line)
    if split is None and (answers is None or report.usable.excluded):
        none_usable(args, report, new=answers is not None)
    bad = f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}, see above" if report.problems else ""
    if bad and args.strict:
        raise UserError(f"{args.path}: {bad}; with --strict no split is written: mend the files, or leave --strict out")
    files = {} if answers is None else {index.root / NAME: answers.text().encode()}
    if split is None:  # of normal images alone all that can be done is to say how they are read
        with new_files(files):
            tell_answers(args, index, files)
        return
    refuse_other(split, out, args.force)
    there = out.exists() and not args.force  # the same split, as `refuse_other` has seen
    files |= tables.files() | ({} if there else {out: split.text().encode()})
    with new_files(files):
        if args.alike:
            told_alike(found, index, Path(args.alike))
    tell_answers(args, index, files)
    for table in tables.tables:
        parts = {group: name for group, name in names.items() if index.folders[group[0]] == table.parent}
        print(f"{table}: {len(parts)} parts that look alike are {len(set(parts.values()))}")
    if bad:
        print(f"{bad}: what is bad is left out of the split, of training and of the bench")
    print(f"split {split.hash}\n{len(split.train)} train, {len(split.test)} test -> {out}{' (already there)' * there}")


def tell_answers(args: argparse.Namespace, index: DatasetIndex, files: Mapping[Path, bytes]) -> None:
    """Say what of the flags was kept, if `reading.json` is among the files that were written."""
    if index.root / NAME in files:
        print(f"{index.root / NAME}: {', '.join(f'{k}={v}' for k, v in said(args).items())}")


def main(argv: Sequence[str]) -> None:
    args = parser().parse_args(argv)
    if args.import_format:
        import_data(args)
    else:
        refuse_without_import(args)
        run(args)
