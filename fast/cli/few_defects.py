"""How many real defects are synthetic pairs worth? Scores of the quick judge with 0, 3, 5, 10 and all real defects of
each type of the training side, alone and with the pairs of each method; the test side is tested on and nothing else.

%(prog)s --dataset parts --split parts.split.json --out few
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fast.runtime.options import Parser
from ldm.errors import UserError


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="scripts/few_defects.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--dataset", required=True, metavar="FOLDER", help="a dataset with masks")
    p.add_argument("--split", default="third", help="third, or a file of prepare_data.py (default: third)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for rows.json, table.md and features")
    p.add_argument("--counts", default="0,3,5,10,all", help="real defects of each type (default: 0,3,5,10,all)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="choices and trainings (default: 0 1 2)")
    p.add_argument("--methods", nargs="+", default=["procedural", "transplant"], metavar="NAME",
                   help="methods that need no training (default: procedural transplant)")
    p.add_argument("--at_all", nargs="*", default=[], metavar="LABEL",
                   help="rows that are measured beside all real defects alone")
    p.add_argument("--folder", action="append", default=[], metavar="LABEL=FOLDER",
                   help="a row of finished pairs (generate_with_mask.py); may be given several times")
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
    for name, value, least in (
        ("seeds", min(options.seeds), 0), ("pairs", options.pairs, 1), ("size", options.size, 16)
    ):  # fmt: skip
        if not least <= value <= 65535:
            raise UserError(f"--{name} {value} lies outside {least}..65535; change it")
    counts = tuple(_count(text) for text in options.counts.split(","))
    methods: dict[str, dict[str, Any]] = {
        name: {"on_object": "off"} if name in PLACED else {} for name in options.methods
    }
    if "procedural" in methods and options.looks:
        methods["procedural"]["looks"] = {
            k: v.split(",") for k, v in (_pair("--looks", text) for text in options.looks)
        }
    for label, folder in (_pair("--folder", text) for text in options.folder):
        methods[label] = {"folder": folder}

    from fast.bench.few import METRICS, Few, measure, table
    from fast.data.images import write_bytes
    from fast.data.layouts import check, open_dataset
    from fast.data.split import Split, make_split
    from fast.generators import method_class
    from fast.segmentation.quick import QuickJudge

    for name in options.methods:
        method_class(name)  # an unknown one is told before anything is computed
    index = check(open_dataset(options.dataset)).usable
    split = make_split(index) if options.split == "third" else Split.load(options.split)
    size = None if options.native else options.size
    judge = QuickJudge(size, "upright" if options.upright else "classical", cache=options.out / "features")
    few = Few(counts, tuple(options.seeds), methods, options.pairs, tuple(options.at_all))
    rows = measure(index, split, few, judge, options.out / "rows.json", report=lambda line: print(line, flush=True))
    parts = [f"{metric}\n\n{table(rows, metric)}\n" for metric in METRICS]
    write_bytes(options.out / "table.md", "\n".join(parts).encode())
    print("\n".join(parts))


PLACED = (
    "procedural",
    "transplant",
)  # keep their defects on the object; these parts are measured as they fill the image


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
