"""What of a dataset's folder was not used, named and counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from fast.data.groups import GROUPS
from fast.data.images import is_image, list_files
from fast.data.index import DatasetIndex
from fast.data.made import PROVENANCE, made_around
from fast.data.reading import NAME
from fast.runtime.counts import number_of

# Files that come with datasets and are no pictures of them.
TELLING = ("readme", "license", "licence", "copying", "citation", "changelog", "thumbs", "desktop", "defects_config")
OURS = ("classes.json", PROVENANCE)  # of imports and exports
SHOWN = 6  # folders


def unused_notes(index: DatasetIndex) -> list[str]:
    """A line for each folder of pairs that were made, and for each other folder with files that are neither samples nor
    in a problem line: how many, of which kind."""
    samples = [*index.normals, *index.test_normals, *index.defects, *index.excluded]
    used = {p for s in samples for p in (s.image, s.mask)} | index.seen
    left: dict[Path, list[Path]] = defaultdict(list)
    for path in list_files(index.root):
        if path not in used and not _tells(path):
            left[path.parent].append(path)
    made = _taken_out(left, index.root)
    lines = [_made_line(index, folder, count) for folder, count in made.items()]
    lines += [_line(index, folder, files) for folder, files in list(left.items())[:SHOWN]]
    rest = list(left.values())[SHOWN:]
    if rest:
        lines.append(f"not used: {number_of(sum(map(len, rest)), 'file')} in {number_of(len(rest), 'more folder')}")
    return lines


def _taken_out(left: dict[Path, list[Path]], root: Path) -> Counter[Path]:
    """The folders of made pairs that hold some of what is `left`, and how many files; they are `left` no longer."""
    found: Counter[Path] = Counter()
    for folder in list(left):
        made = made_around(left[folder][0], root)
        if made is not None:
            found[made] += len(left.pop(folder))
    return found


def _made_line(index: DatasetIndex, folder: Path, count: int) -> str:
    return f"not used: {number_of(count, 'file')} of pairs that were made in {index.relative(folder)}"


def _tells(path: Path) -> bool:
    return path.name in (GROUPS, NAME, *OURS) or path.suffix.lower() == ".md" or path.stem.lower().startswith(TELLING)


def _line(index: DatasetIndex, folder: Path, files: list[Path]) -> str:
    first = index.relative(files[0])
    if len(files) == 1:
        return f"not used: {first}"
    kinds = Counter(p.suffix.lower() if is_image(p) else f"{p.suffix.lower() or 'no suffix'}, no known picture"
                    for p in files)  # fmt: skip
    told = "; ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
    return f"not used: {number_of(len(files), 'file')} in {index.relative(folder)} ({told}; first: {first})"
