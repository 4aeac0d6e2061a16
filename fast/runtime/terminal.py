"""Standard output and error that take any text: names of any encoding, control characters, a reader that went away."""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from ldm.errors import UserError

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
_PARTS = re.compile(r"[\ud800-\udfff]")  # bytes of a file name that are not UTF-8


def plain(text: str) -> str:
    """`text` with control characters and undecodable bytes written as escapes: no file name steers a terminal."""
    return _PARTS.sub(_escaped, _CONTROLS.sub(_escaped, text))


def is_utf8(name: str) -> bool:
    """False for a file's name of bytes that are no UTF-8, such as one in GBK from an old archive."""
    return _PARTS.search(name) is None


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    # A byte that is not UTF-8 stands in a file name as U+DC80 to U+DCFF.
    return f"\\x{code & 0xFF:02x}" if code < 0x100 or 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


class PlainStream:
    """A text stream that writes `plain` text and goes quiet when its reader (`| head`) has gone.

    The work goes on then: its files are the result, not what it prints. Raises `UserError` where nothing can be
    written for another reason (a full disk).
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._faults():
            self._stream.write(plain(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._faults():
            self._stream.flush()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._discard()
        except OSError as error:
            self._discard()
            if error.errno != errno.EINVAL:  # Windows' word for a closed pipe
                raise UserError(f"cannot write the standard output: {error.strerror}; free space there") from None

    def _discard(self) -> None:
        """Send the rest nowhere, what is buffered too: Python would complain about it at its end."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Standard output as a `PlainStream`; both streams escape what the terminal's encoding lacks."""
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # started with the stream closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = PlainStream(sys.stdout)
    try:
        yield
    finally:
        with contextlib.suppress(UserError, ValueError):
            sys.stdout.flush()
        sys.stdout = before[0] or sys.stdout
