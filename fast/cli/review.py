"""Accept and reject the image-mask pairs of a finished run, without a browser.

%(prog)s samples/part --decisions decisions.csv
%(prog)s samples/part --regenerate        rejected ones anew, by another seed; the old ones go to rejected/
%(prog)s samples/part --export part.good  accepted ones as a folder of their own

The table's columns are index or file, decision (accepted, rejected or undecided) and, if you like, reason.
Without a flag it says what was decided so far. Rejected pairs are left out of training and of exports from then on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from fast.runtime.counts import number_of
from fast.runtime.options import Parser


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/review.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pairs", type=Path, metavar="PAIRS", help="output folder of generate_with_mask.py")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--decisions", type=Path, metavar="FILE", help="a table (CSV) of decisions; all of it or nothing")
    what.add_argument("--status", action="store_true", help="what was decided so far (the default)")
    what.add_argument("--undo", action="store_true", help="take the last decisions back, those of one table together")
    what.add_argument("--export", type=Path, metavar="FOLDER", help="copy the accepted pairs into a new folder")
    what.add_argument("--regenerate", action="store_true", help="make the rejected pairs anew")
    return p


def main(argv: list[str]) -> None:
    options = parser().parse_args(argv)
    from fast.review.decisions import Review
    from fast.review.table import read_table

    folder: Path = options.pairs
    rows, review = brief(folder), Review(folder)
    if options.decisions is not None:
        found = read_table(options.decisions, rows)
        review.decide(found)
        print(f"{number_of(len(found), 'decision')} read from {options.decisions}")
    elif options.undo:
        action = review.undo()
        print(f"taken back: {number_of(len(action.decisions), 'decision')} of {action.time}")
    elif options.export is not None:
        from fast.synthesis.accepted import export_accepted

        print(f"{export_accepted(folder, options.export)} accepted pairs -> {options.export}")
    elif options.regenerate:
        from fast.cli.regenerate import regenerate

        made = regenerate(folder)
        print(f"{number_of(made, 'pair')} made anew; what was rejected lies in {folder / 'rejected'}")
        rows = brief(folder)
    print(status(rows, review.decisions()))


def brief(folder: Path) -> list[dict[str, Any]]:
    """Number, type and image of each pair of a folder, or of shards. Raises `UserError`."""
    from fast.synthesis.records import each_record

    records = each_record(folder, counterfeits=True, rejected=True)
    return [{key: row[key] for key in ("index", "type", "image")} for row in records]


def status(rows: list[dict[str, Any]], found: dict[int, Any]) -> str:
    """A line for each defect type, and the reasons of what was rejected."""
    from fast.review.decisions import DECISIONS
    from fast.runtime.tables import plain

    counts = Counter((row["type"], found[row["index"]].decision if row["index"] in found else "undecided")
                     for row in rows)  # fmt: skip
    kinds = sorted({row["type"] for row in rows})
    table = plain(["type", *DECISIONS], [[kind, *(str(counts[kind, d]) for d in DECISIONS)] for kind in kinds])
    here = {row["index"] for row in rows}
    reasons = Counter(d.reason or "no reason" for i, d in found.items() if d.decision == "rejected" and i in here)
    told = [f"rejected, {reason}: {count}" for reason, count in reasons.most_common()]
    return "\n".join([table, *told])
