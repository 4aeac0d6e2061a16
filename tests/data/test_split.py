import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fast.data.layouts import DatasetIndex, Sample
from fast.data.split import RULE, Split, make_split, nested_splits
from ldm.errors import UserError
from support import paths

ROOT = Path("/data")


def dataset(types: dict[str, dict[str, int]], category: str = "c") -> DatasetIndex:
    """types: anomaly -> group -> number of images."""
    defects = [
        Sample(ROOT / f"{kind}/{group}_{i}.png", ROOT / "m.png", category, kind, group)
        for kind, groups in types.items()
        for group, count in groups.items()
        for i in range(count)
    ]
    return DatasetIndex(ROOT, "mvtec", [], [], defects, [])


def shares(split: Split, index: DatasetIndex) -> dict[str, tuple[int, int]]:
    train, test = (Counter(s.anomaly for s in half) for half in split.apply(index))
    return {kind: (train[kind], test[kind]) for kind in sorted({*train, *test})}


def sides(count: int) -> product:
    return product([0, 1], repeat=count)


def parts(samples: list[Sample]) -> set[str]:
    return {s.group for s in samples}


def test_a_third_of_single_images() -> None:
    index = dataset({"crack": {f"g{i}": 1 for i in range(30)}, "hole": {f"h{i}": 1 for i in range(4)}})
    split = make_split(index)
    assert shares(split, index) == {"crack": (10, 20), "hole": (1, 3)}
    assert make_split(index).hash == split.hash
    assert make_split(index, seed=1).train != split.train
    assert (split.seed, split.fraction, split.notes) == (0, 1 / 3, [])


def test_order_of_the_samples_does_not_matter() -> None:
    index = dataset({"crack": {f"g{i}": i + 1 for i in range(9)}})
    other = dataset({"crack": {f"g{i}": i + 1 for i in reversed(range(9))}})
    assert make_split(index).hash == make_split(other).hash


def test_whole_groups_come_as_near_as_they_can() -> None:
    rng = np.random.default_rng(0)
    for trial in range(40):
        sizes = [int(n) for n in rng.integers(1, 9, rng.integers(2, 9))]
        fraction = float(rng.uniform(0.1, 0.9))
        index = dataset({"crack": {f"g{i}": n for i, n in enumerate(sizes)}})
        train, test = make_split(index, fraction, seed=trial).apply(index)
        assert train
        assert test
        assert not parts(train) & parts(test)
        sums = [
            sum(n for n, used in zip(sizes, chosen, strict=True) if used)
            for chosen in sides(len(sizes))
            if 0 < sum(chosen) < len(sizes)
        ]
        best = min(abs(s - fraction * sum(sizes)) for s in sums)
        assert abs(len(train) - fraction * sum(sizes)) == pytest.approx(best)


def test_one_part_goes_to_train_and_is_noted() -> None:
    index = dataset({"crack": {"g": 5}, "hole": {"a": 1, "b": 9}})
    split = make_split(index)
    assert shares(split, index) == {"crack": (5, 0), "hole": (1, 9)}
    assert split.notes == ["c/crack: one part only: all in train, none to test on"]


def test_parts_of_several_types_stay_whole() -> None:
    """Every type gets a part on each side whenever any assignment gives it one (all 2^n are tried)."""
    rng = np.random.default_rng(5)
    for trial in range(40):
        groups = [f"g{i}" for i in range(int(rng.integers(2, 8)))]
        types = {}
        for kind in "abcd":
            chosen = rng.choice(groups, size=min(len(groups), int(rng.integers(1, 4))), replace=False)
            types[kind] = {str(g): int(rng.integers(1, 4)) for g in chosen}
        index = dataset(types)
        train, test = make_split(index, seed=trial).apply(index)
        assert not parts(train) & parts(test)
        assert len(train) + len(test) == len(index.defects)

        def missing(in_train: set[str], types: dict[str, dict[str, int]] = types) -> tuple[int, int]:
            no_train = sum(not in_train & set(c) for c in types.values())
            return no_train, sum(len(c) > 1 and set(c) <= in_train for c in types.values())

        every = [{g for g, used in zip(groups, bits, strict=True) if used} for bits in sides(len(groups))]
        assert missing(parts(train)) == min(map(missing, every))


