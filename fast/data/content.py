"""What files hold, whatever they are called: to hash a dataset, and to find copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from stat import S_ISREG

import numpy as np

from fast.data.images import list_images, read_mask
from fast.data.index import DatasetIndex, Sample
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


class Copies:
    """Finds the one of `files` that another file is, or is a copy of: the same bytes under another path, or the same
    mask in another format. A file whose size or middle no other has is not read whole, a camera's uncompressed pictures
    all have one size; those that are asked for as masks are decoded. What cannot be read is a copy of nothing else."""

    def __init__(self, files: Iterable[Path]):
        self.files = list(files)
        self._middles: dict[int, dict[bytes, list[Path]]] = {}
        self._hashes: dict[tuple[int, bytes], dict[str, Path]] = {}
        self._masks: dict[str, Path] | None = None
        self._known: dict[tuple[Path, bool], Path | None] = {}

    @classmethod
    def of_samples(cls, samples: Iterable[Sample]) -> Copies:
        """Of their images and masks, each by its own place."""
        return cls(sorted({path.resolve() for s in samples for path in (s.image, s.mask) if path is not None}))

    def twin(self, path: Path, mask: bool = False) -> Path | None:
        """The file that `path` is or is a copy of, the first of several; with `mask` also one that says the same as a
        mask. None for none."""
        key = path, mask
        if key not in self._known:
            self._known[key] = self._same_bytes(path) or (self._same_mask(path) if mask else None)
        return self._known[key]

    def among(self, paths: Iterable[Path]) -> dict[Path, Path]:
        """The `twin` of each of `paths` that has one."""
        return {path: twin for path in paths if (twin := self.twin(path)) is not None}

    def repeated(self) -> dict[Path, Path]:
        """Each of `files` with the same bytes as one before it, and the first that has them."""
        found: dict[Path, Path] = {}
        for size in [size for size, files in self._sizes.items() if size and len(files) > 1]:
            for files in self._of_size(size).values():
                first: dict[str, Path] = {}
                for path in files if len(files) > 1 else ():
                    one = first.setdefault(file_hash(path), path)
                    if one != path:
                        found[path] = one
        return found

    @cached_property
    def _sizes(self) -> dict[int, list[Path]]:
        """The files by their sizes; no file is looked at before one is asked for."""
        found: dict[int, list[Path]] = {}
        for path in self.files:
            found.setdefault(_size(path), []).append(path)
        return found

    def _of_size(self, size: int) -> dict[bytes, list[Path]]:
        """The files of a size, by their middles."""
        if size not in self._middles:
            self._middles[size] = {}
            for other in self._sizes[size]:
                if (own := _middle(other, size)) is not None:
                    self._middles[size].setdefault(own, []).append(other)
        return self._middles[size]

    def _same_bytes(self, path: Path) -> Path | None:
        size = _size(path)
        if size not in self._sizes:
            return None
        middle = _middle(path, size)
        if middle is None:  # empty, gone or locked: only its place tells
            place = path.resolve()
            return next((other for other in self._sizes[size] if other.resolve() == place), None)
        if middle not in self._of_size(size):
            return None
        if (size, middle) not in self._hashes:  # the first of several counts
            self._hashes[size, middle] = {file_hash(p): p for p in reversed(self._middles[size][middle])}
        return self._hashes[size, middle].get(file_hash(path))

    def _same_mask(self, path: Path) -> Path | None:
        if self._masks is None:
            self._masks = {text: p for p in reversed(self.files) if (text := _content(p))}
        text = _content(path)
        return None if text is None else self._masks.get(text)


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if S_ISREG(found.st_mode) else 0


def _middle(path: Path, size: int) -> bytes | None:
    """Some bytes of a file's middle; None of an empty one, or where it cannot be read."""
    if not size:
        return None
    try:
        with open(path, "rb") as file:
            file.seek(size // 2)
            return file.read(4096)
    except OSError:
        return None


def _content(path: Path) -> str | None:
    """`mask_content`; None for what is no mask: a photograph, or gone."""
    try:
        return mask_content(path)
    except UserError:
        return None
