"""Parts that look alike, as `prepare_data.py` finds them: told, drawn side by side, and joined."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fast.cli.dataset_notes import REMEDY, alike_note
from fast.data.alike import Found, Group, regrouped
from fast.data.images import WRITTEN, read_image
from fast.data.layouts import DataReport, DatasetIndex
from fast.data.reading import load_reading, reading_file
from fast.reports.contact_sheet import fitted, side_by_side
from ldm.errors import UserError

DRAWN, CELL = 100, 240  # pairs of --alike, and pixels of a side of each picture


def refuse_alike(args: argparse.Namespace, index: DatasetIndex) -> None:
    """UserError for --alike and --join_alike that cannot be."""
    whole = Path(os.path.abspath(Path(args.path).expanduser())) == index.root and not args.anomaly
    if args.join_alike and not whole:
        raise UserError(f"--join_alike joins parts of all types, as one may have several; give {index.root}, without "
                        "--anomaly")  # fmt: skip
    if args.alike is None and not args.join_alike:
        return
    if args.parts_apart:
        raise UserError("--parts_apart says that parts which look alike differ; leave out --alike and --join_alike")
    file = reading_file(index.root)
    if file is not None and load_reading(file).parts_apart:
        raise UserError(f"{file} says that parts which look alike differ (parts_apart); take that out to look again")
    if args.alike is None:
        return
    path = Path(args.alike)
    if path.is_dir() or path.suffix.lower() not in WRITTEN:
        raise UserError(f"--alike {path}: give the name of a picture to write, as in --alike alike.png")
    if index.root in Path(os.path.abspath(path)).parents:
        raise UserError(f"--alike {path} lies in the dataset, and would be taken for one of its pictures; write it "
                        "elsewhere")  # fmt: skip


def alike_notes(args: argparse.Namespace, found: Found, index: DatasetIndex) -> list[str]:
    """What the pictures say of parts that are listed twice; where it was asked, also that they say nothing."""
    notes = [f"{alike_note(found.pairs, index.root)}; {REMEDY}"] if found.pairs and not args.join_alike else []
    if args.alike or args.join_alike:
        notes += [] if found.pairs or found.unclear else ["no parts look alike"]
        notes += [
            f"too many pictures of {name} look alike to tell its parts by them; list the parts in groups.csv"
            for name in found.unclear
        ]
    return notes


def joining(report: DataReport, names: Mapping[Group, str]) -> DataReport:
    """The report as it is once groups have these names."""
    usable = report.usable
    usable = replace(
        usable,
        normals=regrouped(usable.normals, names),
        test_normals=regrouped(usable.test_normals, names),
        defects=regrouped(usable.defects, names),
        excluded=regrouped(usable.excluded, names),
    )
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for s in [*usable.defects, *usable.excluded]:
        groups[s.category, s.anomaly].add(s.group)
    rows = [replace(row, groups=len(groups.get((row.category, row.anomaly), ())) or row.groups) for row in report.rows]
    return replace(report, usable=usable, rows=rows)


def told_alike(found: Found, index: DatasetIndex, path: Path) -> None:
    """Write the picture of --alike: the first `DRAWN` pairs, each picture made small as it is read."""
    rows = [
        [
            (f"{index.relative(s.image)}, {pair.agreement:.2f}", fitted(read_image(s.image), CELL))
            for s in (pair.first, pair.second)
        ]
        for pair in found.pairs[:DRAWN]
    ]
    if rows:
        side_by_side(rows, path, CELL)
        print(f"{path}{f': the first {DRAWN} of {len(found.pairs)} pairs' if len(found.pairs) > DRAWN else ''}")
