"""What both doors share: a user's mistake, a full disk or Ctrl-C ends in one line and exit code 2."""

import errno
import sys
from collections.abc import Callable

from ldm.errors import UserError


def open_door(main: Callable[[list[str]], object], argv: list[str] | None = None) -> int:
    """Run `main(argv)`; 0 if it returns, 2 with one line on stderr for bad input. Bugs keep their traceback."""
    try:
        main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _say(f"error: {error}")
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to go on")
    except SystemExit as stop:
        # The trainer turns a second Ctrl-C into exit code 1.
        return 0 if stop.code in (None, 0) else _say("interrupted")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        return _say(
            f"error: cannot write {error.filename or 'output'}: {error.strerror}; free space or choose another folder"
        )
    return 0


def _say(line: str) -> int:
    print(" ".join(line.split()), file=sys.stderr, flush=True)
    return 2
