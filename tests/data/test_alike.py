from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from fast.cli import prepare_data
from fast.data.alike import Alike, find_alike, joined, leaks_of
from fast.data.images import write_image, write_mask
from fast.data.index import Sample
from fast.data.layouts import open_dataset
from fast.data.prints import AGREE, SMALL, WHOLE, Print, agreement, correlation
from fast.data.split import Split
from fast.procedural.dataset import draw_dataset
from fast.reports.contact_sheet import side_by_side
from fast.runtime.command import run_cli


def surface(part: int) -> np.ndarray:
    """One part: float (96,128) of 0..255, spots of some pixels' width in places of its own."""
    rng = np.random.default_rng(part)
    spots = cv2.GaussianBlur(rng.standard_normal((96, 128)), (0, 0), 2.5)
    return 128 + 40 * spots / spots.std()


def photograph(part: int, light: int = 0, shift: tuple[int, int] = (0, 0), turn: int = 0) -> np.ndarray:
    """uint8 (H,W,3) of a part in a light of its own, with noise of its own, moved within the picture, turned."""
    rng = np.random.default_rng([part, light, 7])
    moved = np.roll(surface(part), shift, (0, 1))
    rows, columns = np.mgrid[:96, :128]
    lit = (
        (0.4 + 0.1 * light) * moved + 30 * light * rows / 96 - 10 * columns / 128 + 3 * rng.standard_normal(moved.shape)
    )
    return np.repeat(np.rot90(np.clip(lit, 0, 255).astype(np.uint8), turn)[..., None], 3, axis=2)


def sample(folder: Path, name: str, picture: np.ndarray, group: str = "", category: str = "c") -> Sample:
    path = folder / f"{name}.png"
    write_image(path, picture)
    return Sample(path, None, category, "crack", group or name)


def alike(samples: Sequence[Sample]) -> set[frozenset[str]]:
    """Names of groups that look like one, where it can be told."""
    found = find_alike(samples)
    assert not found.unclear
    return {frozenset((p.first.group, p.second.group)) for p in found.pairs}


def test_photographs_of_one_part_are_found(tmp_path: Path) -> None:
    samples = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(6)]
    samples += [
        sample(tmp_path, "light", photograph(0, light=3)),
        sample(tmp_path, "shift", photograph(1, light=1, shift=(5, -8))),
        sample(tmp_path, "turn", photograph(2, turn=1)),
        sample(tmp_path, "mirror", photograph(3, light=2)[:, ::-1]),
        sample(tmp_path, "small", cv2.resize(photograph(4), (80, 60), interpolation=cv2.INTER_AREA)),
        sample(tmp_path, "copy", photograph(5)),
    ]
    of = {"light": 0, "shift": 1, "turn": 2, "mirror": 3, "small": 4, "copy": 5}
    assert alike(samples) == {frozenset((f"p{k}", name)) for name, k in of.items()}
    agreements = [pair.agreement for pair in find_alike(samples).pairs]
    assert agreements == sorted(agreements, reverse=True)
    assert agreements[0] == 1.0  # the copy
    assert all(AGREE < value <= 1.0001 for value in agreements)


def test_only_other_groups_of_the_same_category_count(tmp_path: Path) -> None:
    others = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(1, 5)]
    one, again = photograph(0), photograph(0, light=2)
    assert not alike([*others, sample(tmp_path, "a", one, "g"), sample(tmp_path, "b", again, "g")])
    assert not alike([*others, sample(tmp_path, "a", one), sample(tmp_path, "b", again, category="d")])
    four = [sample(tmp_path, f"x{k}", photograph(0, light=k), f"g{k // 2}") for k in range(4)]
    (pair,) = find_alike([*others, *four]).pairs  # of two groups the pictures that agree most, once
    assert {pair.first.group, pair.second.group} == {"g0", "g1"}
    prints = [Print.of(photograph(0, light=k)) for k in range(4)]
    values = [agreement(prints[i], prints[j], 0)[1] for i in (0, 1) for j in (2, 3)]
    assert pair.agreement == max(values)


