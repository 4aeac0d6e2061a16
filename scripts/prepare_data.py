"""`fast-prepare-data` from a checkout that is not installed: `python scripts/prepare_data.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast.runtime.signals import listen

listen(__name__)

from fast.cli import prepare_data  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """The command as a program calls it. Returns the exit code."""
    return run_cli(prepare_data.main, argv)


if __name__ == "__main__":
    sys.exit(main())
