"""What all commands share: a user's mistake, a full disk or Ctrl-C ends in one line and exit code 2."""

import errno
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from fast.runtime.signals import INTERRUPTED, interruptible, is_first_process
from fast.runtime.terminal import plain, plain_output
from ldm.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_CLOSED = (
    errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
_NO_MEMORY = ("DefaultCPUAllocator", "Insufficient memory")  # torch's words and OpenCV's
_HOME = re.compile(r"(--?[\w-]+=|[\w.]+=)?(~(?:/.*)?)", re.DOTALL)
__all__ = ["command_line", "is_first_process", "leave_interrupts", "run_cli", "write_failure"]


def run_cli(main: Callable[[list[str]], object], argv: Sequence[str] | None = None) -> int:
    """Run `main(argv)`; 0 if it returns, 2 with one line on stderr for bad input. Bugs keep their traceback.

    `~/` is expanded in every argument, `--flag=~/x` and `section.key=~/x` too, which a shell leaves as they are.
    """
    given = expand_home(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # what it has to say of a damaged file, we say
    with interruptible(), plain_output(), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.filterwarnings("ignore", module=r"PIL\.")
        return _run(main, given)


def command_line(script: str) -> str:
    """How somebody who runs this program calls the command of a script, say `scripts/make_masks.py`: `fast-make-masks`
    where this program is an installed command itself, else `python scripts/make_masks.py`."""
    if not Path(sys.argv[0]).name.startswith("fast-"):
        return f"python {script}"
    named = {"main": "train", "generate_with_mask": "synthesize"}
    stem = Path(script).stem
    return f"fast-{named.get(stem, stem).replace('_', '-')}"


def _run(main: Callable[[list[str]], object], argv: list[str]) -> int:
    try:
        if any("\0" in a for a in argv):
            raise UserError(f"{next(a for a in argv if chr(0) in a)!r} holds a NUL character; write the name without")
        main(argv)
        sys.stdout.flush()
    except UserError as error:
        return _say(f"error: {error}")
    except KeyboardInterrupt:
        return _say(INTERRUPTED, everywhere=False)
    except SystemExit as stop:  # --help ends so with 0; a library may end the program with another code
        return 0 if stop.code in (None, 0) else _say("interrupted", everywhere=False)
    except Exception as error:
        reason = _explained(error)
        if reason is None:
            raise
        return _say(f"error: {reason}")
    return 0


def expand_home(argv: Sequence[str]) -> list[str]:
    """`~` and `~/...`, alone or behind a flag's or a key's `=`, as the user's folder."""
    found = [(a, _HOME.fullmatch(a)) for a in argv]
    return [(m[1] or "") + os.path.expanduser(m[2]) if m else a for a, m in found]


def _explained(error: Exception) -> str | None:
    """One line for an error that the machine or a file's name is to blame for; None for a bug."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which this module does not import
        return "out of GPU memory; lower the batch size (data.params.batch_size or --batch_size)"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return f"out of memory ({_first_line(error) or 'no more was to be had'}); lower the size or the batch size"
    if isinstance(error, UnicodeEncodeError) and isinstance(error.object, str):
        return f"the name {error.object[:80]!r} is not valid in {error.encoding}; rename the file or folder"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name or path holds a NUL character; write it without"
    if isinstance(error, RecursionError) and _reads(error):
        return "a JSON or YAML file is nested too deep to be read; give one as a program of ours wrote it"
    reason = write_failure(error)
    return None if reason is None else f"{reason}; free space or choose another folder"


def _reads(error: BaseException) -> bool:
    """Whether an error came out of the readers of JSON or YAML."""
    trace, names = error.__traceback__, set()
    while trace is not None:
        names.add(trace.tb_frame.f_globals.get("__name__", "").split(".")[0])
        trace = trace.tb_next
    return bool(names & {"json", "yaml"})


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:160]


def write_failure(error: BaseException, path: str | os.PathLike[str] = "a file") -> str | None:
    """What to tell the user if an error means that a file could not be written; None if it means something else.
    `path`: the file's, where the error does not know it."""
    if isinstance(error, OSError):
        verb = "write" if error.errno in _FULL else "open" if error.errno in _CLOSED else None
        return f"cannot {verb} {os.fspath(error.filename or path)}: {error.strerror}" if verb else None
    text = str(error)  # torch writes from C++: no OSError, only words
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "inline_container" in text):
        return f"cannot write {os.fspath(path)}: torch could not store all of it"
    return None


def _say(line: str, everywhere: bool = True) -> int:
    if everywhere or is_first_process():
        print(plain(" ".join(line.split())), file=sys.stderr, flush=True)
    return 2


def leave_interrupts(*_: object) -> None:
    """For worker processes: Ctrl-C reaches every process of a terminal; the main one ends its work, with their help,
    and its SIGTERM to them is no message to the user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
