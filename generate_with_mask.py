"""Synthesize image-mask pairs: `python generate_with_mask.py --data_root ... --mask_path ... --pt_path ...`."""

import sys

from fast.runtime.signals import listen

listen(__name__)

from fast.cli.pairs import main  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_cli(main))
