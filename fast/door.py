"""What both doors share: a user's mistake, a full disk or Ctrl-C ends in one line and exit code 2."""

import errno
import os
import signal
import sys
from collections.abc import Callable

from ldm.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_CLOSED = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


def open_door(main: Callable[[list[str]], object], argv: list[str] | None = None) -> int:
    """Run `main(argv)`; 0 if it returns, 2 with one line on stderr for bad input. Bugs keep their traceback."""
    try:
        main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        return _say(f"error: {error}")
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to go on", everywhere=False)
    except SystemExit as stop:  # --help ends so with 0; a library may end the program with another code
        return 0 if stop.code in (None, 0) else _say("interrupted", everywhere=False)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which this module does not import
            return _say("error: out of GPU memory; lower the batch size (data.params.batch_size or --batch_size)")
        reason = write_failure(error)
        if reason is None:
            raise
        return _say(f"error: {reason}; free space or choose another folder")
    return 0


def write_failure(error: BaseException) -> str | None:
    """What to tell the user if an error means that a file could not be written; None if it means something else."""
    if isinstance(error, OSError):
        verb = "write" if error.errno in _FULL else "open" if error.errno in _CLOSED else None
        return f"cannot {verb} {error.filename or 'a file'}: {error.strerror}" if verb else None
    # safetensors and torch write from Rust and C++: no OSError, only words.
    text = str(error)
    if type(error).__name__ == "SafetensorError" and "os error" in text:
        return f"cannot write a file: {text}"
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "inline_container" in text):
        return "cannot write a file: torch could not store all of it"
    return None


def is_first_process() -> bool:
    """True unless a launcher started this process beside the first one."""
    return not any(int(os.environ.get(name) or 0) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def _say(line: str, everywhere: bool = True) -> int:
    if everywhere or is_first_process():
        print(" ".join(line.split()), file=sys.stderr, flush=True)
    return 2


def leave_interrupts(*_: object) -> None:
    """For worker processes: Ctrl-C reaches every process of a terminal; the main one ends its work, with their help."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
