"""Folders of pairs that the project made: inside a dataset they are no pictures of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fast.data.reading import MANIFEST

PROVENANCE = "provenance.jsonl"  # in every folder that scripts/export.py writes
_MANIFEST_HAS = (b'"mask": "mask/',)
_PROVENANCE_HAS = (b'"file": ', b'"image": ', b'"mask": ', b'"type": ')


def is_made(folder: Path) -> bool:
    """Whether a folder holds pairs that `generate_with_mask.py` made or is about to make, or an export of such."""
    if (folder / ".records").is_dir():
        return True
    return _begins(folder / MANIFEST, _MANIFEST_HAS) or _begins(folder / PROVENANCE, _PROVENANCE_HAS)


def without_made(files: Sequence[Path], folder: Path) -> list[Path]:
    """Those of the files below `folder` that lie in no folder of made pairs. `folder` may be one itself: who names it
    means it."""
    inner = {d for own in {p.parent for p in files} for d in (own, *own.parents) if folder in d.parents}
    made = {d for d in inner if is_made(d)}
    return [p for p in files if not made.intersection(p.parents)] if made else list(files)


def made_around(path: Path, folder: Path) -> Path | None:
    """The outermost folder of made pairs below `folder` that a file lies in."""
    return next((d for d in reversed(path.parents) if folder in d.parents and is_made(d)), None)


def _begins(path: Path, texts: tuple[bytes, ...]) -> bool:
    """Whether the first line of a file has all the texts; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
    except OSError:
        return False
    return all(text in line for text in texts)
