"""Export the image-mask pairs of a finished run for other tools, each image with where it came from.

%(prog)s samples/part --format coco --out part.coco
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fast.runtime.counts import number_of
from fast.runtime.options import Parser


def main(argv: Sequence[str]) -> None:
    from fast.export.formats import FORMATS, export
    from fast.export.write import SHARD

    p = Parser(prog="scripts/export.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pairs", type=Path, metavar="PAIRS", help="output folder of generate_with_mask.py")
    p.add_argument("--format", required=True, choices=FORMATS, help="format of the new folder")
    p.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder to write")
    p.add_argument("--polygons", action="store_true", help="coco, cvat, labelme: polygons, which hold no holes and are "
                   "cut around them, not masks")  # fmt: skip
    p.add_argument("--shard_size", type=int, help=f"webdataset: pairs in a file (default: {SHARD})")
    args = p.parse_args(argv)

    from fast.runtime.tables import plain

    run, notes = export(args.pairs, args.format, args.out, args.polygons, args.shard_size)
    counts = Counter(run.class_of(pair) for pair in run.pairs)
    print(plain(("type", "pairs"), [(kind, str(counts[kind])) for kind in run.classes()]))
    for note in notes:
        print(f"note: {note}")
    if run.counterfeits:
        be = "is" if run.counterfeits == 1 else "are"
        told = f"{number_of(run.counterfeits, 'counterfeit')}, normal content made like defects"
        print(f"note: {told}, {be} left out")
    print(f"{number_of(len(run.pairs), 'pair')} -> {args.out} ({args.format})")
