"""What a folder of the user's holds that counts, and JSON from files that anybody may have written."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fast.runtime.locks import locked
from ldm.errors import UserError

# What file managers and network drives leave in any folder that somebody has looked at.
_LEFT = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".localized", "icon\r"})
_LEFT_BEGINNINGS = ("._", ".nfs", ".fuse_hidden", ".~lock.", ".sync", ".stfolder", ".dropbox", "@eadir")


def held(folder: Path) -> set[str]:
    """Names in a folder, without what a file manager has left there; empty for a folder that is not there."""
    return {p.name for p in folder.iterdir() if not is_litter(p.name)} if folder.is_dir() else set()


def is_litter(name: str) -> bool:
    """Whether a file manager, not a person or a program of ours, made a file or folder of this name."""
    lower = name.lower()
    return lower in _LEFT or lower.startswith(_LEFT_BEGINNINGS)


@contextmanager
def sole(path: Path, flag: str) -> Iterator[None]:
    """Keeps other processes from writing the same file, or what lies beside it under its name, meanwhile.

    Raises `UserError` where one is at it. Leaves nothing behind, no folder either that stays empty.
    """
    lock = path.with_name(f".{path.name}.lock")
    new = [folder for folder in lock.parents if not folder.exists()]
    with ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            mine = stack.enter_context(locked(lock))
        except OSError as error:
            raise UserError(f"{flag} {path}: cannot write there ({error.strerror}); give another place") from None
        if mine is None:
            raise UserError(f"{flag} {path} is being written by another process; wait for it, or give another name")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            for folder in new:
                with suppress(OSError):  # no longer empty
                    folder.rmdir()


@contextmanager
def new_folder(path: Path, flag: str) -> Iterator[Path]:
    """A folder beside `path` to fill, which takes its name at the end; after an error or Ctrl-C nothing is left.

    Raises `UserError` where there is a file of that name, a folder that holds something, or no right to write.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and (not path.is_dir() or held(path)):
        raise UserError(f"{flag} {path} is there already; give a new folder")
    new = [folder for folder in path.parents if not folder.exists()]
    part = path.parent / f".{path.name}.part{os.getpid()}"
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            shutil.rmtree(path)  # what a file manager left in it
        os.replace(part, path)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"{flag} {path}: cannot write ({error.strerror}); free space or choose another folder") \
                from error  # fmt: skip
        raise


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name at the end: `<name>.part` first; after an error or Ctrl-C nothing is left.
    Raises `UserError` that names the path and the reason."""
    part = path.with_name(path.name + ".part")
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                yield file
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


@contextmanager
def new_files(files: Mapping[Path, bytes]) -> Iterator[None]:
    """Writes files around the block: as `<name>.part` before it, renamed after it. Where one cannot be written, or the
    block ends with an error, all files are as they were. Raises `UserError` that names the path and the reason."""
    parts = {path.with_name(path.name + ".part"): path for path in files}
    new = [folder for path in files for folder in path.parents if not folder.exists()]
    try:
        for part, path in parts.items():
            with _named(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(files[path])
        yield
        for part, path in parts.items():
            with _named(path):
                os.replace(part, path)
    except BaseException:
        for leaving in (*parts, *new):
            with suppress(OSError):  # never made, or a folder that holds something
                leaving.rmdir() if leaving in new else leaving.unlink(missing_ok=True)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror}); free space or choose another folder") from error


DEEPEST = 100  # levels of JSON that a program of ours would write, with much to spare


def parse_json(text: str | bytes) -> Any:
    """`json.loads`; a nesting deeper than `DEEPEST` is a ValueError like every other damage."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opened <= DEEPEST:
        return found  # it cannot be nested so deep, which is sooner seen than by looking
    level = [found]
    for _ in range(DEEPEST):
        level = [v for node in level if isinstance(node, dict | list) for v in _children(node)]
        if not level:
            return found
    raise ValueError("it is nested too deep")


def _children(node: dict[str, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node
