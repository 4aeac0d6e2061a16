"""A contact sheet of a synthesis output: normal | mask | synthetic | difference.

python scripts/contact_sheet.py samples/fast_output [more outputs] --out sheet.png --rows 12
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.runtime.signals import listen

listen(__name__)

from fast.runtime.command import open_door  # noqa: E402
from fast.runtime.options import Parser  # noqa: E402
from ldm.errors import UserError  # noqa: E402


def main(argv: list[str]) -> None:
    p = Parser(prog="contact_sheet.py", description=__doc__)
    p.add_argument("outputs", nargs="+", type=Path, help="output folders of generate_with_mask.py")
    p.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="the picture to write")
    p.add_argument("--rows", type=int, default=12, help="pairs to show of each output, evenly chosen")
    p.add_argument("--cell", type=int, default=160, help="side of a picture in the sheet")
    options = p.parse_args(argv)
    for name in ("rows", "cell"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")

    from fast.reports.contact_sheet import contact_sheet, read_row
    from fast.synthesis.output import read_records

    rows = []
    for output in options.outputs:
        records = read_records(output)
        step = max(1, len(records) // options.rows)
        rows += [read_row(output, r) for r in records[::step][: options.rows]]
    print(contact_sheet(rows, options.out, options.cell))


if __name__ == "__main__":
    sys.exit(open_door(main))
