"""Which normals meet which masks, and which defect type comes of it."""

from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fast.synthesis.selection
from fast.synthesis.defect_types import match_types, open_types
from fast.synthesis.sources import MaskSource, NormalSource, Sources, find_masks, find_normals
from ldm.errors import UserError
from ldm.hashing import file_hash

TYPES = ["cable/cut", "cable_gland/cut", "cable_gland/dent", "nut/bent+cut", "nut/scratch"]


@pytest.fixture(autouse=True)
def contents_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """These files are but names, and their content is their name."""
    monkeypatch.setattr(fast.synthesis.selection, "file_hash", lambda path: sha256(str(path).encode()).hexdigest())


def sources(normals: int = 4, masks: int = 3, allowed: tuple[int, ...] = (0,)) -> Sources:
    return Sources(
        [NormalSource(Path(f"n{i}")) for i in range(normals)],
        [MaskSource(Path(f"m{i}"), "masks") for i in range(masks)],
        TYPES,
        list(allowed),
    )


def picture(path: Path, value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


# pairing


def test_masks_come_round_before_any_comes_twice() -> None:
    pairs = [sources().pair(i, seed=0) for i in range(24)]
    for laps in range(8):
        assert len({p.mask for p in pairs[3 * laps : 3 * laps + 3]}) == 3
    assert len({(p.normal, p.mask) for p in pairs}) > 8
    assert len({tuple(p.mask for p in pairs[3 * i : 3 * i + 3]) for i in range(8)}) > 1


def test_normals_are_drawn_equally_often() -> None:
    given = sources(normals=10)
    counts = Counter(given.pair(i, seed=0).normal for i in range(2000))
    assert len(counts) == 10
    # Chi-squared with 9 degrees of freedom: 27.9 has a chance of 1 in 1000.
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 27.9


def test_one_normal_more_or_less_changes_only_the_pairs_that_take_it() -> None:
    many, few = sources(normals=20), sources(normals=19)
    added = Path("n19")
    pairs = [(many.pair(i, 5), few.pair(i, 5)) for i in range(300)]
    assert 5 <= sum(a.normal == added for a, _ in pairs) <= 30  # 15 of 300
    assert all(a == b for a, b in pairs if a.normal != added)
    for a, b in pairs:
        assert (a.mask, a.seed) == (b.mask, b.seed)


def test_neither_names_nor_their_order_decide(tmp_path: Path) -> None:
    def pairs(names: list[str]) -> list[tuple[bytes, bytes]]:
        folder = tmp_path / names[0]
        for value, name in enumerate(names):
            picture(folder / "n" / f"{name}.png", value)
            picture(folder / "m" / f"{name}.png", 200 + value)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast.synthesis.selection, "file_hash", file_hash)
            given = Sources(find_normals(str(folder / "n")), find_masks(str(folder / "m"))[0], TYPES, [0])
            found = [given.pair(i, 0).files for i in range(30)]
        return [(a.read_bytes(), b.read_bytes()) for a, b in found]

    assert pairs(["a", "b", "c", "d"]) == pairs(["z", "k", "c", "a"])


def test_a_pair_depends_on_the_seed_and_its_number_alone() -> None:
    assert sources().pair(17, 3) == sources().pair(17, 3)
    late_first = [sources().pair(i, 3) for i in reversed(range(20))]
    assert late_first[::-1] == [sources().pair(i, 3) for i in range(20)]
    assert len({sources().pair(i, seed).seed for i in range(50) for seed in range(4)}) == 200


def test_types_take_turns_where_nothing_names_one() -> None:
    given = sources(allowed=(0, 2, 4))

    def made(count: int, seed: int = 0) -> list[int]:
        return [given.pair(i, seed).type_index for i in range(count)]

    every = made(300)
    assert Counter(every) == {0: 100, 2: 100, 4: 100}
    for seed in range(5):
        assert sorted(made(3, seed)) == [0, 2, 4]
        assert set(Counter(made(8, seed)).values()) == {2, 3}
    laps = {tuple(every[i : i + 3]) for i in range(0, 300, 3)}
    assert len(laps) == 6  # in every order: no type always meets the same mask


@pytest.mark.parametrize(
    ("category", "kind", "expected"),
    [
        ("cable_gland", "cut", {1}),  # both agree
        ("", "cut", {0, 1}),  # the mask's folder names it, of either category
        ("cable_gland", "masks", {1, 2}),  # the normal's category
        ("nut", "cut", {0, 1}),  # a mask's shape says more than the normal's category
        ("", "masks", {0, 1, 2, 3, 4}),
    ],
)
def test_folders_name_the_type(category: str, kind: str, expected: set[int]) -> None:
    given = Sources([NormalSource(Path("n"), category)], [MaskSource(Path("m"), kind)], TYPES, list(range(5)))
    assert {given.pair(i, 0).type_index for i in range(100)} == expected


