"""`scripts/score.py`, `--keep` and `--regenerate`: scores in the manifest, the worst set aside, whatever interrupts."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fast.quality.scores
import generate_with_mask
from fast.cli import score
from fast.data.images import list_images
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split
from fast.quality.scores import SCORES
from fast.review.decisions import Decision, Review
from fast.runtime.command import run_cli
from fast.segmentation.data import from_output
from fast.synthesis.output import OutputFolder
from fast.synthesis.records import read_records
from support.synthesis import leftovers


class Killed(BaseException):
    """Ends a run where it stands."""


@pytest.fixture(autouse=True)
def _agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the segmenter says, which is tested by itself: a number from each image."""

    def agreement(pairs: Sequence[Any], real: Sequence[Any], judge: Any) -> list[float]:
        return [float(pair.read()[0].mean() % 1) for pair in pairs]

    monkeypatch.setattr(fast.quality.scores, "agreement", agreement)


def make(root: Path, out: Path, *more: str) -> int:
    given = ["--method", "draem", "--data_root", str(root / "wood"), "--mask_path", str(root / "wood" / "ground_truth")]
    return run_cli(generate_with_mask.main, [*given, "--count", "8", "--sample_name", str(out), *more])


def content(out: Path) -> dict[str, Any]:
    files: dict[str, Any] = {
        str(p.relative_to(out)): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and p.suffix != ".jsonl" and p.name != "command.json"  # which names the folder
    }
    for place in ("", "rejected"):
        if (out / place / "manifest.jsonl").is_file():
            rows = read_records(out / place)
            files[f"{place} manifest"] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return files


