"""What a dataset holds: samples, an index of them by category and defect type, and ways to narrow it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fast.data.images import is_image, natural_key
from ldm.errors import UserError

GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One image. `anomaly` is "good" for a normal; `group` names the physical part, unique per image if unknown."""

    image: Path
    mask: Path | None
    category: str
    anomaly: str
    group: str


@dataclass
class DatasetIndex:
    """What a dataset holds, by the names of its files.

    Args:
        root: the dataset's folder.
        layout: name of its layout, one of `fast.data.layouts.LAYOUTS`.
        normals, test_normals, defects: the samples, normal images to train on and to test on, and images with defects.
        problems: what is wrong with which file. Each line begins with the file, relative to `root`.
        excluded: defects that `check` found unusable. They are in none of the lists above.
        tested_normals: normal images to train on that are left out, for they show parts that are tested on
            (`fast.data.normals`). They are in none of the lists above.
        notes: what was not used, and how things were read that could be meant in another way.
        doubts: such notes that every command tells.
        seen: files that are accounted for without being samples.
        folders: for each category, the folder of its groups.csv.
        opened: all that the dataset held when it was opened, of which this is a part. None: this is all of it.
    """

    root: Path
    layout: str
    normals: list[Sample]
    test_normals: list[Sample]
    defects: list[Sample]
    problems: list[str]
    excluded: list[Sample] = field(default_factory=list)
    tested_normals: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)  # files that are accounted for without being samples
    folders: dict[str, Path] = field(default_factory=dict)  # of each category, where its groups.csv lies
    opened: DatasetIndex | None = field(default=None, repr=False, compare=False)

    @property
    def whole(self) -> DatasetIndex:
        """All that the dataset held when it was opened: `opened`, or itself."""
        return self.opened or self

    @property
    def categories(self) -> list[str]:
        samples = [*self.normals, *self.test_normals, *self.defects, *self.excluded]
        return sorted({s.category for s in samples}, key=natural_key)

    @property
    def types(self) -> list[tuple[str, str]]:
        """Sorted (category, anomaly) pairs of the defects."""
        return sorted({(s.category, s.anomaly) for s in self.defects})

    @property
    def left_out(self) -> list[str]:
        """The files that lines of `problems` begin with, each once, relative to `root`: no sample is made of them."""
        masks = {self.relative(s.mask) for s in self.excluded if s.mask is not None}  # some are folders
        names = dict.fromkeys(_file(line) for line in self.problems)
        return [n for n in names if n in masks or is_image(Path(n)) or n.endswith(".json")]

    def relative(self, path: Path) -> str:
        return relative_to(path, self.root)

    def narrow(self, category: str | None = None, anomaly: str | None = None) -> DatasetIndex:
        """Only this category and this defect type, with the normals of the categories left. UserError: unknown name."""
        index = self if category is None else self._of_category(category)
        return index if anomaly is None else index._of_type(anomaly)

    def _of_category(self, category: str) -> DatasetIndex:
        if category not in self.categories:
            raise UserError(f"{self.root}: no category '{category}'; it holds: {', '.join(self.categories)}")
        problems = self.problems
        if len(self.categories) > 1:
            problems = [line for line in problems if line.startswith(f"{category}/")]
        return self._keep(lambda s: s.category == category, lambda s: s.category == category, problems)

    def _of_type(self, anomaly: str) -> DatasetIndex:
        defects = [*self.defects, *self.excluded]
        known = {s.anomaly for s in defects}
        if anomaly not in known:
            why = [line for line in self.problems if anomaly in Path(_file(line)).parts][:1]
            holds = f"; usable types: {', '.join(sorted(known)) or 'none'}"
            raise UserError("; ".join([f"{self.root}: no usable defect of type '{anomaly}'", *why]) + holds)
        left = {s.category for s in defects if s.anomaly == anomaly}
        problems = [line for line in self.problems if not (known - {anomaly}) & set(Path(_file(line)).parts)]
        return self._keep(lambda s: s.category in left, lambda s: s.anomaly == anomaly, problems)

    def _keep(
        self, normal: Callable[[Sample], bool], defect: Callable[[Sample], bool], problems: list[str]
    ) -> DatasetIndex:
        return replace(
            self,
            normals=list(filter(normal, self.normals)),
            test_normals=list(filter(normal, self.test_normals)),
            tested_normals=list(filter(normal, self.tested_normals)),
            defects=list(filter(defect, self.defects)),
            excluded=list(filter(defect, self.excluded)),
            problems=problems,
        )


def require_defects(index: DatasetIndex) -> None:
    """UserError with the first reasons when no defect is left. Give it `Report.usable`, so that files were decoded."""
    if not index.defects:
        shown = index.problems[:3]
        more = [f"and {len(index.problems) - 3} more problems"] if len(index.problems) > 3 else []
        reasons = "; ".join([*shown, *more]) or "it holds normal images only"
        raise UserError(f"{index.root}: no usable defect with a mask ({reasons}); add images and masks of defects")


def relative_to(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _file(line: str) -> str:
    return line.split(": ", 1)[0]