def test_only_what_belongs_to_the_types_asked_for_is_taken() -> None:
    normals = [NormalSource(Path(c), c) for c in ("cable", "nut", "screw")]
    masks = [MaskSource(Path(k), k) for k in ("cut", "scratch", "drawn_by_hand")]
    cable = Sources(normals, masks, TYPES, [0]).narrowed()
    assert [n.category for n in cable.normals] == ["cable"]
    assert [m.kind for m in cable.masks] == ["cut", "drawn_by_hand"]
    strangers = Sources(normals[2:], masks[1:2], TYPES, [0]).narrowed()
    assert (strangers.normals, strangers.masks) == (normals[2:], masks[1:2])
    others = Sources(normals[1:2], masks, TYPES, [0]).narrowed()
    assert others.normals == normals[1:2]


# names on the command line


@pytest.mark.parametrize(
    ("anomaly_name", "init_word", "expected"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        ("cable_gland/dent", None, [2]),
        ("cable_gland+dent", None, [2]),
        ("nut/bent+cut", None, [3]),
        ("bent+cut", None, [3]),
        ("cut", None, [0, 1]),
        ("cut", "cable", [0]),
        ("cable", None, [0]),
        ("cable_gland", None, [1, 2]),
        ("cable_test", None, [0]),
        ("cable_gland_test", None, [1, 2]),
        ("nut-new", "cable", [3, 4]),
        (None, "nut", [3, 4]),
        ("my_own_name", "nut", [3, 4]),
        ("nut/", None, [3, 4]),
    ],
)
def test_names_and_the_types_they_mean(anomaly_name: str | None, init_word: str | None, expected: list[int]) -> None:
    assert match_types(TYPES, anomaly_name, init_word) == expected


def test_a_name_that_means_nothing() -> None:
    with pytest.raises(UserError, match="--anomaly_name bottle_test: these weights know cable/cut, "):
        match_types(TYPES, "bottle_test", "bottle")
    with pytest.raises(UserError, match="--init_word bottle: these weights know"):
        match_types(TYPES, None, "bottle")
    with pytest.raises(UserError, match="--anomaly_name crack: transplant knows nut/cut"):  # the only one there is
        match_types(["nut/cut"], "crack", None, "transplant knows")


def test_several_types_are_named_by_commas() -> None:
    types = ["nut/cut", "nut/dent", "pin/cut", "pin/bent"]
    assert match_types(types, "dent, bent", None) == [1, 3]
    assert match_types(types, "pin,nut/cut", None) == [0, 2, 3]
    with pytest.raises(UserError, match="--anomaly_name hole: the method knows nut/cut"):
        match_types(types, "dent,hole", None, "the method knows")
    assert open_types(["nut/cut"], "pin/hole,nut/cut", None) == ["pin/hole", "nut/cut"]


# folders


def test_normals_of_a_folder_or_of_a_dataset(drawn_root: Path) -> None:
    flat = find_normals(str(drawn_root / "wood" / "train" / "good"))
    assert len(flat) == 3
    assert {n.category for n in flat} == {""}
    one, both = find_normals(str(drawn_root / "wood")), find_normals(str(drawn_root))
    assert len(one) == 3
    assert {n.category for n in one} == {"wood"}
    assert len(both) == 6
    assert {n.category for n in both} == {"leather", "wood"}
    assert all("train" in n.path.parts for n in both)


@pytest.mark.parametrize("inside", ["test/crack", "test", "ground_truth", "ground_truth/crack"])
def test_a_folder_of_defects_or_of_their_masks_holds_no_normals(drawn_root: Path, inside: str) -> None:
    with pytest.raises(UserError, match=rf"{inside} holds defects of the dataset \S+wood or their masks"):
        find_normals(str(drawn_root / "wood" / inside))


def test_masks_of_a_folder_and_one_level_below(tmp_path: Path) -> None:
    kept = [picture(tmp_path / name) for name in ("a2.png", "a10.png", "cut/b.bmp", "cut/c.PNG")]
    for name in (".cache/d.png", "cut/deeper/e.png", "cut/.f.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    empty = picture(tmp_path / "dent" / "blank.png", 0)
    masks, refused = find_masks(str(tmp_path))
    assert [m.path for m in masks] == kept
    assert [m.kind for m in masks] == [tmp_path.name, tmp_path.name, "cut", "cut"]
    assert refused == [str(empty)]
