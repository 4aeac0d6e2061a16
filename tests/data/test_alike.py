from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from fast.cli import prepare_data
from fast.data.alike import ALIKE, Alike, correlation, find_alike, joined, leak_of, printed
from fast.data.images import write_image, write_mask
from fast.data.index import Sample
from fast.data.layouts import open_dataset
from fast.data.split import Split
from fast.reports.contact_sheet import side_by_side
from fast.runtime.command import run_cli
from ldm.errors import UserError


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


def groups(pairs: Sequence[Alike]) -> set[frozenset[str]]:
    return {frozenset((p.first.group, p.second.group)) for p in pairs}


def test_photographs_of_one_part_are_found(tmp_path: Path) -> None:
    samples = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(6)]
    samples += [
        sample(tmp_path, "light", photograph(0, light=3)),
        sample(tmp_path, "shift", photograph(1, light=1, shift=(5, -8))),
        sample(tmp_path, "turn", photograph(2, turn=1)),
        sample(tmp_path, "mirror", photograph(3, light=2)[:, ::-1]),
        sample(tmp_path, "small", cv2.resize(photograph(4), (80, 60), interpolation=cv2.INTER_AREA)),
    ]
    found = find_alike(samples)
    of = {"light": 0, "shift": 1, "turn": 2, "mirror": 3, "small": 4}
    assert groups(found) == {frozenset((f"p{k}", name)) for name, k in of.items()}
    assert all(ALIKE <= p.correlation <= 1.0001 for p in found)
    assert [p.correlation for p in found] == sorted((p.correlation for p in found), reverse=True)


def test_only_other_groups_and_the_same_category_count(tmp_path: Path) -> None:
    others = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(1, 5)]
    one, again = photograph(0), photograph(0, light=2)
    assert not find_alike([*others, sample(tmp_path, "a", one, "g"), sample(tmp_path, "b", again, "g")])
    assert not find_alike([*others, sample(tmp_path, "a", one), sample(tmp_path, "b", again, category="d")])
    three = [sample(tmp_path, f"x{k}", photograph(0, light=k), f"g{k // 2}") for k in range(4)]
    (pair,) = find_alike([*others, *three])  # of two groups the most alike pictures, once
    values = {
        (a.image, b.image): correlation(printed(photograph(0, light=i)), printed(photograph(0, light=2 + j)))
        for i, a in enumerate(three[:2])
        for j, b in enumerate(three[2:])
    }
    assert (pair.first.image, pair.second.image) == max(values, key=lambda key: values[key])


def test_where_all_pictures_look_alike_nothing_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = [photograph(0) // 2 + rng.integers(0, 40, (96, 128, 1), np.uint8) for _ in range(6)]  # parts in a holder
    assert not find_alike([sample(tmp_path, f"h{k}", picture) for k, picture in enumerate(held)])
    flat = [sample(tmp_path, f"f{k}", np.full((20, 30, 3), 40 * k, np.uint8)) for k in range(3)]
    assert not find_alike(flat)
    assert not find_alike(flat[:1])
    assert not find_alike([])


def test_correlation_is_that_of_every_shift_and_way() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((5, 5)).astype(np.float32) for _ in range(2))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    best = -1.0
    for way in [np.rot90(p, k) for p in (b, b.T) for k in range(4)]:
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                here = a[max(0, dy) : 5 + min(0, dy), max(0, dx) : 5 + min(0, dx)]
                there = way[max(0, -dy) : 5 + min(0, -dy), max(0, -dx) : 5 + min(0, -dx)]
                best = max(best, float((here * there).sum()))
    assert correlation(a, b) == pytest.approx(best, abs=1e-6)
    assert correlation(a, np.rot90(a).copy()) == pytest.approx(1, abs=1e-6)


def test_a_print_is_without_light_and_of_norm_one() -> None:
    picture = photograph(5)
    lighter = np.clip(picture.astype(np.int16) + 30, 0, 255).astype(np.uint8)
    assert np.linalg.norm(printed(picture)) == pytest.approx(1, abs=1e-5)
    assert float((printed(picture) * printed(lighter)).sum()) > 0.99
    assert not printed(np.full((9, 9, 3), 7, np.uint8)).any()


def test_groups_are_joined_by_way_of_a_third() -> None:
    def pair(a: str, b: str) -> Alike:
        return Alike(*(Sample(Path(f"{g}.png"), None, "c", "x", g) for g in (a, b)), 0.9)

    names = joined([pair("t10", "t2"), pair("t9", "t10"), pair("u2", "u1")])
    assert names == {"t2": "t2", "t10": "t2", "t9": "t2", "u1": "u1", "u2": "u1"}
    assert joined([]) == {}


def test_what_is_tested_on_and_trained_on_too(tmp_path: Path) -> None:
    train = [sample(tmp_path, f"p{k}", photograph(k)) for k in range(4)]
    clean = [sample(tmp_path, f"q{k}", photograph(10 + k)) for k in range(4)]
    assert leak_of(train, clean) is None
    twin = sample(tmp_path, "twin", photograph(1, light=2), "tile")
    beside = sample(tmp_path, "beside", photograph(20), "tile")  # another place of the same part
    leak = leak_of(train, [*clean, twin, beside])
    assert leak is not None
    assert leak.seen == [twin, beside]
    assert {leak.why.first.image, leak.why.second.image} == {train[1].image, twin.image}
    same = leak_of(train, [*clean, sample(tmp_path, "other", photograph(30), "p2")])
    assert same is not None
    assert [s.group for s in same.seen] == ["p2"]
    inside = [*clean, sample(tmp_path, "again", photograph(10, light=1))]  # two of the test side: no leak
    assert leak_of(train, inside) is None


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
    assert prepare(tiles, "--out", out, "--join_alike") == 2  # another split: the old one stays
    assert "holds another split" in capsys.readouterr().err
    assert prepare(tiles, "--out", out, "--join_alike", "--force") == 0
    assert "look like" not in capsys.readouterr().out
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
    assert "no parts look alike, so" in said
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
    tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise UserError(f"{path}: cannot write the file (no space)")

    monkeypatch.setattr("fast.data.category.write_bytes", full)
    assert prepare(tiles, "--out", tmp_path / "s.json", "--join_alike") == 2
    assert "groups.csv: cannot write the file" in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


def test_side_by_side_holds_what_it_is_given(tmp_path: Path) -> None:
    white = np.full((20, 30, 3), 200, np.uint8)
    rows = [[("short", np.full((30, 20, 3), 50 * k, np.uint8)), ("a long name " * 9, white)] for k in range(1, 4)]
    picture = cv2.imread(str(side_by_side(rows, tmp_path / "sheet.png", cell=64)))
    assert picture is not None
    for k in range(1, 4):
        assert (picture == 50 * k).all(axis=2).sum() >= 64 * 42  # fitted to 64 by 43
    gap = picture[:, 18 + 2 * 64 + 6 : 18 + 2 * 64 + 6 + 18]  # a caption that is too long does not reach the next row
    assert (gap == 255).all()
