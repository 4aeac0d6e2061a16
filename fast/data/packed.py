"""Files in tar files, read as if a tar file were a folder: `pairs-000000-000999.tar/000003.image.png`."""

from __future__ import annotations

import errno
import shutil
import tarfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from ldm.errors import UserError

SUFFIX = ".tar"


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


def bytes_of(path: Path) -> bytes:
    """As `read_bytes`, and of a damaged tar file `UserError`."""
    try:
        return read_bytes(path)
    except OSError as error:
        if not is_packed(path):
            raise
        raise UserError(
            f"{path}: cannot read it ({error.strerror}); restore the tar file, or remove it and give the set's command "
            "again"
        ) from None


def copy_file(source: Path, target: Path) -> None:
    """A copy of a file, packed or not, that is not packed. Raises `OSError`, and `UserError` for a damaged tar file."""
    if is_packed(source):
        target.write_bytes(bytes_of(source))
    else:
        shutil.copyfile(source, target)


class Members:
    """Where the files of a tar file lie, in arrays: as a dictionary those of a million pairs would be gigabytes."""

    def __init__(self, tar: Path):
        try:
            with tarfile.open(tar, "r:") as opened:
                found = sorted((m.name.encode(), m.offset_data, m.size) for m in opened if m.isreg())
        except tarfile.TarError as error:
            raise OSError(errno.EIO, f"{tar.name} is no whole tar file: {error}") from error
        self._names = np.array([name for name, _, _ in found], dtype=bytes)
        self._places = np.array([place for _, *place in found], dtype=np.int64).reshape(-1, 2)

    def place(self, name: str) -> tuple[int, int]:
        """(offset, length) of a file in bytes. Raises `FileNotFoundError`."""
        at = int(np.searchsorted(self._names, name.encode())) if len(self._names) else 0
        if at == len(self._names) or self._names[at] != name.encode():
            raise FileNotFoundError(errno.ENOENT, "the tar file does not hold it")
        offset, length = self._places[at]
        return int(offset), int(length)


def _members(tar: Path) -> Members:
    stat = tar.stat()
    return _known(tar, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _known(tar: Path, _changed: int, _size: int) -> Members:
    return Members(tar)
