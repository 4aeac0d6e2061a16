"""A contact sheet of a synthesis output: normal | mask | synthetic | difference.

%(prog)s samples/fast_output [more outputs] --out sheet.png --rows 12
"""

import argparse
from itertools import islice
from pathlib import Path

from fast.runtime.options import Parser
from ldm.errors import UserError


def main(argv: list[str]) -> None:
    p = Parser(
        prog="scripts/contact_sheet.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("outputs", nargs="+", type=Path, help="output folders of generate_with_mask.py")
    p.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="the picture to write")
    p.add_argument("--rows", type=int, default=12, help="pairs to show of each output, evenly chosen")
    p.add_argument("--cell", type=int, default=160, help="side of a picture in the sheet")
    options = p.parse_args(argv)
    for name in ("rows", "cell"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")

    from fast.reports.contact_sheet import contact_sheet, read_row
    from fast.synthesis.records import each_record

    rows = []
    for output in options.outputs:
        step = max(1, sum(1 for _ in each_record(output)) // options.rows)
        rows += [read_row(output, r) for r in islice(each_record(output), 0, step * options.rows, step)]
    print(contact_sheet(rows, options.out, options.cell))
