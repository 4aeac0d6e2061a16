"""The one train/test split of the real defects: made once, by physical part, kept in a hashed file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from fast.data.images import write_bytes
from fast.data.layouts import DatasetIndex, Sample, require_defects
from ldm.errors import LFS_REMEDY, UserError, is_lfs_pointer

RULE = "whole parts; per defect type the train images nearest to the fraction, a part on each side where there are two"
ANOTHER = RULE + "; of divisions tried before, one of those almost as near, its parts tested the least often"
EXHAUSTIVE = 12  # so many groups shared between types: every choice of their sides is tried
PAIRWISE = 150  # of so many groups pairs are moved in seconds; beyond that single moves must do


@dataclass
class Split:
    """A division of the real defects into images to train and to test on.

    Args:
        train, test: the images of the two sides, as posix paths relative to the dataset's root.
        seed, fraction: what it was made with, see `make_split`.
        rule: how it was made, in words.
        excluded: images that are on neither side: those that `check` found unusable, and in a nested split the test
            side of the split around it.
        notes: what is worth knowing about it, such as types that have one part alone.
        nested_in: hash of the split whose training side this one divides. Empty: none.
    """

    train: list[str]
    test: list[str]
    seed: int
    fraction: float
    rule: str = RULE
    excluded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nested_in: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of the content; every result carries it."""
        text = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all. UserError on failure."""
        write_bytes(path, self.text().encode())

    def text(self) -> str:
        """What a split file holds."""
        return json.dumps({"hash": self.hash, **self._content()}, indent=1) + "\n"

    def _content(self) -> dict[str, Any]:
        """Without `nested_in` where it is empty: the hash of such a split is that of its sides alone."""
        return {key: value for key, value in asdict(self).items() if key != "nested_in" or value}

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split file. UserError when it is missing, no split, or no longer what its hash says."""
        try:
            text = Path(path).read_bytes()
            if is_lfs_pointer(text):
                raise UserError(f"{path}: {LFS_REMEDY}")
            content = json.loads(text.decode())
        except FileNotFoundError:
            raise UserError(f"{path}: cannot read the split (no file); make it with scripts/prepare_data.py") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot read the split ({error}); make it with scripts/prepare_data.py") from error
        keys = {
            "train": list,
            "test": list,
            "seed": int,
            "fraction": float,
            "rule": str,
            "excluded": list,
            "notes": list,
        }
        if isinstance(content, dict) and "nested_in" in content:
            keys["nested_in"] = str
        hashed = content.pop("hash", None) if isinstance(content, dict) else None
        if hashed is None or not _has_types(content, keys):
            raise UserError(f"{path}: not a split file; make it with scripts/prepare_data.py")
        split = cls(**content)
        if split.hash != hashed:
            raise UserError(
                f"{path}: its content has hash {split.hash[:12]}, its header says {str(hashed)[:12]}: "
                "it was edited; restore it or make it again with scripts/prepare_data.py"
            )
        return split

    def apply(self, index: DatasetIndex) -> tuple[list[Sample], list[Sample]]:
        """The index's defects as (train, test). UserError when the split does not know one: it would leak."""
        train, test, excluded = set(self.train), set(self.test), set(self.excluded)
        names = {index.relative(s.image): s for s in index.defects}
        unknown = [name for name in names if name not in train | test | excluded]
        if unknown:
            example = (self.train or self.test or ["nothing"])[0]
            raise UserError(
                f"{index.root}: the split does not know {len(unknown)} of {len(names)} defects (first: {unknown[0]}; "
                f"it knows e.g. {example}); open the folder it was made from, or make a new split"
            )
        chosen = [(name, s) for name, s in names.items() if name not in excluded]
        return [s for name, s in chosen if name in train], [s for name, s in chosen if name in test]


def split_file(split: str) -> Split | None:
    """The split in the file that `split` names. None where it is "third" or "all". Raises `UserError`."""
    return None if split in ("third", "all") else Split.load(split)