def test_what_people_have_looked_at_is_not_told_again(tmp_path: Path) -> None:
    samples = [sample(tmp_path, f"p{k}", photograph(k % 3, light=k // 3)) for k in range(4)]
    assert alike(samples) == {frozenset(("p0", "p3"))}
    (tmp_path / "reading.json").write_text('{"parts_apart": true}')
    assert not alike(samples)


def held(part: int, view: int) -> np.ndarray:
    """A smooth part in a holder, seen from one of two sides: what can be seen of all of them is the holder."""
    rng = np.random.default_rng([part, view, 9])
    picture = np.full((120, 160), 60.0)
    if view:
        cv2.rectangle(picture, (30, 30), (130, 90), 170, -1)
        cv2.circle(picture, (50, 60), 8, 30, -1)
    else:
        cv2.circle(picture, (80, 60), 45, 180, -1)
        cv2.rectangle(picture, (5, 5), (20, 115), 120, -1)
    picture = (
        cv2.GaussianBlur(picture, (0, 0), 1) + 4 * cv2.GaussianBlur(rng.standard_normal((120, 160)), (0, 0), 1) * 3
    )
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def pitted(part: int) -> np.ndarray:
    """Smooth metal with one pit: nothing else tells one part from another."""
    rng = np.random.default_rng([part, 4])
    picture = np.full((120, 160), 150.0) + 20 * np.linspace(-1, 1, 160)[None] * rng.uniform(-1, 1)
    cv2.circle(picture, (int(rng.integers(20, 140)), int(rng.integers(20, 100))), int(rng.integers(2, 8)), 60, -1)
    noisy = cv2.GaussianBlur(picture, (0, 0), 1) + 2 * rng.standard_normal(picture.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def striped(part: int) -> np.ndarray:
    """A regular pattern, from any place of it: each picture lies on each other at many places."""
    rng = np.random.default_rng([part, 5])
    columns = np.arange(160)[None] + np.zeros((120, 1)) + rng.integers(0, 40)
    picture = 128 + 60 * np.sin(2 * np.pi * columns / 20) + 6 * rng.standard_normal(columns.shape)
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "drawn", [lambda k: held(k, k % 2), pitted, striped, lambda k: np.full((9, 9, 3), 9 * k, np.uint8)]
)
def test_other_parts_of_one_kind_are_not_taken_for_one(tmp_path: Path, drawn: Callable[[int], np.ndarray]) -> None:
    samples = [sample(tmp_path, f"p{k}", drawn(k)) for k in range(24)]
    own = [sample(tmp_path, f"q{k}", photograph(k)) for k in range(12)]
    assert not find_alike([*samples, *own]).pairs
    assert not find_alike(samples).pairs
    (pair,) = find_alike([*samples, *own, sample(tmp_path, "again", photograph(3, light=2))]).pairs
    assert {pair.first.group, pair.second.group} == {"q3", "again"}


def test_drawn_surfaces_are_all_of_their_own(tmp_path: Path) -> None:
    materials = ("perforated_metal", "sintered_metal", "turned_metal", "mesh")
    root = draw_dataset(
        tmp_path / "drawn", materials=materials, normals=1, test_normals=0, defects_per_type=2, size=128
    )
    found = find_alike(open_dataset(root).defects)
    assert not found.pairs
    assert not found.unclear


def test_where_nearly_all_look_alike_only_copies_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(tmp_path, f"p{k}", held(k, 0)) for k in range(12)]
    samples.append(sample(tmp_path, "copy", held(3, 0)))
    monkeypatch.setattr("fast.data.alike.MOST", 2)
    found = find_alike(samples)
    assert found.unclear == ["c"]
    (pair,) = found.pairs
    assert {pair.first.group, pair.second.group} == {"p3", "copy"}
    assert find_alike([]).pairs == []


def test_correlation_is_that_of_every_shift_and_way() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((6, 6)).astype(np.float32) for _ in range(2))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    values = [
        max(float((np.roll(way, (y, x), (0, 1)) * a).sum()) for y in range(6) for x in range(6))
        for way in [np.rot90(p, k) for p in (b, b[:, ::-1]) for k in range(4)]
    ]
    value, way = correlation(a, b)
    assert value == pytest.approx(max(values), abs=1e-6)
    assert way == int(np.argmax(values))
    assert correlation(a, np.rot90(a).copy()) == (pytest.approx(1, abs=1e-6), 3)


def test_a_print_is_without_light_and_places_agree_where_they_are_the_same() -> None:
    picture = photograph(5)
    one, lighter = Print.of(picture), Print.of(np.clip(picture.astype(np.int16) + 30, 0, 255).astype(np.uint8))
    assert one.whole.shape == (SMALL, SMALL)
    assert np.linalg.norm(one.whole) == pytest.approx(1, abs=1e-5)
    assert float((one.whole * lighter.whole).sum()) > 0.99
    assert agreement(one, one, 0) == (pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3))
    half = picture.copy()
    half[:, 90:] = photograph(6)[:, 90:]  # of three tenths of the places another part's
    assert correlation(one.whole, Print.of(half).whole)[0] > WHOLE
    low, middle = agreement(one, Print.of(half), 0)
    assert low < AGREE < middle
    flat = Print.of(np.full((9, 9, 3), 7, np.uint8))
    assert not flat.whole.any()
    assert agreement(flat, flat, 0) == (-1, -1)


