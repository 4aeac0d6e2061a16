"""Shards where folders of pairs are read: the same samples, exports and decisions, and nothing unpacked."""

import json
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast.cli import export as exporting
from fast.cli import review as reviewing
from fast.cli import score as scoring
from fast.cli import segment as segmenting
from fast.cli import segment_data
from fast.cli.regenerate import regenerate
from fast.data import packed
from fast.data.images import read_image
from fast.review.decisions import Decision, Review
from fast.runtime.command import run_cli
from fast.segmentation.data import Views, from_output
from fast.studio.gallery import cards, read_items
from fast.studio.pictures import four
from ldm.errors import UserError
from support.synthesis import manifest, synthesize

COUNT, SIZE = 7, 3
OWN = {"seconds", "image", "mask", "shard"}  # what the records of the two may say differently


@pytest.fixture(scope="module")
def made(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`folder` and `shards` with the same pairs. Read only."""
    place = tmp_path_factory.mktemp("twins")
    normals = str(drawn_root / "wood" / "train" / "good")
    common = ["--method", "cutpaste", "--data_root", normals, "--count", str(COUNT)]
    assert synthesize([*common, "--sample_name", str(place / "folder")]) == 0
    assert synthesize([*common, "--sample_name", str(place / "shards"), "--shards", str(SIZE)]) == 0
    return place


@pytest.fixture
def twins(made: Path, tmp_path: Path) -> Path:
    """Copies of them."""
    shutil.copytree(made, tmp_path / "twins")
    return tmp_path / "twins"


def test_a_trainer_sees_the_same_samples_and_opens_a_shard_when_it_needs_it(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Counted(packed.Members):
        def __init__(self, tar: Path):
            opened.append(tar.name)
            super().__init__(tar)

    monkeypatch.setattr(packed, "Members", Counted)
    packed._known.cache_clear()
    shards, folder = from_output(made / "shards")[0], from_output(made / "folder")[0]
    assert opened == []
    assert len(shards) == len(folder) == COUNT
    views = [Views(pairs, 48, crop=32) for pairs in (shards, folder)]
    for i in (6, 0, 5, 2, 1, 4, 3):  # in no order
        assert shards[i].kind == folder[i].kind
        assert shards[i].sources == folder[i].sources
        seen = [view.draw(i, np.random.default_rng(i)) for view in views]
        for one, other in zip(*seen, strict=True):
            np.testing.assert_array_equal(one, other)
    assert opened == ["pairs-000006-000006.tar", "pairs-000000-000002.tar", "pairs-000003-000005.tar"]


def test_a_segmenter_s_door_counts_the_same_pairs(made: Path, drawn_root: Path) -> None:
    counts = []
    for name in ("folder", "shards"):
        argv = ["--train", str(made / name), "--test", str(drawn_root), "--category", "wood", "--steps", "1"]
        counts.append(segment_data.gather(segmenting.parser().parse_args(argv)).counts)
    assert counts[0] == counts[1]
    assert counts[0]["synthetic"] + counts[0]["left out"] == COUNT


def neutral(value: Any) -> Any:
    """JSON without what the twins' records say differently."""
    if isinstance(value, dict):
        parsed = {k: json.loads(v) if k == "provenance" and isinstance(v, str) else v for k, v in value.items()}
        return {k: neutral(v) for k, v in parsed.items() if k not in OWN}
    return [neutral(v) for v in value] if isinstance(value, list) else value


def contents(place: Path) -> dict[str, Any]:
    """What files hold by their names: bytes, of JSON its meaning, of a tar file that of the files in it."""
    files: dict[str, bytes] = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        name = path.relative_to(place).as_posix()
        if path.suffix != ".tar":
            files[name] = path.read_bytes()
            continue
        with tarfile.open(fileobj=BytesIO(path.read_bytes())) as tar:
            files |= {f"{name}/{m.name}": tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    read = {".json": json.loads, ".jsonl": lambda data: [json.loads(line) for line in data.splitlines()]}
    return {n: neutral(read[Path(n).suffix](d)) if Path(n).suffix in read else d for n, d in files.items()}


@pytest.mark.parametrize("kind", ["mvtec", "coco", "yolo", "mmseg", "imagefolder", "webdataset"])
def test_an_export_of_shards_is_that_of_the_folder(made: Path, tmp_path: Path, kind: str) -> None:
    for name in ("folder", "shards"):
        (tmp_path / name).mkdir()
        argv = [str(made / name), "--format", kind, "--out", str(tmp_path / name / "part")]
        assert run_cli(exporting.main, argv) == 0
    found, wanted = contents(tmp_path / "shards"), contents(tmp_path / "folder")
    # A format that calls its folders by the run's name has that of the twin.
    named = {name.replace("part/shards/", "part/folder/").replace("shards_", "folder_"): v for name, v in found.items()}
    assert named.keys() == wanted.keys()
    ours = json.loads(
        json.dumps({n: v for n, v in named.items() if not isinstance(v, bytes)}).replace("shards", "folder")
    )
    for name, value in wanted.items():
        assert (ours[name] if name in ours else named[name]) == value, name
    assert sum(name.endswith(".png") for name in wanted) >= COUNT


def test_decisions_about_shards_count_everywhere(
    twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text("index,decision,reason\n0,rejected,seam\n4,accepted,\n6,accepted,\n")
    for name in ("shards", "folder"):
        assert run_cli(reviewing.main, [str(twins / name), "--decisions", str(table)]) == 0
        assert "rejected, seam: 1" in capsys.readouterr().out
        assert len(from_output(twins / name)[0]) == COUNT - 1
        out = tmp_path / f"{name}.export"
        assert run_cli(exporting.main, [str(twins / name), "--format", "yolo", "--out", str(out)]) == 0
        assert sorted(p.stem for p in (out / "images/train").iterdir()) == [f"{i:06d}" for i in range(1, COUNT)]
        assert run_cli(reviewing.main, [str(twins / name), "--export", str(tmp_path / f"{name}.good")]) == 0
    for kind in ("image", "mask"):
        found, wanted = (sorted((tmp_path / f"{n}.good" / kind).iterdir()) for n in ("shards", "folder"))
        assert [p.name for p in found] == ["000004.png", "000006.png"]
        assert [p.read_bytes() for p in found] == [p.read_bytes() for p in wanted]
    assert neutral(manifest(tmp_path / "shards.good")) == neutral(manifest(tmp_path / "folder.good"))
    assert from_output(tmp_path / "shards.good")[0][1].read()[1].any()


def test_the_studio_shows_the_same_cards(twins: Path) -> None:
    shown = []
    for name in ("shards", "folder"):
        Review(twins / name).decide({3: Decision("accepted")})
        items = read_items(twins / name)
        shown.append((cards(twins / name, items, "number"), four(twins / name, items[5].row)))
    assert shown[0][0] == shown[1][0]
    for one, other in zip(shown[0][1], shown[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_go_is_refused_in_a_line(twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = twins / "shards"

    def refused(command: Any, *argv: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert run_cli(command, list(argv)) == 2
        assert sorted(tmp_path.rglob("*")) == before
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    Review(shards).decide({0: Decision("rejected")})
    assert "holds shards, which stay as they are; make the pairs without --shards, score them" in refused(
        scoring.main, str(shards)
    )
    with pytest.raises(UserError, match="review them, and pack them with"):
        regenerate(shards)
    coco = ("--format", "coco", "--out", str(tmp_path / "out"))
    assert "is a URL, and pairs are read from a folder" in refused(exporting.main, "s3://bucket/part", *coco)
    assert "is a URL" in refused(segmenting.main, "--train", "s3://bucket/part", "--test", str(tmp_path))
    (shards / "pairs-000003-000005.jsonl").rename(tmp_path / "aside")
    assert "is not finished" in refused(exporting.main, str(shards), *coco)
    (tmp_path / "aside").rename(shards / "pairs-000003-000005.jsonl")
    (shards / "pairs-000006-000006.tar").rename(tmp_path / "aside")
    assert "pairs-000006-000006.tar is not there" in refused(exporting.main, str(shards), *coco)
    with pytest.raises(UserError, match=r"pairs-000006-000006\.tar is not there"):
        from_output(shards)
    (tmp_path / "aside").rename(shards / "pairs-000006-000006.tar")
    for kind in ("jsonl", "tar"):
        (shards / f"pairs-000003-000005.{kind}").rename(tmp_path / kind)
    assert "is not finished" in refused(exporting.main, str(shards), *coco)
    for kind in ("jsonl", "tar"):
        (tmp_path / kind).rename(shards / f"pairs-000003-000005.{kind}")
    (shards / "classes.json").rename(tmp_path / "aside")
    assert "is not finished" in refused(exporting.main, str(shards), *coco)
    (tmp_path / "aside").rename(shards / "classes.json")
    with pytest.raises(UserError, match=r"pairs-000000-000002\.tar: 7\.png cannot read the image"):
        read_image(shards / "pairs-000000-000002.tar/7.png")


def cut_off(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def without_its_end(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: places(shard)[3].offset])


def zeros_for_a_header(shard: Path) -> None:
    overwrite(shard, places(shard)[2].offset, bytes(512))


def noise_for_a_header(shard: Path) -> None:
    overwrite(shard, places(shard)[2].offset, np.random.default_rng(0).bytes(512))


def noise_for_a_picture(shard: Path) -> None:
    overwrite(shard, places(shard)[0].offset_data, np.random.default_rng(0).bytes(places(shard)[0].size))


def noise_alone(shard: Path) -> None:
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))


def nothing(shard: Path) -> None:
    shard.write_bytes(b"")


def places(shard: Path) -> list[tarfile.TarInfo]:
    """image, mask, json of its first pair, image of the next, ..."""
    with tarfile.open(shard) as tar:
        return tar.getmembers()


def overwrite(shard: Path, at: int, data: bytes) -> None:
    with open(shard, "r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("name", ["pairs-000000-000002", "pairs-000003-000005", "pairs-000006-000006"])
@pytest.mark.parametrize(
    "damage",
    [cut_off, without_its_end, zeros_for_a_header, noise_for_a_header, noise_for_a_picture, noise_alone, nothing],
)
def test_a_damaged_shard_is_named_with_the_remedy_before_anything_is_made_of_it(
    twins: Path, drawn_root: Path, tmp_path: Path, damage: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = twins / "shards"
    Review(shards).decide({i: Decision("accepted") for i in range(COUNT)})
    if damage is without_its_end and name.endswith("6-000006"):
        overwrite(shards / f"{name}.tar", places(shards / f"{name}.tar")[-1].offset, bytes(512))
    else:
        damage(shards / f"{name}.tar")
    out = tmp_path / "out"
    for command, argv in (
        (exporting.main, [str(shards), "--format", "coco", "--out", str(out)]),
        (exporting.main, [str(shards), "--format", "webdataset", "--out", str(out)]),
        (reviewing.main, [str(shards), "--export", str(out)]),
        (segmenting.main, ["--train", str(shards), "--test", str(drawn_root), "--category", "wood", "--steps", "1",
                           "--out", str(out / "x.json")]),
    ):  # fmt: skip
        packed._known.cache_clear()
        assert run_cli(command, argv) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {shards / name}.tar: ")
        assert said.err.endswith("or remove it and run the set's command again, which makes it anew\n")
        assert said.err.count("\n") == 1
        assert "split" not in said.out  # the line before a training
        assert not out.exists()


def test_damaged_records_are_named_and_a_shard_that_is_taken_away_comes_back(
    twins: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = twins / "shards"
    records = shards / "pairs-000003-000005.jsonl"
    lines, before = records.read_text().splitlines(keepends=True), contents(shards)
    nameless = {k: v for k, v in json.loads(lines[1]).items() if k != "type"}
    for text, why in (
        ("".join(lines[:2]), "2 records of 3"),
        ("".join(lines)[:-30], ""),
        (lines[0] + json.dumps(nameless) + "\n" + lines[2], ""),
    ):
        records.write_text(text)
        for command, argv in (
            (exporting.main, [str(shards), "--format", "yolo", "--out", str(tmp_path / "out")]),
            (segmenting.main, ["--train", str(shards), "--test", str(drawn_root), "--category", "wood",
                               "--out", str(tmp_path / "x.json")]),
        ):  # fmt: skip
            assert run_cli(command, argv) == 2
            said = capsys.readouterr().err
            assert f"error: {records} is damaged ({why}" in said
            assert "remove it and run the set's command again" in said
    records.unlink()
    (shards / "pairs-000000-000002.tar").unlink()  # as the remedies say
    normals = str(drawn_root / "wood" / "train" / "good")
    argv = ["--method", "cutpaste", "--data_root", normals, "--count", str(COUNT), "--shards", str(SIZE)]
    assert synthesize([*argv, "--sample_name", str(shards)]) == 0
    after = contents(shards)
    assert before.keys() == after.keys()
    assert {n: v for n, v in after.items() if ".parquet" not in n} == {
        n: v for n, v in before.items() if ".parquet" not in n
    }


def test_folders_and_shards_do_not_share_a_place(
    twins: Path, drawn_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--method", "cutpaste", "--data_root", str(drawn_root / "wood" / "train" / "good"), "--count", "2"]
    for name, more, said in (("folder", ["--shards", "2"], "holds a run in folders"), ("shards", [], "holds shards")):
        before = contents(twins / name)
        assert synthesize([*common, "--sample_name", str(twins / name), *more]) == 2
        assert said in capsys.readouterr().err
        assert contents(twins / name) == before