@pytest.fixture(scope="module")
def made(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    assert make(drawn_root, out) == 0
    return out


def test_scores_stand_in_the_manifest_and_the_worst_come_back(made: Path, drawn_root: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    wood = ["--defects", str(drawn_root / "wood"), "--split", "all"]
    assert run_cli(score.main, [str(out), *wood]) == 0
    rows, before = read_records(out), read_records(made)
    assert [{k: v for k, v in row.items() if k != "scores"} for row in rows] == before
    real = {p.name for p in (drawn_root / "wood" / "test").rglob("*.png")}
    for row in rows:
        assert tuple(row["scores"]) == SCORES
        assert row["scores"]["closest"] in real
        assert all(isinstance(row["scores"][name], float) for name in SCORES if name != "closest")
    assert run_cli(score.main, [str(out), *wood, "--keep", "0.5", "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()
    kept, rejected = read_records(out), read_records(out / "rejected")
    assert len(kept) == len(rejected) == 4
    for kind in {row["type"] for row in rows}:
        best = [r["scores"]["rank"] for r in kept if r["type"] == kind]
        worst = [r["scores"]["rank"] for r in rejected if r["type"] == kind]
        assert not best or not worst or min(best) >= max(worst)
    pairs, _ = from_output(out)
    assert sorted(pair.name for pair in pairs) == [str(p) for p in list_images(out / "image")]
    assert run_cli(score.main, [str(out), *wood, "--keep", "1"]) == 0
    assert read_records(out) == rows


def test_without_real_defects_what_can_be_said_is_said(made: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    assert run_cli(score.main, [str(out)]) == 0
    for row in read_records(out):
        assert row["scores"]["distance"] is row["scores"]["closest"] is None
        assert 0 <= row["scores"]["rank"] <= 1
        assert row["scores"]["visible"] > 0


def test_pairs_that_a_person_rejected_are_not_kept(
    made: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    Review(out).decide({0: Decision("rejected", "blurred"), 1: Decision("rejected"), 2: Decision("accepted")})
    assert run_cli(score.main, [str(out), "--keep", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    counts = [line.split("  ") for line in lines if " of " in line]
    kept = {int(r["index"]) for r in read_records(out)}
    assert len(kept) == 3  # half of the six that nobody rejected
    assert sum(int(next(c for c in line if " of " in c).split(" of ")[0]) for line in counts) == 3
    rows = [*read_records(out, rejected=True), *read_records(out / "rejected")]
    assert {r["index"] for r in rows if "scores" not in r} == {0, 1}
    assert all((out / f"image/{i:06d}.png").is_file() for i in (0, 1))  # where the person who decided looks for them
    Review(out).undo()
    assert run_cli(score.main, [str(out), "--keep", "0.5"]) == 0
    assert len(read_records(out)) == 4


def test_the_note_names_the_split(made: Path, drawn_root: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    wood = str(drawn_root / "wood")
    for split, recorded in (("third", make_split(check(open_dataset(wood)).usable).hash), ("all", "all")):
        assert run_cli(score.main, [str(out), "--defects", wood, "--split", split]) == 0
        assert json.loads((out / "scores.json").read_text())["split"] == recorded
    assert run_cli(score.main, [str(out)]) == 0
    assert json.loads((out / "scores.json").read_text())["split"] is None


def test_scores_are_not_made_twice(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    assert run_cli(score.main, [str(out), "--keep", "0.5"]) == 0
    before = content(out)
    with monkeypatch.context() as patch:
        patch.setattr(fast.quality.scores.Scorer, "look", None)
        assert run_cli(score.main, [str(out), "--keep", "0.5"]) == 0
        assert content(out) == before
    (out / "scores.json").write_text("{")  # damaged: made again
    assert run_cli(score.main, [str(out), "--keep", "0.5"]) == 0
    assert content(out) == before


def test_keep_and_regenerate_make_the_count(made: Path, drawn_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert make(drawn_root, out, "--count", "4", "--keep", "0.5", "--regenerate") == 0
    kept, rejected = read_records(out), read_records(out / "rejected")
    assert len(kept) == 4
    assert sorted(r["index"] for r in kept + rejected) == list(range(8))
    for row in kept:
        assert (out / row["image"]).read_bytes() == (made / row["image"]).read_bytes()
    before = content(out)
    assert make(drawn_root, out, "--count", "4", "--keep", "0.5", "--regenerate") == 0
    assert content(out) == before


@pytest.mark.parametrize("moment", ["before the scores", "before the sorting", "while files move"])
def test_killed_and_started_again_the_folder_is_the_same(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert make(drawn_root, whole, "--keep", "0.5") == 0

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "before the scores":
            patch.setattr(fast.quality.scores.Scorer, "look", killed)
        elif moment == "before the sorting":
            patch.setattr(OutputFolder, "sort", killed)
        else:
            patch.setattr(os, "replace", dying())
        with pytest.raises(Killed):
            make(drawn_root, out, "--keep", "0.5")
    assert make(drawn_root, out, "--keep", "0.5") == 0
    assert content(out) == content(whole)
    assert leftovers(out) == []


def dying() -> Any:
    """`os.replace` that ends the process once two files have moved to rejected/."""
    own, left = os.replace, iter(range(2))

    def replace(source: Any, target: Any) -> None:
        if not str(source).endswith(".part") and next(left, None) is None:
            raise Killed
        own(source, target)

    return replace


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--keep", "0"], "--keep 0.0 is no share of the pairs"),
        (["--keep", "1.5"], "--keep 1.5 is no share of the pairs"),
        (["--keep", "0.7", "--split", "third"], "--split third is of real defects; name their dataset with --defects"),
        (["--regenerate"], "--regenerate is for pairs that are rejected"),
        (["--defects", "somewhere"], "--defects is for --method transplant, not draem"),
        (["--keep", "0.7", "--defects", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert make(drawn_root, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_processes_are_told_to_score_afterwards(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert make(drawn_root, tmp_path / "out", "--keep", "0.7") == 2
    assert "run scripts/score.py on the folder afterwards" in capsys.readouterr().err


def test_what_is_no_output_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(score.main, [str(tmp_path / "gone")]) == 2
    assert "gone: no such folder" in capsys.readouterr().err
