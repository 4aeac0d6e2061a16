"""What files hold, whatever they are called: to hash a dataset, and to find copies."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from fast.data.images import list_images, read_mask
from fast.data.index import DatasetIndex
from fast.data.reading import reading_file
from ldm.errors import UserError
from ldm.hashing import file_hash


def hash_of(path: Path) -> str:
    """SHA-256 of a file's bytes; of a folder of mask parts by the names and bytes of its images."""
    if not path.is_dir():
        return file_hash(path)
    names = [f"{p.name} {file_hash(p)}" for p in list_images(path)]
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def reading_files(paths: Iterable[Path]) -> list[Path]:
    """The files that say how others are read (`fast.data.reading`), each once."""
    found = {reading_file(folder) for folder in {p.parent for p in paths}}
    return sorted(p for p in found if p is not None)


def dataset_content(index: DatasetIndex) -> str:
    """SHA-256 of the names and bytes of all pictures and masks, and of what says how they are read: a corrected mask
    makes another dataset."""
    samples = [*index.normals, *index.test_normals, *index.defects]
    files = sorted({path for s in samples for path in (s.image, s.mask) if path is not None})
    lines = [f"{index.relative(path)} {hash_of(path)}" for path in [*files, *reading_files(files)]]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def mask_content(path: Path) -> str:
    """SHA-256 of what a mask file says, whatever its format. UserError when it cannot be read."""
    mask = read_mask(path)
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def same_bytes(files: Iterable[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """Which of `files` hold the same bytes as one of the `others`, and as which. Files that differ in size, or in the
    middle, are not read: a camera's uncompressed pictures all have one size. What cannot be read is no copy."""
    alike: dict[tuple[int, bytes], list[Path]] = {}
    for path in others:
        if mark := _mark(path):
            alike.setdefault(mark, []).append(path)
    sizes, found = {size for size, _ in alike}, {}
    hashes: dict[tuple[int, bytes], dict[str, Path]] = {}  # of those that one of the files may be a copy of
    for path in files:
        mark = _mark(path, sizes)
        if mark in alike:
            if mark not in hashes:
                hashes[mark] = {file_hash(twin): twin for twin in reversed(alike[mark])}
            if (twin := hashes[mark].get(file_hash(path))) is not None:
                found[path] = twin
    return found


def _mark(path: Path, sizes: Collection[int] | None = None) -> tuple[int, bytes] | None:
    """A file's size and some bytes of its middle; None where it is not of these sizes, empty, or cannot be read."""
    try:
        size = path.stat().st_size
        if not size or (sizes is not None and size not in sizes):
            return None
        with open(path, "rb") as file:
            file.seek(size // 2)
            return size, file.read(4096)
    except OSError:
        return None


class Copies:
    """Finds out whether a file is a copy of one of `files`: the same bytes under another path, or the same mask in
    another format. Only files of one size are hashed, and only `masks` decoded, once each."""

    def __init__(self, files: Iterable[Path]):
        self._paths = {p.resolve() for p in files}
        self._sizes: dict[int, list[Path]] = {}
        for path in self._paths:
            if path.is_file() and path.stat().st_size:
                self._sizes.setdefault(path.stat().st_size, []).append(path)
        self._bytes: dict[int, set[str]] = {}
        self._masks: set[str] | None = None
        self._known: dict[tuple[Path, bool], bool] = {}

    def holds(self, path: Path, mask: bool) -> bool:
        """True if `path` is one of the files or a copy of one; with `mask` also if it says what one of them says."""
        key = path.resolve(), mask
        if key not in self._known:
            self._known[key] = key[0] in self._paths or self._same_bytes(key[0]) or (mask and self._same_mask(key[0]))
        return self._known[key]

    def _same_bytes(self, path: Path) -> bool:
        if not path.is_file() or (size := path.stat().st_size) not in self._sizes:
            return False
        if size not in self._bytes:
            self._bytes[size] = {file_hash(p) for p in self._sizes[size]}
        return file_hash(path) in self._bytes[size]

    def _same_mask(self, path: Path) -> bool:
        if self._masks is None:
            self._masks = {text for p in self._paths if (text := _content(p))}
        return _content(path) in self._masks


def _content(path: Path) -> str | None:
    """`mask_content`; None for what is no mask: a photograph, or gone."""
    try:
        return mask_content(path)
    except UserError:
        return None
