"""A contact sheet of a synthesis output: normal | mask | synthetic | difference.

%(prog)s samples/fast_output [more outputs] --out sheet.png --rows 12

A defect that is small in its picture is shown with its surroundings alone, magnified as often as the caption says. Some
counterfeits, if there are any, stand below.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fast.runtime.options import Parser
from ldm.errors import UserError

if TYPE_CHECKING:
    from fast.reports.contact_sheet import SheetRow

LARGEST = 2048  # px of a picture in the sheet
COUNTERFEITS = 4  # of each output


def main(argv: list[str]) -> None:
    p = Parser(
        prog="scripts/contact_sheet.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("outputs", nargs="+", type=Path, help="output folders of generate_with_mask.py")
    p.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="the picture to write")
    p.add_argument("--rows", type=int, default=12, help="pairs to show of each output, evenly chosen")
    p.add_argument("--cell", type=int, default=160, help="side of a picture in the sheet")
    p.add_argument("--whole", action="store_true", help="small defects in their whole picture, not magnified")
    options = p.parse_args(argv)
    for name in ("rows", "cell"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    if options.cell > LARGEST:
        raise UserError(f"--cell {options.cell} is larger than a sheet can hold; give at most {LARGEST} pixels")

    from fast.reports.contact_sheet import check_place, contact_sheet, read_row
    from fast.synthesis.records import each_record

    rows, fakes = [], []
    for output in options.outputs:
        check_place(options.out, "--out", output, each_record(output, counterfeits=True, rejected=True))
        count = sum(1 for _ in each_record(output))
        step = max(1, count // options.rows)
        if count > options.rows:
            print(f"{output}: {options.rows} of {count} pairs, evenly chosen; --rows {count} shows all")
        chosen = islice(each_record(output), 0, step * options.rows, step)
        rows += [read_row(output, record, zoom=not options.whole) for record in chosen]
        fakes += counterfeits(output, zoom=not options.whole)
    print(contact_sheet(rows, options.out, options.cell, counterfeits=fakes))


def counterfeits(output: Path, zoom: bool) -> list[SheetRow]:
    """A few of an output, evenly chosen, each in the mask of its pair."""
    from fast.reports.contact_sheet import read_counterfeit
    from fast.synthesis.options import FIRST_COUNTERFEIT
    from fast.synthesis.records import each_record

    numbers = [row["index"] for row in each_record(output, counterfeits=True) if row.get("counterfeit")]
    numbers = numbers[:: -(-len(numbers) // COUNTERFEITS)] if numbers else []
    wanted = {number - FIRST_COUNTERFEIT for number in numbers} | set(numbers)
    found = {
        row["index"]: row for row in each_record(output, counterfeits=True, rejected=True) if row["index"] in wanted
    }
    return [read_counterfeit(output, found[i], found.get(i - FIRST_COUNTERFEIT), zoom) for i in numbers]