def test_groups_are_joined_by_way_of_a_third_within_a_category() -> None:
    def pair(a: str, b: str, category: str = "c") -> Alike:
        return Alike(*(Sample(Path("x.png"), None, category, "x", g) for g in (a, b)), 0.9)

    names = joined([pair("t10", "t2"), pair("t9", "t10"), pair("u2", "u1"), pair("t2", "t1", "d")])
    first = {("c", "t2"): "t2", ("c", "t10"): "t2", ("c", "t9"): "t2", ("c", "u1"): "u1", ("c", "u2"): "u1"}
    assert names == first | {("d", "t2"): "t1", ("d", "t1"): "t1"}
    assert joined([pair("test/crack/1.png", "z1")]) == {("c", "z1"): "z1", ("c", "test/crack/1.png"): "z1"}
    assert joined([]) == {}


def test_what_is_tested_on_and_trained_on_too(tmp_path: Path) -> None:
    train = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(4)]
    clean = [sample(tmp_path, f"q{k}", photograph(10 + k)) for k in range(4)]
    assert leaks_of(train, clean) == []
    twin = sample(tmp_path, "twin", photograph(1, light=2), "tile")
    beside = sample(tmp_path, "beside", photograph(20), "tile")  # another place of the same part
    further = sample(tmp_path, "further", photograph(20, light=3))  # looks like that
    (leak,) = leaks_of(train, [*clean, twin, beside, further])
    assert [s.image.stem for s in leak.seen] == ["twin", "beside", "further"]
    assert (leak.why[0].image, leak.listed) == (train[1].image, False)
    same = sample(tmp_path, "other", photograph(30), "p2")
    listed, seen = leaks_of(train, [*clean, same, twin])
    assert ([s.image.stem for s in listed.seen], listed.listed) == (["other"], True)
    assert ([s.image.stem for s in seen.seen], seen.listed) == (["twin"], False)
    inside = [*clean, sample(tmp_path, "again", photograph(10, light=1))]  # two of the test side: no leak
    assert leaks_of(train, inside) == []


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Nine cracks of nine parts and a second photograph of three of them, under names of their own."""
    root = tmp_path / "tiles"
    write_image(root / "train/good/n.png", photograph(90))
    for k in range(12):
        write_image(root / f"test/crack/{k}.png", photograph(k % 9, light=k // 9))
        mask = np.zeros((96, 128), np.uint8)
        mask[40:44, 20:90] = 1
        write_mask(root / f"ground_truth/crack/{k}_mask.png", mask)
    return root


def prepare(*argv: object) -> int:
    return run_cli(prepare_data.main, [str(a) for a in argv])


def test_preparing_tells_draws_and_joins(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, drawn = tmp_path / "s.json", tmp_path / "alike.png"
    assert prepare(tiles, "--out", out, "--alike", drawn) == 0
    said = capsys.readouterr().out
    assert "note: 6 parts look like another of them (test/crack/" in said
    assert "--join_alike keeps each on one side of a new split" in said
    assert str(drawn) in said
    assert drawn.is_file()
    assert not (tiles / "groups.csv").exists()
    assert prepare(tiles, "--out", out, "--join_alike") == 2  # another split: the old one stays, and the parts with it
    assert "holds another split" in capsys.readouterr().err
    assert not (tiles / "groups.csv").exists()
    assert prepare(tiles, "--out", out, "--join_alike", "--force") == 0
    said = capsys.readouterr().out
    assert "look like" not in said
    assert "groups.csv: 6 parts that look alike are 3" in said
    split, index = Split.load(out), open_dataset(tiles)
    of = {index.relative(s.image): s.group for s in index.defects}
    assert len(set(of.values())) == 9
    for k in range(3):
        assert of[f"test/crack/{k}.png"] == of[f"test/crack/{k + 9}.png"]
        assert len({f"test/crack/{n}.png" in split.train for n in (k, k + 9)}) == 1
    before = (tiles / "groups.csv").read_bytes()
    capsys.readouterr()
    assert prepare(tiles, "--out", out, "--join_alike", "--alike", tmp_path / "none.png") == 0
    said = capsys.readouterr().out
    assert "note: no parts look alike" in said
    assert "already there" in said
    assert not (tmp_path / "none.png").exists()
    assert (tiles / "groups.csv").read_bytes() == before


def test_rows_that_were_there_stay(tiles: Path, tmp_path: Path) -> None:
    rows = [
        "train/good/n.png,b",
        *(f"test/crack/{k}.png,{'a' if k == 9 else 'b' if k == 1 else f't{k}'}" for k in range(11)),
    ]
    (tiles / "groups.csv").write_text("image,group\n" + "\n".join(rows) + "\n")  # 11.png has none
    assert prepare(tiles, "--out", tmp_path / "s.json", "--join_alike") == 0
    lines = (tiles / "groups.csv").read_text().splitlines()
    assert lines[:3] == ["image,group", "train/good/n.png,b", "test/crack/0.png,a"]  # 0 and 9 are one: the first name
    assert "test/crack/10.png,b" in lines  # 1 and 10
    assert lines[-1] == "test/crack/11.png,t2"
    assert len(lines) == 14
    index = open_dataset(tiles)
    of = {s.image.stem: s.group for s in index.defects}
    assert of["2"] == of["11"]


def test_a_table_that_cannot_be_written_is_told(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiles / "groups.csv.part").mkdir()
    assert prepare(tiles, "--out", tmp_path / "new" / "s.json", "--join_alike") == 2
    assert "groups.csv: cannot write (Is a directory)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_no_group_is_written_where_the_split_cannot_be(
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert prepare(tiles, "--out", tmp_path / "file" / "s.json", "--join_alike") == 2
    assert f"error: {tmp_path / 'file' / 's.json'}: cannot write (" in capsys.readouterr().err
    assert sorted(p.name for p in tiles.iterdir()) == ["ground_truth", "test", "train"]


def test_columns_marks_and_links_stay(tiles: Path, tmp_path: Path) -> None:
    real = tmp_path / "shared.csv"
    rows = [f"t{k},test\\crack\\{k}.png,M\u00fcller,{'' if k == 7 else k}" for k in range(12)]
    text = "\ufeffgroup,image,operator,number\r\n" + "\r\n".join(rows) + "\r\n"
    real.write_bytes(text.encode())
    (tiles / "groups.csv").symlink_to(real)
    assert prepare(tiles, "--out", tmp_path / "s.json", "--join_alike") == 0
    assert (tiles / "groups.csv").is_symlink()
    expected = text
    for k in range(3):
        expected = expected.replace(f"t{k + 9},", f"t{k},")
    assert real.read_bytes().decode() == expected


def test_a_row_without_a_group_gets_one(tiles: Path, tmp_path: Path) -> None:
    (tiles / "groups.csv").write_text(
        "image,group\n" + "".join(f"test/crack/{k}.png,{'' if k == 9 else f't{k}'}\n" for k in range(12))
    )
    assert prepare(tiles, "--out", tmp_path / "s.json", "--join_alike") == 0
    assert "test/crack/9.png,t0" in (tiles / "groups.csv").read_text().splitlines()


def test_other_categories_and_folders_of_one_name_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "test"  # a category of this name holds a folder of the same
    for category, twin in (("test", True), ("b", False)):
        for k in range(8):
            part = 0 if twin and k == 7 else k + 20 * (not twin)
            write_image(root / category / f"test/crack/{k}.png", photograph(part, light=k // 7))
            write_mask(root / category / f"ground_truth/crack/{k}_mask.png", np.eye(96, 128, dtype=np.uint8))
            (root / category / "groups.csv").write_text(
                "image,group\n" + "".join(f"test/crack/{n}.png,{n}\n" for n in range(8))
            )
        write_image(root / category / "train/good/n.png", photograph(90))
    before = (root / "b/groups.csv").read_bytes()
    assert prepare(root, "--out", tmp_path / "s.json", "--join_alike") == 0
    assert (root / "b/groups.csv").read_bytes() == before
    assert (root / "test/groups.csv").read_text().splitlines()[-1] == "test/crack/7.png,0"
    (root / "test/groups.csv").unlink()
    assert prepare(root / "test", "--out", tmp_path / "t.json", "--join_alike") == 0
    assert (root / "test/groups.csv").read_text().splitlines()[-1] == "test/crack/7.png,test/crack/0.png"
    assert not (root / "test/test/groups.csv").exists()


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--join_alike", "--anomaly", "crack"], "--join_alike joins parts of all types"),
        (["--join_alike", "--parts_apart"], "leave out --alike and --join_alike"),
        (["--alike", "."], "--alike .: give the name of a picture to write"),
        (["--alike", "a.gif"], "--alike a.gif: give the name of a picture to write"),
        (["--alike", "INSIDE/a.png"], "lies in the dataset"),
        (["--fraction", "2", "--join_alike"], "fraction=2.0"),
        (["--import", "coco", "--out", "new", "--join_alike"], "--join_alike is of a dataset's own"),
        (["--import", "coco", "--out", "new", "--alike", "a.png"], "--alike is of a dataset's own"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tiles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert prepare(tiles, *(word.replace("INSIDE", str(tiles)) for word in more)) == 2
    said = capsys.readouterr().err
    assert what in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_parts_that_differ_are_said_once(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(tiles, "--out", tmp_path / "s.json", "--parts_apart") == 0
    assert "look like" not in capsys.readouterr().out
    assert prepare(tiles, "--out", tmp_path / "s.json") == 0
    assert "look like" not in capsys.readouterr().out
    assert prepare(tiles, "--out", tmp_path / "s.json", "--join_alike") == 2
    assert "reading.json says that parts which look alike differ" in capsys.readouterr().err


def test_side_by_side_holds_what_it_is_given(tmp_path: Path) -> None:
    white = np.full((20, 30, 3), 200, np.uint8)
    rows = [[("short", np.full((30, 20, 3), 50 * k, np.uint8)), ("a long name " * 9, white)] for k in range(1, 4)]
    picture = cv2.imread(str(side_by_side(rows, tmp_path / "sheet.png", cell=64)))
    assert picture is not None
    for k in range(1, 4):
        assert (picture == 50 * k).all(axis=2).sum() >= 64 * 42  # fitted to 64 by 43
    gap = picture[:, 18 + 2 * 64 + 6 : 18 + 2 * 64 + 6 + 18]  # a caption that is too long does not reach the next row
    assert (gap == 255).all()
