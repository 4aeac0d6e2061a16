"""Normal images of parts that are tested on: their surface gives a part away as its defects do.

Groups say of which part a normal is (`groups.csv`, see `fast.data.groups`, or the layout); one that they do not name is
of no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fast.data.check import check
from fast.data.index import DatasetIndex, Sample
from fast.data.split import Split, make_split
from fast.runtime.counts import number_of


def normals_of_test(index: DatasetIndex, split: Split) -> list[Sample]:
    """The normals to train on that show a part which is tested on, and none that is trained on; for a nested split also
    a part of the test side of the split that it lies in. `index`: with the defects of all types, a part may have
    several (`DatasetIndex.whole`)."""
    names = tested_names(split)
    defects, trained = [*index.defects, *index.excluded], set(split.train)
    tested = [*index.test_normals, *(s for s in defects if index.relative(s.image) in names)]
    parts = {_part(s) for s in tested} - {_part(s) for s in defects if index.relative(s.image) in trained}
    return [s for s in index.normals if _part(s) in parts]


def tested_names(split: Split) -> set[str]:
    """The names of the defects that a split keeps to test on, for a nested one also those of the split that it lies
    in."""
    return {*split.test, *(split.excluded if split.nested_in else ())}


def shares_parts(index: DatasetIndex) -> bool:
    """Whether any normal to train on shows a part that has defects or normals to test on, too."""
    parts = {_part(s) for s in [*index.defects, *index.excluded, *index.test_normals]}
    return any(_part(s) in parts for s in index.normals)


def drawn_split(index: DatasetIndex) -> Split:
    """The third that `scripts/prepare_data.py` draws, of no normal read; empty where no defect is of use."""
    usable = check(replace(index, normals=[], test_normals=[])).usable
    return make_split(usable) if usable.defects else Split([], [], 0, 1 / 3)


def refuse_foreign(split: Split, index: DatasetIndex) -> None:
    """UserError for a split that knows no defect of a dataset which has some; it may be of one category of several."""
    names = {index.relative(s.image) for s in index.defects}
    if names and not names & {*split.train, *split.test, *split.excluded}:
        split.apply(index)  # says so


def without_tested(index: DatasetIndex, tested: Sequence[Sample]) -> DatasetIndex:
    """The index with those of its normals that are `tested` among its `tested_normals`. A category that has no others
    keeps them, for nothing can be made of it without any; `normals_notes` tells."""
    asked = set(tested)
    having = {s.category for s in index.normals if s not in asked}
    left = [s for s in index.normals if s in asked and s.category in having]
    out = set(left)
    used = [s for s in index.normals if s not in out]
    return replace(index, normals=used, tested_normals=[*index.tested_normals, *left])


def apart(index: DatasetIndex, split: Split) -> DatasetIndex:
    """The index without the normals of parts that are tested on, where it has others."""
    return without_tested(index, normals_of_test(index, split))


def normals_notes(index: DatasetIndex, tested: Sequence[Sample], by: str = "") -> list[str]:
    """What to tell of the normals of an index that are `tested`: how many are left out (`by` whom, if not by all that
    is done), and how many are not for want of others."""
    left = without_tested(replace(index, tested_normals=[]), tested).tested_normals
    out = set(left)
    kept = [s for s in tested if s not in out]

    def told(samples: Sequence[Sample]) -> str:
        of = f"of {len(index.normals)} normal images"
        some = number_of(len(samples), f"{of} shows a part that is", f"{of} show parts that are")
        first = index.relative(samples[0].image)
        return f"{some} tested on ({first}{' the first' if len(samples) > 1 else ''})"

    notes = [f"{told(left)}: left out{by}"] if left else []
    if kept:
        notes += [f"{told(kept)}, and there are no others: scores come out too good; add normal images of other parts"]
    return notes


def _part(sample: Sample) -> tuple[str, str]:
    return sample.category, sample.group
