"""`fast-make-masks` from a checkout that is not installed: `python scripts/make_masks.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.runtime.signals import listen

listen(__name__)

from fast.cli import make_masks  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """The command as a program calls it. Returns the exit code."""
    return run_cli(make_masks.main, argv)


if __name__ == "__main__":
    sys.exit(main())