def make_split(index: DatasetIndex, fraction: float = 1 / 3, seed: int = 0) -> Split:
    """Divide the defects of a dataset into a training and a test side, by type and by whole physical parts.

    In each category and type the training share comes as near to `fraction` as whole groups of images allow, with a
    group on each side where there are two. A single group goes to train, and a note says so. The result depends on
    names and `seed` alone.

    Args:
        index: the dataset, best `check(...).usable`.
        fraction: share of each type's images that trains, between 0 and 1.
        seed: decides between divisions that are equally good.

    Raises:
        UserError: when the fraction is out of range, or there is no defect.
    """
    if not 0 < fraction < 1:
        raise UserError(f"fraction={fraction} must lie between 0 and 1; the protocol's is 1/3")
    return _divided(index, fraction, seed, [])


def _divided(index: DatasetIndex, fraction: float, seed: int, earlier: list[set[str]]) -> Split:
    """`make_split`; `earlier`: what other splits test on, which is not tested on again as long as another will do."""
    require_defects(index)
    train, test, notes, rule = [], [], [], RULE
    for category in index.categories:
        samples = [s for s in index.defects if s.category == category]
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in samples:
            counts[sample.anomaly][sample.group] += 1
        in_train = _assign(counts, fraction, f"{seed}/{category}")
        tested = [{s.group for s in samples if index.relative(s.image) in side} for side in earlier]
        now = {s.group for s in samples} - in_train
        if now and now in tested:
            other = _another(counts, fraction, f"{seed}/{category}", in_train, tested)
            in_train, rule = other, rule if other == in_train else ANOTHER
        train += [index.relative(s.image) for s in samples if s.group in in_train]
        test += [index.relative(s.image) for s in samples if s.group not in in_train]
        notes += [f"{category}/{kind}: {note}" for kind, c in sorted(counts.items()) for note in _note(c, in_train)]
    excluded = sorted(index.relative(s.image) for s in index.excluded)
    return Split(sorted(train), sorted(test), int(seed), float(fraction), rule=rule, excluded=excluded, notes=notes)


def nested_splits(index: DatasetIndex, split: Split, count: int, fraction: float = 2 / 3) -> list[Split]:
    """Divide the training side of a split anew, into inner splits to choose on without a look at the test side.

    They divide as `make_split` does, by whole parts and spread over the types. Where few parts leave one division that
    is nearest to the fraction, the second split would be the first again. It then takes another division, farther from
    the fraction by the images of the smallest part at most: one whose parts were tested least often. A split depends on
    those before it, not on `count`.

    Args:
        index: the dataset.
        split: the split to divide the training side of. Its test side is excluded from the inner ones, so that who
            reads them never sees it.
        count: how many inner splits there are.
        fraction: share of each type's images that trains.

    Raises:
        UserError: when nothing is left to test on, as each type has one part alone, or `split` does not know a defect.
    """
    train, _ = split.apply(index)
    found: list[Split] = []
    for seed in range(count):
        earlier = [set(inner.test) for inner in found]
        inner = _divided(replace(index, defects=train, excluded=[]), fraction, seed, earlier)
        if not inner.test:
            raise UserError(
                f"{index.root}: the {len(train)} defects to train on are of one part for each type, so nothing is left "
                "to choose by; add defects of other parts"
            )
        found.append(replace(inner, excluded=sorted({*split.test, *split.excluded}), nested_in=split.hash))
    return found


def _assign(counts: dict[str, Counter[str]], fraction: float, salt: str) -> set[str]:
    """Groups that go to train. `counts`: type -> group -> images; a group of several types is on one side for all."""
    uses = Counter(g for groups in counts.values() for g in groups)
    # Ordered by hash, not by a generator: the same on every machine, and no other type's images shift it.
    shared = sorted((g for g, n in uses.items() if n > 1), key=lambda g: _digest(f"{salt}/{g}"))
    types = [_Type(groups, set(shared), fraction, f"{salt}/{kind}") for kind, groups in sorted(counts.items())]
    if len(shared) <= EXHAUSTIVE:
        every = [{g for i, g in enumerate(shared) if bits >> i & 1} for bits in range(2 ** len(shared))]
        train = min(every, key=lambda t: (_total(types, t), _digest(f"{salt}/{sorted(t)}")))
    else:
        train = _descend(types, shared, {g for g in shared if int(_digest(f"{salt}/{g}"), 16) < fraction * 2**256})
    return train.union(*(kind.free_train(train) for kind in types))


