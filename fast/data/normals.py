"""Normal images of parts that are tested on: their surface gives a part away as its defects do.

Groups say of which part a normal is (`groups.csv`, see `fast.data.groups`, or the layout); one that they do not name is
of no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fast.data.check import check
from fast.data.index import DatasetIndex, Sample
from fast.data.layouts import open_dataset
from fast.data.split import Split, make_split
from fast.runtime.counts import number_of

LEFT_OUT = "they are left out"


def normals_of_test(index: DatasetIndex, split: Split) -> list[Sample]:
    """The normals to train on that show a part which is tested on, and none that is trained on; for a nested split also
    a part of the test side of the split that it lies in. `index`: with the defects of all types, a part may have
    several (`whole`)."""
    held = {*split.test, *(split.excluded if split.nested_in else ())}
    defects, trained = [*index.defects, *index.excluded], set(split.train)
    tested = [*index.test_normals, *(s for s in defects if index.relative(s.image) in held)]
    parts = {_part(s) for s in tested} - {_part(s) for s in defects if index.relative(s.image) in trained}
    return [s for s in index.normals if _part(s) in parts]


def shares_parts(index: DatasetIndex) -> bool:
    """Whether any normal to train on shows a part that has defects or normals to test on, too."""
    parts = {_part(s) for s in [*index.defects, *index.excluded, *index.test_normals]}
    return any(_part(s) in parts for s in index.normals)


def whole(index: DatasetIndex) -> DatasetIndex:
    """All that the dataset of an index holds, which may have been narrowed."""
    return open_dataset(index.root, index.layout)


def drawn_split(index: DatasetIndex, seed: int = 0) -> Split:
    """The third that `scripts/prepare_data.py` draws; of the index no normal is read."""
    return make_split(check(replace(index, normals=[], test_normals=[])).usable, seed=seed)


def without_tested(index: DatasetIndex, tested: Sequence[Sample]) -> DatasetIndex:
    """The index without the normals that are `tested`. A category that has no others keeps them, for nothing can be
    made of it without any; `normals_notes` tells."""
    left = set(tested)
    having = {s.category for s in index.normals if s not in left}
    return replace(index, normals=[s for s in index.normals if s not in left or s.category not in having])


def apart(index: DatasetIndex, split: Split) -> DatasetIndex:
    """The index without the normals of parts that are tested on, where it has others."""
    return without_tested(index, normals_of_test(index, split))


def normals_notes(index: DatasetIndex, tested: Sequence[Sample], then: str = LEFT_OUT) -> list[str]:
    """What to tell of the normals that are `tested`: how many are left out, and how many are not for want of others.
    `index`: with them or `without_tested`; `then`: what becomes of the first."""
    used, every = set(without_tested(index, tested).normals), len({*index.normals, *tested})
    left, kept = ([s for s in tested if (s in used) is use] for use in (False, True))

    def told(samples: list[Sample]) -> str:
        of = f"of {every} normal images"
        some = number_of(len(samples), f"{of} shows a part that is", f"{of} show parts that are")
        first = index.relative(samples[0].image)
        return f"{some} tested on ({first}{' the first' if len(samples) > 1 else ''})"

    notes = [f"{told(left)}; {then}"] if left else []
    if kept:
        notes += [f"{told(kept)}, and there are no others: scores come out too good; add normal images of other parts"]
    return notes


def _part(sample: Sample) -> tuple[str, str]:
    return sample.category, sample.group
