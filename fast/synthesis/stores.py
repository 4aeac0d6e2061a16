"""Files in a folder or behind any fsspec URL (`s3://`, `gs://`, `memory://`, ...): whole or not there, and listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ldm.errors import UserError

# Where a file is seen once it has arrived whole. Elsewhere it gets a temporary name first.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "memory"})
DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


class Store:
    """A folder at a path or URL. Every method raises `UserError` for a place that cannot be reached."""

    def __init__(self, url: str, flag: str = "--sample_name"):
        self.url, self.flag = url, flag
        protocol = url.partition("://")[0] if "://" in url else "file"
        with self._told():
            try:
                self._fs, self._root = fsspec.core.url_to_fs(url if "://" in url else os.path.abspath(url))
            except ImportError as error:
                driver = DRIVERS.get(protocol)
                what = f"pip install {driver}" if driver else str(error)
                raise UserError(f"{flag} {url} needs a driver for {protocol}://: {what}") from None
        self._fs.use_listings_cache = False
        self._at_once = protocol in OBJECT_STORES

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever a driver raises, in one line."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # drivers raise what they like
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise UserError(f"{self.flag} {self.url}: {reason[:200]}; check the place and the access to it") from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """Names of the files and folders in it; none where it is not there."""
        with self._told():
            try:
                self._fs.invalidate_cache()
                found = self._fs.ls(self._root, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                if self._fs.isfile(self._root):
                    raise UserError(f"{self.flag} {self.url} is a file; give a folder") from None
                return set()
        if any(e["name"].rstrip("/") == self._root.rstrip("/") and e["type"] == "file" and e["size"] for e in found):
            raise UserError(f"{self.flag} {self.url} is a file; give a folder")
        root = self._root.rstrip("/")  # which some stores list among what is in it
        return {path.rsplit("/", 1)[-1] for e in found if (path := e["name"].rstrip("/")) != root}

    @property
    def near(self) -> bool:
        """Whether it is a folder of this machine, where a look at every file costs little."""
        return isinstance(self._fs, LocalFileSystem)

    def tail(self, name: str, size: int) -> bytes:
        """The last `size` bytes of a file, all of a shorter one."""
        with self._told():
            found: bytes = self._fs.tail(self._path(name), size)
            return found

    def read(self, name: str) -> bytes:
        with self._told():
            found: bytes = self._fs.cat_file(self._path(name))
            return found

    def write(self, name: str, data: bytes | Path) -> None:
        """A file of these bytes, or a copy of a local file; whole or not at all."""
        with self._told():
            target = self._path(name)
            if self._at_once:
                self._put(data, target)
                return
            self._fs.makedirs(self._root, exist_ok=True)
            part = self._path(f".{name}.{os.getpid()}.part")
            try:
                self._put(data, part)
                self._move(part, target)
            except BaseException:
                with suppress(Exception):
                    self._fs.rm_file(part)
                raise

    def _put(self, data: bytes | Path, target: str) -> None:
        if isinstance(data, Path):
            self._fs.put_file(os.fspath(data), target)
        else:
            self._fs.pipe_file(target, data)

    def _move(self, part: str, target: str) -> None:
        if isinstance(self._fs, LocalFileSystem):
            os.replace(part, target)  # also over a file that is there
        else:
            self._fs.mv(part, target)

    def remove(self, name: str) -> None:
        with self._told(), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def remove_folder(self) -> None:
        """If it is empty, where there are folders at all."""
        with suppress(Exception):
            self._fs.rmdir(self._root)