def _another(
    counts: dict[str, Counter[str]], fraction: float, salt: str, nearest: set[str], tested: list[set[str]]
) -> set[str]:
    """Groups that go to train where the choice nearest to the fraction was taken before: of those that are farther off
    by the images of the smallest group at most, one that is new and tests what was `tested` least often."""
    images = sum(counts.values(), Counter())
    groups = sorted(images, key=lambda g: _digest(f"{salt}/{g}"))
    types = [_Type(own, set(groups), fraction, salt) for own in counts.values()]
    if len(groups) <= EXHAUSTIVE:
        every = [{g for i, g in enumerate(groups) if bits >> i & 1} for bits in range(2 ** len(groups))]
    else:
        every = [nearest ^ {*move} for n in (0, 1, 2) for move in combinations(groups[:PAIRWISE], n)]
    untrained, untested, distance = _total(types, nearest)
    farthest, taken = distance + min(images.values()), Counter(map(frozenset, tested))
    before = Counter(g for side in tested for g in side)

    def cost(train: set[str]) -> tuple[bool, int, int, float, str]:
        lost, hidden, away = _total(types, train)
        worse = (lost, hidden) > (untrained, untested) or away > farthest
        times = [before[g] + (g not in train) for g in groups]
        uneven = len(times) * sum(t * t for t in times) - sum(times) ** 2  # their variance, but for a factor
        return worse, taken[frozenset(images.keys() - train)], uneven, away, _digest(f"{salt}/{sorted(train)}")

    return min(every, key=cost)


class _Type:
    """One defect type: given the sides of the groups that it shares with others, its own groups have a best choice."""

    def __init__(self, groups: Counter[str], shared: set[str], fraction: float, salt: str) -> None:
        self.shared = {g: n for g, n in groups.items() if g in shared}
        self.total, self.count, self.fraction = sum(groups.values()), len(groups), fraction
        # Every sum of images that its own groups can reach -> (sum before, group added last).
        self.reached: dict[int, tuple[int, str] | None] = {0: None}
        for group in sorted(set(groups) - shared, key=lambda g: _digest(f"{salt}/{g}")):
            for before in list(self.reached):
                self.reached.setdefault(before + groups[group], (before, group))
        self.known: dict[int, tuple[tuple[bool, bool, float], int]] = {}

    def best(self, train: set[str]) -> tuple[tuple[bool, bool, float], int]:
        """Cost and sum of the best choice; no train part is worse than no test part, that worse than any distance."""
        fixed = sum(n for g, n in self.shared.items() if g in train)
        if fixed not in self.known:
            self.known[fixed] = min(
                ((n == 0, self.count > 1 and n == self.total, abs(n - self.fraction * self.total)), n - fixed)
                for n in (fixed + free for free in self.reached)
            )
        return self.known[fixed]

    def free_train(self, train: set[str]) -> set[str]:
        chosen: set[str] = set()
        step = self.reached[self.best(train)[1]]
        while step is not None:
            chosen.add(step[1])
            step = self.reached[step[0]]
        return chosen


def _total(types: list[_Type], train: set[str]) -> tuple[int, int, float]:
    """Types without a train part, types without a test part, images away from the fraction."""
    costs = [kind.best(train)[0] for kind in types]
    return sum(c[0] for c in costs), sum(c[1] for c in costs), round(sum(c[2] for c in costs), 6)


def _descend(types: list[_Type], shared: list[str], train: set[str]) -> set[str]:
    """Too many shared groups to try every choice: move one, or two, to the other side while that helps."""
    moves = [{g} for g in shared]
    if len(shared) <= PAIRWISE:
        moves += [set(pair) for pair in combinations(shared, 2)]
    best, before = _total(types, train), None
    while best != before:
        before = best
        for move in moves:
            cost = _total(types, train ^ move)
            if cost < best:
                best, train = cost, train ^ move
    return train


def _note(groups: Counter[str], in_train: set[str]) -> list[str]:
    trained = len(set(groups) & in_train)
    if len(groups) == 1:
        return ["one part only: all in train, none to test on" if trained else "one part only: all in test"]
    if trained in (0, len(groups)):
        return [f"its {len(groups)} parts are shared with other types: all in {'train' if trained else 'test'}"]
    return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _has_types(content: dict[str, Any], keys: dict[str, type]) -> bool:
    if set(content) != set(keys) or not all(isinstance(content[key], kind) for key, kind in keys.items()):
        return False
    return all(isinstance(item, str) for key in ("train", "test", "excluded", "notes") for item in content[key])
