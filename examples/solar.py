"""Solar cells: a segmenter that has never seen a real defect, tested on real ones.

Fetches the images of elpv-dataset (2,624 electroluminescence images of solar cells, CC BY-NC-SA 4.0) with pip, draws
defects into functional cells of one half of them, trains a segmenter on these pairs, and tests it on the other half's
functional cells and on the defective ones. Writes report.html, scores.csv and the segmenter.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from solar_cells.run import run  # noqa: E402

from fast.runtime.command import run_cli  # noqa: E402
from fast.runtime.options import Parser  # noqa: E402
from ldm.errors import UserError  # noqa: E402


def main(argv: list[str]) -> None:
    p = Parser(prog="solar.py", description=__doc__)
    p.add_argument("--data", type=Path, default=Path("data/elpv"), help="where the package lies or is fetched to")
    p.add_argument(
        "--out", type=Path, default=Path("solar"), help="folder for the page and the scores (default: solar)"
    )
    p.add_argument("--pairs", type=int, default=800, help="training pairs to draw (default 800)")
    p.add_argument("--seed", type=int, default=0, help="of the pairs and the training (default 0)")
    options = p.parse_args(argv)
    if options.pairs < 2:
        raise UserError(f"--pairs {options.pairs} must be at least 2")
    start = time.perf_counter()
    run(options.data, options.out, options.pairs, options.seed, start)


if __name__ == "__main__":
    sys.exit(run_cli(main))
