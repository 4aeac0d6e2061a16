"""Normal images of parts that are tested on: their surface gives a part away as its defects do.

Groups say of which part a normal is (`groups.csv`, see `fast.data.groups`); one that they do not name is of no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fast.data.index import DatasetIndex, Sample
from fast.data.split import Split
from fast.runtime.counts import number_of


def normals_of_test(index: DatasetIndex, split: Split) -> list[Sample]:
    """The normals to train on that show a part which is tested on; for a nested split also a part of the test side of
    the split that it lies in."""
    held = {*split.test, *(split.excluded if split.nested_in else ())}
    parts = {(s.category, s.group) for s in [*index.defects, *index.excluded] if index.relative(s.image) in held}
    return [s for s in index.normals if (s.category, s.group) in parts]


def without_tested(index: DatasetIndex, tested: Sequence[Sample]) -> DatasetIndex:
    """The index without the normals that are `tested`. A category that has no others keeps them, for nothing can be
    made of it without any; `normals_notes` tells."""
    left = set(tested)
    having = {s.category for s in index.normals if s not in left}
    return replace(index, normals=[s for s in index.normals if s not in left or s.category not in having])


def apart(index: DatasetIndex, split: Split) -> DatasetIndex:
    """The index without the normals of parts that are tested on, where it has others."""
    return without_tested(index, normals_of_test(index, split))


def normals_notes(index: DatasetIndex, tested: Sequence[Sample]) -> list[str]:
    """What to tell of the normals that are `tested`: how many are left out, and how many are not for want of others.
    `index`: with them or `without_tested`."""
    used, every = set(without_tested(index, tested).normals), len({*index.normals, *tested})
    left, kept = ([s for s in tested if (s in used) is use] for use in (False, True))

    def told(samples: list[Sample]) -> str:
        of = f"of {every} normal images"
        some = number_of(len(samples), f"{of} shows a part that is", f"{of} show parts that are")
        return f"{some} tested on ({index.relative(samples[0].image)}, of part {samples[0].group}, the first)"

    notes = [f"{told(left)}; nothing is trained on them or made of them"] if left else []
    if kept:
        notes += [f"{told(kept)}, and there are no others: scores come out too good; add normal images of other parts"]
    return notes
