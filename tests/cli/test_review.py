"""scripts/review.py: decisions by a table, what takes pairs leaves rejected ones out, and they are made anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from fast.cli import review as command
from fast.cli import score, segment, segment_data
from fast.data.images import read_image, read_mask
from fast.review.decisions import Decision, Review
from fast.runtime.command import run_cli
from fast.segmentation.data import from_output
from fast.synthesis.records import read_records
from support.synthesis import manifest, synthesize


def review(*argv: object) -> int:
    return run_cli(command.main, [str(a) for a in argv])


@pytest.fixture
def pairs(drawn_root: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    argv = ["--method", "procedural", "--data_root", str(drawn_root / "wood/train/good"), "--sample_name", str(out)]
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "4"]) == 0
    return out


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for kind in ("image", "mask") for p in (folder / kind).iterdir()}


def by_index(folder: Path) -> dict[int, dict[str, Any]]:
    return {row["index"]: row for row in manifest(folder)}


def test_the_end_of_a_run_counts_each_type(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = json.loads((pairs / "command.json").read_text())
    argv = ["--method", "procedural", "--data_root", command["data_root"], "--sample_name", str(pairs)]
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "5"]) == 0
    said = capsys.readouterr().out
    assert said.endswith(("by type: scratch 3, hole 2\n", "by type: scratch 2, hole 3\n"))


def test_the_end_of_a_run_in_shards_says_nothing_of_types(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = json.loads((pairs / "command.json").read_text())
    argv = ["--method", "procedural", "--data_root", command["data_root"], "--sample_name", str(tmp_path / "shards")]
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "4", "--shards", "2"]) == 0
    assert capsys.readouterr().out.endswith(f"4 pairs in {tmp_path / 'shards'}\n")


def test_rejected_pairs_are_left_out_until_it_is_undone(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pairs.parent / "d.csv"
    table.write_text("file,decision,reason\n000001.png,rejected,floats\n000003.png,ok,\n")
    assert review(pairs, "--decisions", table) == 0
    assert "rejected, floats: 1" in capsys.readouterr().out
    assert [row["index"] for row in read_records(pairs)] == [0, 2, 3]
    assert [s.name[-10:] for s in from_output(pairs)[0]] == ["000000.png", "000002.png", "000003.png"]
    assert review(pairs, "--undo") == 0
    assert len(from_output(pairs)[0]) == 4
    capsys.readouterr()
    assert review(pairs, "--undo") == 2
    assert "no decision to take back" in capsys.readouterr().err


def test_training_says_how_many_it_leaves_out(
    pairs: Path, drawn_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Review(pairs).decide({1: Decision("rejected"), 2: Decision("accepted")})
    options = segment.parser().parse_args(["--train", str(pairs), "--test", str(drawn_root), "--category", "wood"])
    assert segment_data.gather(options).counts["synthetic"] == 3
    assert capsys.readouterr().out == f"note: 1 of 4 pairs in {pairs} is rejected (review.jsonl) and left out\n"


def test_accepted_pairs_are_exported(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = pairs.parent / "d.csv", pairs.parent / "good"
    table.write_text("index,decision\n0,accepted\n3,accepted\n1,rejected\n")
    assert review(pairs, "--decisions", table) == 0
    assert review(pairs, "--export", out) == 0
    assert [row["index"] for row in read_records(out)] == [0, 3]
    assert len(from_output(out)[0]) == 2
    capsys.readouterr()
    assert review(pairs, "--export", out) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_table_with_one_bad_line_decides_nothing(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pairs.parent / "d.csv"
    for text, says in (
        ("index,decision\n0,rejected\n9,rejected\n", "index '9' is no pair"),
        ("index,file,decision\n0,000001.png,rejected\n", "index 0 and file '000001.png' are two pairs"),
        ("index,decision\n0,rejected,floats\n", "more cells than the table has columns"),
    ):
        table.write_text(text)
        assert review(pairs, "--decisions", table) == 2
        assert says in capsys.readouterr().err
    assert not (pairs / "review.jsonl").exists()


def test_rejected_pairs_are_made_anew_and_kept_aside(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, rows = bytes_of(pairs), by_index(pairs)
    table = pairs.parent / "d.csv"
    table.write_text("index,decision,reason\n1,rejected,floats\n2,rejected,\n")
    assert review(pairs, "--decisions", table) == 0
    assert review(pairs, "--regenerate") == 0
    after, again = bytes_of(pairs), by_index(pairs)
    assert sorted(again) == [0, 3, 2_000_000, 2_000_001]
    aside = by_index(pairs / "rejected")
    assert {i: row["rejected"] for i, row in aside.items()} == {1: "floats", 2: "in review"}
    assert bytes_of(pairs / "rejected") == {n: b for n, b in before.items() if n[-5] in "12"}
    assert {n: after[n] for n in before if n in after} == {n: b for n, b in before.items() if n[-5] in "03"}
    for old, new in ((1, 2_000_000), (2, 2_000_001)):
        assert again[new]["again_of"] == old
        assert again[new]["pair_seed"] != rows[old]["pair_seed"]
        assert [again[new][k] for k in ("type", "normal_source")] == [rows[old][k] for k in ("type", "normal_source")]
        assert after[f"image/{new:06d}.png"] != before[f"image/{old:06d}.png"]
        image, mask = (read(pairs / k / f"{new:06d}.png") for k, read in (("image", read_image), ("mask", read_mask)))
        assert (image[mask == 0] == read_image(rows[old]["normal_source"])[mask == 0]).all()
    assert len(from_output(pairs)[0]) == 4
    capsys.readouterr()
    assert review(pairs, "--regenerate") == 2  # and again nothing is rejected
    assert "no rejected pair" in capsys.readouterr().err
    assert review(pairs, "--undo") == 2  # they are gone from here
    assert "before rejected pairs were made anew is not taken back" in capsys.readouterr().err


def test_pairs_made_anew_are_counted_in_the_place_of_the_old(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Review(pairs).decide({1: Decision("rejected", "floats")})
    assert review(pairs, "--regenerate") == 0
    capsys.readouterr()
    assert run_cli(score.main, [str(pairs), "--keep", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[1:]] == [["2", "of", "2"], ["2", "of", "2"]]  # four pairs stand
    assert len(read_records(pairs)) == 4
    assert [row["index"] for row in read_records(pairs / "rejected")] == [1]


def test_regenerating_goes_on_where_it_was_stopped_with_the_same_bytes(pairs: Path) -> None:
    table = pairs.parent / "d.csv"
    table.write_text("index,decision\n0,rejected\n2,rejected\n")
    assert review(pairs, "--decisions", table) == 0
    assert review(pairs, "--regenerate") == 0
    made = bytes_of(pairs)
    for kind in ("image", "mask", "triptych"):  # as if the second had not been made yet
        (pairs / kind / "2000001.png").unlink()
    assert review(pairs, "--regenerate") == 0
    assert bytes_of(pairs) == made


def test_a_new_pair_may_be_rejected_again_and_the_run_goes_on_as_before(pairs: Path, drawn_root: Path) -> None:
    table = pairs.parent / "d.csv"
    for number in (1, 2_000_000):
        table.write_text(f"index,decision\n{number},rejected\n")
        assert review(pairs, "--decisions", table) == 0
        assert review(pairs, "--regenerate") == 0
    assert by_index(pairs)[2_000_001]["again_of"] == 2_000_000
    command = json.loads((pairs / "command.json").read_text())
    argv = ["--method", "procedural", "--data_root", command["data_root"], "--sample_name", str(pairs)]
    before = bytes_of(pairs)
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "4"]) == 0  # nothing is missing
    assert bytes_of(pairs) == before
    assert (
        synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "6"]) == 0
    )  # a larger set has pairs of its own
    assert sorted(by_index(pairs)) == [0, 2, 3, 4, 5, 2_000_001]


@pytest.mark.parametrize("lost", [False, True], ids=["damaged", "gone"])
def test_a_rejected_pair_does_not_come_back_and_the_one_in_its_place_is_made_again(
    pairs: Path, lost: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def harm(file: Path) -> None:
        if lost:
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:100])

    table = pairs.parent / "d.csv"
    table.write_text("index,decision\n1,rejected\n")
    assert review(pairs, "--decisions", table) == 0
    assert review(pairs, "--regenerate") == 0
    made = bytes_of(pairs)
    harm(pairs / "rejected" / "image" / "000001.png")
    harm(pairs / "image" / "2000000.png")
    command = json.loads((pairs / "command.json").read_text())
    argv = ["--method", "procedural", "--data_root", command["data_root"], "--sample_name", str(pairs)]
    capsys.readouterr()
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "4"]) == 0
    assert "note: 1 pair that came in the place of a rejected one is damaged or gone" in capsys.readouterr().out
    assert 1 not in by_index(pairs)
    assert not (pairs / "image" / "000001.png").exists()
    assert review(pairs, "--regenerate") == 0
    assert bytes_of(pairs) == made
    assert sorted(by_index(pairs)) == [0, 2, 3, 2_000_000]
    capsys.readouterr()
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "4"]) == 0
    assert "damaged or gone" not in capsys.readouterr().out


def test_a_folder_that_says_no_command_is_refused(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pairs / "command.json").unlink()
    assert review(pairs, "--regenerate") == 2
    assert "has no command.json" in capsys.readouterr().err
    (pairs / "command.json").write_text("{}")
    assert review(pairs, "--regenerate") == 2
    assert "is damaged" in capsys.readouterr().err