def test_many_shared_parts() -> None:
    groups = [f"g{i}" for i in range(40)]
    types = {kind: dict.fromkeys(groups[start : start + 20], 2) for kind, start in (("a", 0), ("b", 10), ("c", 20))}
    index = dataset(types)
    split = make_split(index, 0.25)
    assert shares(split, index) == dict.fromkeys("abc", (10, 30))
    train, test = split.apply(index)
    assert not parts(train) & parts(test)
    assert make_split(index, 0.25, seed=1).train != split.train


def test_parts_that_cannot_be_on_both_sides_are_noted() -> None:
    # Three types on three parts, two each: two colours do not reach; training comes first.
    index = dataset({"a": {"1": 1, "2": 1}, "b": {"1": 1, "3": 1}, "c": {"2": 1, "3": 1}})
    split = make_split(index)
    train, test = split.apply(index)
    assert {s.anomaly for s in train} == {"a", "b", "c"}
    assert len({s.anomaly for s in test}) == 2
    assert [note.split(": ")[1] for note in split.notes] == ["its 2 parts are shared with other types"]


def test_the_same_part_name_in_two_categories_is_two_parts() -> None:
    one, two = dataset({"crack": {"p1": 1, "p2": 1}}, "x"), dataset({"bent": {"p1": 1, "p2": 1}}, "y")
    index = DatasetIndex(ROOT, "mvtec", [], [], one.defects + two.defects, [])
    assert shares(make_split(index, 0.5), index) == {"bent": (1, 1), "crack": (1, 1)}


def test_file_round_trip_and_tampering(tmp_path: Path) -> None:
    index = dataset({"crack": {f"g{i}": 1 for i in range(6)}})
    split = make_split(index, 0.5, seed=7)
    path = tmp_path / "new" / "split.json"
    split.save(path)
    assert Split.load(path) == split
    assert Split.load(path).hash == split.hash
    assert str(ROOT) not in path.read_text()
    content = json.loads(path.read_text())
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"split\.json.*it was edited"):
        Split.load(path)
    for text, match in (("{", "cannot read"), ("[]", "not a split"), ('{"hash": "x", "train": 3}', "not a split")):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            Split.load(path)
    with pytest.raises(UserError, match="cannot read the split"):
        Split.load(tmp_path / "none.json")


def test_apply_drops_the_excluded_and_refuses_the_unknown() -> None:
    index = dataset({"crack": {"a": 1, "b": 1, "c": 1}})
    usable = DatasetIndex(ROOT, "mvtec", [], [], index.defects[1:], [], excluded=index.defects[:1])
    split = make_split(usable)
    assert split.excluded == ["crack/a_0.png"]
    assert [len(half) for half in split.apply(index)] == [1, 1]
    narrow = dataset({"crack": {"b": 1}})
    assert sum(len(half) for half in split.apply(narrow)) == 1
    with pytest.raises(UserError, match=r"does not know 1 of 2 defects \(first: crack/z_0\.png"):
        split.apply(dataset({"crack": {"b": 1, "z": 1}}))


def test_imports_stay_light() -> None:
    command = "import sys, fast.data.split; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=paths.ROOT, check=False).returncode == 0


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_bad_fraction(fraction: float) -> None:
    with pytest.raises(UserError, match="fraction="):
        make_split(dataset({"crack": {"a": 1}}), fraction)


def test_nothing_to_split() -> None:
    with pytest.raises(UserError, match="no usable defect"):
        make_split(dataset({}))


def test_nested_splits_divide_the_training_side_by_whole_parts(tmp_path: Path) -> None:
    index = dataset({"crack": {f"c{i}": 3 for i in range(18)}, "hole": {f"h{i}": 1 + i % 2 for i in range(24)}})
    outer = make_split(index)
    train, test = outer.apply(index)
    found = nested_splits(index, outer, 4)
    assert len({split.hash for split in found}) == 4
    for split in found:
        inner_train, inner_test = split.apply(index)
        assert {s.image for s in inner_train} | {s.image for s in inner_test} == {s.image for s in train}
        assert not parts(inner_train) & parts(inner_test)
        assert shares(split, index) == {"crack": (12, 6), "hole": (8, 4)}
        assert set(split.excluded) == {index.relative(s.image) for s in test}
        assert split.nested_in == outer.hash
    assert nested_splits(index, outer, 3) == found[:3]
    found[2].save(tmp_path / "2.json")
    assert Split.load(tmp_path / "2.json") == found[2]


