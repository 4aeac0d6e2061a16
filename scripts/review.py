"""`fast-review` from a checkout that is not installed: `python scripts/review.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.runtime.signals import listen

listen(__name__)

from fast.cli.review import main  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_cli(main))
