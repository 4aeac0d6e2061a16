"""How many real defects are synthetic pairs worth? Scores of the quick judge with 0, 3, 5, 10 and all real defects of
each type of the training side, alone and with the pairs of each method; the test side is tested on and nothing else.
With --nested the test side is left alone: choices are made on splits inside the training side.

%(prog)s --dataset parts --split parts.split.json --out few
%(prog)s --dataset parts --split parts.split.json --out nested --nested 5 --counts all \\
    --row feather=transplant,blend=feather --folder fast=samples/{seed} --mix half=feather:fast
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fast.runtime.options import Parser
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.bench.rows import Row
    from fast.data.index import DatasetIndex
    from fast.data.split import Split


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/few_defects.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dataset", required=True, metavar="FOLDER", help="a dataset with masks")
    p.add_argument("--split", default="third", help="third, or a file of prepare_data.py (default: third)")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="for rows.json, table.md and features")
    p.add_argument("--nested", type=int, metavar="N",
                   help="measure on N splits inside the training side; the test side is not looked at")
    p.add_argument("--write_splits", type=Path, metavar="FOLDER",
                   help="write the nested splits as 0.json, 1.json, ... for main.py --split, and end")
    p.add_argument("--counts", default="0,3,5,10,all", help="real defects of each type (default: 0,3,5,10,all)")
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
                        "fast=fast,weights=logs/{seed},masks=given,counterfeits=0.5; may be given several times")
    p.add_argument("--mix", action="append", default=[], metavar="LABEL=A:B",
                   help="a row of half of the pairs of each of two rows; may be given several times")
    p.add_argument("--looks", action="append", default=[], metavar="TYPE=A,B",
                   help="what procedural draws for a type, e.g. blowhole=pit,hole; may be given several times")
    p.add_argument("--pairs", type=int, default=60, help="of each type (default: 60)")
    p.add_argument("--size", type=int, default=256, help="side that images are resized to (default: 256)")
    p.add_argument("--native", action="store_true", help="images keep their size: large images, small defects")
    p.add_argument("--upright", action="store_true", help="the part must not be turned by large angles")
    # fmt: on
    return p


def run(options: argparse.Namespace) -> None:
    """Raises `UserError`."""
    _check(options)
    counts = tuple(_count(text) for text in options.counts.split(","))
    rows = rows_of(options)

    from fast.bench.few import METRICS, Few, measure, table
    from fast.bench.nested import save_nested
    from fast.data.images import write_bytes
    from fast.segmentation.quick import QuickJudge

    index, split = opened(options)
    if options.write_splits:
        for file in save_nested(index, split, options.nested, options.write_splits):
            print(file)
        return
    for note in notes_of(rows.values(), [f"{category}/{anomaly}" for category, anomaly in index.types]):
        print(note, flush=True)
    size = None if options.native else options.size
    judged: dict[str, Any] = {"size": size, "augment": "upright" if options.upright else "classical"}
    judge = QuickJudge(**judged, cache=options.out / "features")
    seeds = tuple(options.seeds or (range(options.nested) if options.nested else (0, 1, 2)))
    few = Few(counts, seeds, rows, options.pairs, tuple(options.at_all), options.nested is not None, judged)
    found = measure(index, split, few, judge, options.out / "rows.json", report=lambda line: print(line, flush=True))
    parts = [f"{metric}\n\n{table(found, metric)}\n" for metric in METRICS]
    write_bytes(options.out / "table.md", "\n".join(parts).encode())
    print("\n".join(parts))


def opened(options: argparse.Namespace) -> tuple[DatasetIndex, Split]:
    """The dataset and its split; with --nested and a split file no picture of the test side is opened."""
    from dataclasses import replace

    from fast.bench.nested import usable_training_side
    from fast.data.layouts import check, open_dataset
    from fast.data.split import Split, make_split

    given = None if options.split == "third" else Split.load(options.split)  # refused before an image is read
    found = open_dataset(options.dataset)
    if given is None or not options.nested:
        index = check(found).usable
        return index, make_split(index) if given is None else given
    usable = usable_training_side(found, given)
    _, test = given.apply(found)
    return replace(usable, defects=[*usable.defects, *test]), given


def _check(options: argparse.Namespace) -> None:
    if options.nested is not None and not 1 <= options.nested <= 100:
        raise UserError(f"--nested {options.nested} lies outside 1..100; change it")
    for name, value, least in (
        ("seeds", min(options.seeds or [0]), 0), ("pairs", options.pairs, 1), ("size", options.size, 16)
    ):  # fmt: skip
        if not least <= value <= 65535:
            raise UserError(f"--{name} {value} lies outside {least}..65535; change it")
    if options.write_splits and not options.nested:
        raise UserError(f"--write_splits {options.write_splits} writes nested splits; say how many with --nested N")
    if not options.write_splits and not options.out:
        raise UserError("--out is missing; give a folder for the table")
    if options.nested and options.seeds and max(options.seeds) >= options.nested:
        raise UserError(f"--seeds {max(options.seeds)} is no number of the {options.nested} nested splits; they are "
                        f"0..{options.nested - 1}")  # fmt: skip


def rows_of(options: argparse.Namespace) -> dict[str, Row]:
    """The rows by label. UserError where a label, method or option is none."""
    from fast.bench.provenance import SEED
    from fast.bench.rows import Row

    looks = {k: v.split(",") for k, v in (_pair("--looks", text) for text in options.looks)}
    rows = {name: _row(name, "--methods", {}, looks) for name in options.methods}
    for text in options.row:
        label, value = _pair("--row", text)
        method, *given = re.split(r",(?![^\[]*\])", value)
        pairs = dict(_pair(f"--row {text}:", item) for item in given)
        rows[label] = _row(method, f"--row {text}", {k: _value(v) for k, v in pairs.items()}, looks)
    for label, folder in (_pair("--folder", text) for text in options.folder):
        if options.nested and options.nested > 1 and SEED not in folder:
            raise UserError(f"--folder {label}={folder}: each nested split needs pairs of its own; write {SEED} for "
                            "its number")  # fmt: skip
        rows[label] = Row(folder=folder)
    for label, value in (_pair("--mix", text) for text in options.mix):
        first, sign, second = value.partition(":")
        if unknown := next((name for name in (first, second) if name not in rows), "" if sign else value):
            raise UserError(f"--mix {label}={value}: {unknown} is no row; name two of {', '.join(rows)}, as in "
                            f"{label}=A:B")  # fmt: skip
        rows[label] = Row(mix=(first, second))
    return rows


def notes_of(rows: Iterable[Row], kinds: Sequence[str]) -> list[str]:
    """What to tell of types that are drawn as others, each line once."""
    from fast.generators.looks import looks_notes
    from fast.synthesis.options import draft_methods

    found: list[str] = []
    for row in rows:
        if "procedural" in (row.method, *draft_methods(row.options.get("draft", "none"))):
            own = row.options if row.method == "procedural" else row.options.get("draft_options", {})
            found += looks_notes(kinds, own.get("looks", {}), "--looks {name}=scratch,pit")
    return list(dict.fromkeys(found))


def _row(method: str, flag: str, given: dict[str, Any], looks: dict[str, Any]) -> Row:
    """A row of a method. What is wrong with it is told before anything is computed."""
    from fast.bench.provenance import SEED
    from fast.bench.rows import Row
    from fast.generators import FREE, LATENT, create, method_class
    from fast.generators.latent import check_options
    from ldm.util import check_params

    found = method_class(method)
    if method in PLACED:
        given = {"on_object": "off", **given}
    if method == "procedural" and looks:
        given = {"looks": looks, **given}
    if given.get("draft", "none") != "none":
        own = {"on_object": "off", **({"looks": looks} if looks and given["draft"] != "transplant" else {})}
        given = {"draft_options": own, **given}
    masks = {"masks": given.pop("masks")} if "masks" in given and not found.own_masks else {}
    fakes = {"counterfeits": given.pop("counterfeits")} if "counterfeits" in given else {}
    check_params(found, given, flag)
    if method in FREE:
        create(method, **given)
    elif not given.get("weights"):
        raise UserError(f"{flag} {method} needs weights; add weights=RUN, where {SEED} stands for the split's number")
    elif method in LATENT:
        check_options(method, given)
    return Row(method, given, **masks, **fakes)


def _value(text: str) -> Any:
    """A number, a switch or a list as YAML reads it, but the words on and off, which YAML takes for switches."""
    return text if text in ("on", "off") else yaml.safe_load(text)


# Keep their defects on the object; these parts are measured as they fill the image.
PLACED = ("procedural", "transplant")


def _count(text: str) -> int | None:
    if text.strip() == "all":
        return None
    if not text.strip().isdigit():
        raise UserError(f"--counts {text} is no number of defects; write numbers from 0 and all, as in 0,5,all")
    return int(text)


def _pair(flag: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise UserError(f"{flag} {text} is not NAME=VALUE; see --help")
    return name, value


def main(argv: list[str]) -> None:
    run(parser().parse_args(argv))