def test_nested_splits_of_few_parts_test_every_part(tmp_path: Path) -> None:
    """Ball screws have five parts to train on, of which one choice is nearest to two thirds whatever the seed."""
    counts = {"a": 13, "b": 13, "c": 11, "d": 10, "e": 10}
    index = dataset({"pit": counts})
    outer = Split([index.relative(s.image) for s in index.defects], [], 0, 1 / 3)
    found = nested_splits(index, outer, 5)
    tested = [parts(split.apply(index)[1]) for split in found]
    assert tested[0] == {"d", "e"}  # 37 of 57 images train
    assert tested[1] in ({"a", "c"}, {"b", "c"})  # two that were not tested: 33 train, with {"a", "b"} 31
    assert tested[2] == {"a", "b", "c"} - tested[1]
    assert len({frozenset(side) for side in tested}) == 5
    times = Counter(part for side in tested for part in side)
    assert max(times.values()) - min(times[part] for part in counts) <= 1
    away = [abs(sum(counts[g] for g in counts.keys() - side) - 38) for side in tested]
    assert away[0] == 1
    assert max(away) <= 1 + 10  # farther off by the images of the smallest part at most
    assert [split.rule == RULE for split in found] == [True, False, False, False, False]
    assert found[:2] == nested_splits(index, outer, 2)


def test_another_division_keeps_every_type_on_both_sides() -> None:
    """Part "b" is of both types: on the side of "c" alone it leaves `hole` nothing to train on."""
    index = dataset({"crack": {"a": 4, "b": 2, "c": 2, "d": 2}, "hole": {"b": 3, "e": 1}})
    outer = Split([index.relative(s.image) for s in index.defects], [], 0, 1 / 3)
    for split in nested_splits(index, outer, 4):
        assert all(train and test for train, test in shares(split, index).values())


def test_more_parts_than_every_choice_can_be_tried_of() -> None:
    counts = {f"g{i}": 2**i for i in range(13)}  # every sum of images is reached once: one choice is nearest
    index = dataset({"crack": counts})
    outer = Split([index.relative(s.image) for s in index.defects], [], 0, 1 / 3)
    found = nested_splits(index, outer, 3)
    assert len({frozenset(split.test) for split in found}) == 3


def test_nested_splits_of_two_parts_are_both_or_the_same_again() -> None:
    def tested(a: int, b: int) -> list[set[str]]:
        index = dataset({"crack": {"a": a, "b": b}})
        outer = Split([index.relative(s.image) for s in index.defects], [], 0, 1 / 3)
        return [parts(split.apply(index)[1]) for split in nested_splits(index, outer, 3)]

    assert tested(10, 6) == [{"b"}, {"a"}, {"b"}]
    assert tested(30, 2) == [{"b"}, {"b"}, {"b"}]  # two images teach nothing


def test_a_category_that_tests_nothing_leaves_the_splits_of_another_as_they_are() -> None:
    """Of "d" there is one part, which trains in every split: that is no division tried before."""
    one, other = dataset({"crack": {f"g{i}": 2 for i in range(9)}}), dataset({"hole": {"x": 3}}, "d")
    both = replace(one, defects=[*one.defects, *other.defects])

    def tested(index: DatasetIndex) -> list[tuple[list[str], str]]:
        outer = Split([index.relative(s.image) for s in index.defects], [], 0, 1 / 3)
        return [(split.test, split.rule) for split in nested_splits(index, outer, 3)]

    assert tested(both) == tested(one)
    assert {rule for _, rule in tested(both)} == {RULE}


def test_a_split_that_is_not_nested_keeps_its_hash_and_file(tmp_path: Path) -> None:
    split = Split(["a.png"], ["b.png"], 0, 0.5, rule="by hand")
    split.save(tmp_path / "split.json")
    assert "nested_in" not in json.loads((tmp_path / "split.json").read_text())
    text = '{"excluded":[],"fraction":0.5,"notes":[],"rule":"by hand","seed":0,"test":["b.png"],"train":["a.png"]}'
    assert split.hash == hashlib.sha256(text.encode()).hexdigest()


def test_one_part_of_each_type_leaves_nothing_to_choose_by() -> None:
    index = dataset({"crack": {"a": 3, "b": 3}})
    with pytest.raises(UserError, match="nothing is left to choose by"):
        nested_splits(index, make_split(index), 1)
