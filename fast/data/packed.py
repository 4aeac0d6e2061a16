"""Files in tar files, read as if a tar file were a folder: `pairs-000000-000999.tar/000003.image.png`."""

from __future__ import annotations

import errno
import shutil
import tarfile
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from ldm.errors import UserError

SUFFIX = ".tar"
_READING = Lock()


def is_packed(path: Path) -> bool:
    """Whether a path names a file inside a tar file."""
    return path.parent.suffix == SUFFIX and path.parent.is_file()


def read_bytes(path: Path) -> bytes:
    """Bytes of a file, packed or not. Of a tar file only the headers are read, once, and the bytes asked for. Raises
    `OSError`."""
    if not is_packed(path):
        return path.read_bytes()
    offset, length = _members(path.parent).place(path.name)
    with open(path.parent, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) < length:
        raise OSError(errno.EIO, "the tar file is cut off")
    return data


def read_ends(path: Path, head: int, tail: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file, packed or not, at most so many. Raises `OSError`."""
    packed = is_packed(path)
    start, length = _members(path.parent).place(path.name) if packed else (0, path.stat().st_size)
    with open(path.parent if packed else path, "rb") as file:
        file.seek(start)
        first = file.read(min(head, length))
        file.seek(start + max(0, length - tail))
        return first, file.read(min(tail, length))


def container(path: Path) -> Path:
    """The file on the disk: of a packed one the tar file."""
    return path.parent if is_packed(path) else path


def named(path: Path) -> str:
    """What messages call a file: of a packed one the tar file comes first, for it is what there is to look at."""
    return f"{path.parent}: {path.name}" if is_packed(path) else f"{path}:"


def remedy(path: Path, otherwise: str) -> str:
    """What to do about a file that cannot be read; `otherwise`: about one that is not packed."""
    if not is_packed(path):
        return otherwise
    return "restore the tar file, or remove it and run the set's command again, which makes it anew"


def bytes_of(path: Path) -> bytes:
    """As `read_bytes`, and of a damaged tar file `UserError`."""
    try:
        return read_bytes(path)
    except OSError as error:
        if not is_packed(path):
            raise
        raise UserError(f"{named(path)} cannot be read ({error.strerror}); {remedy(path, '')}") from None


def copy_file(source: Path, target: Path) -> None:
    """A copy of a file, packed or not, that is not packed. Raises `OSError`, and `UserError` for a damaged tar file."""
    if is_packed(source):
        target.write_bytes(bytes_of(source))
    else:
        shutil.copyfile(source, target)


class Members:
    """Where the files of a tar file lie, in arrays: as a dictionary those of a million pairs would be gigabytes. Raises
    `tarfile.TarError` for a damaged one, and `OSError`."""

    def __init__(self, tar: Path):
        with tarfile.open(tar, "r:") as opened:
            found = sorted((m.name.encode(), m.offset_data, m.size) for m in opened if m.isreg())
            _check_end(tar, opened.offset)
        self._names = np.array([name for name, _, _ in found], dtype=bytes)
        self._places = np.array([place for _, *place in found], dtype=np.int64).reshape(-1, 2)

    def place(self, name: str) -> tuple[int, int]:
        """(offset, length) of a file in bytes. Raises `FileNotFoundError`."""
        at = int(np.searchsorted(self._names, name.encode())) if len(self._names) else 0
        if at == len(self._names) or self._names[at] != name.encode():
            raise FileNotFoundError(errno.ENOENT, "the tar file does not hold it")
        offset, length = self._places[at]
        return int(offset), int(length)


def _check_end(tar: Path, offset: int) -> None:
    """Raise `tarfile.ReadError` where what `tarfile` takes for the end is none: it stops without a word at a header
    that is damaged or missing. A tar file ends in two blocks of zeros at least, and nothing but zeros behind them."""
    with open(tar, "rb") as file:
        file.seek(offset)
        rest = file.read(4 * tarfile.RECORDSIZE)
    if len(rest) < 2 * tarfile.BLOCKSIZE or any(rest):
        what = "damaged" if any(rest) else "cut off"
        raise tarfile.ReadError(f"{what} at byte {offset}")


def _members(tar: Path) -> Members:
    stat = tar.stat()
    with _READING:  # threads that ask for files of the same tar file wait for the one that reads its headers
        found = _known(tar, stat.st_mtime_ns, stat.st_size)
    if isinstance(found, str):
        raise OSError(errno.EIO, found)
    return found


@lru_cache(maxsize=4096)
def _known(tar: Path, _changed: int, _size: int) -> Members | str:
    """Of a damaged tar file what is wrong, so that it is not read again for each of its files. What may pass, such as
    too many open files, is raised and not kept."""
    try:
        return Members(tar)
    except tarfile.TarError as error:
        return f"this is no whole tar file: {error}"
