"""What pairs are worth: nested choices of real defects, tables, and the number that pairs replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fast.bench import few as module_few
from fast.bench.few import ALONE, Few, choose, table, worth
from fast.cli import few_defects
from fast.data.index import DatasetIndex, Sample
from fast.runtime.command import run_cli


def sample(anomaly: str, number: int, group: str) -> Sample:
    return Sample(Path(f"{anomaly}-{number}.png"), Path(f"{anomaly}-{number}-mask.png"), "part", anomaly, group)


SAMPLES = [sample(kind, i, f"{kind}{i // 3}") for kind in ("crack", "hole") for i in range(9)]


def rows(values: dict[tuple[str, int | None], list[float]]) -> list[dict[str, Any]]:
    return [
        {"label": label, "count": count, "seed": seed, "miou": value}
        for (label, count), own in values.items()
        for seed, value in enumerate(own)
    ]


def test_choices_are_nested_and_take_different_parts_first() -> None:
    three, six = choose(SAMPLES, 3, 5), choose(SAMPLES, 6, 5)
    assert len(three) == 6
    assert len(six) == 12
    assert {s.image for s in three} < {s.image for s in six}
    for kind in ("crack", "hole"):
        assert len({s.group for s in three if s.anomaly == kind}) == 3
    assert {s.image for s in choose(SAMPLES, None, 5)} == {s.image for s in SAMPLES}
    assert [s.image for s in three] == [s.image for s in choose(SAMPLES, 3, 5)]
    assert {s.image for s in choose(SAMPLES, 3, 6)} != {s.image for s in three}


def test_a_table_by_hand() -> None:
    found = rows({(ALONE, 3): [0.2, 0.3], (ALONE, None): [0.5, 0.5], ("moved", 3): [0.4, 0.4]})
    lines = table(found).splitlines()
    assert lines[0] == "| real defects of each type | 3 | all |"
    assert lines[2] == "| real alone | 25.0 ± 7.1 | 50.0 ± 0.0 |"
    assert lines[3].startswith("| moved | 40.0 ± 0.0 (+15.0 ± ")  # of the differences 20 and 10
    assert lines[3].endswith("| - |")


def test_what_pairs_are_worth_lies_on_the_line_between_two_numbers() -> None:
    found = rows({
        (ALONE, 5): [0.2], (ALONE, 10): [0.4], (ALONE, None): [0.5],
        ("moved", 5): [0.3], ("moved", 10): [0.45], ("moved", None): [0.6],
    })  # fmt: skip
    assert worth(found, "moved", 5, 20.0) == pytest.approx(7.5)
    assert worth(found, "moved", 10, 20.0) == pytest.approx(15.0)
    assert worth(found, "moved", None, 20.0) is None
    assert worth(found, "drawn", 5, 20.0) is None


@pytest.mark.parametrize(
    "flags", [["--counts", "few"], ["--looks", "pit"], ["--seeds", "-1"], ["--pairs", "0"]], ids=" ".join
)
def test_bad_flags_end_in_one_line(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(few_defects.main, ["--dataset", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert " ".join(flags) in line
    assert not (tmp_path / "out").exists()


def test_finished_pairs_are_held_against_the_test_side(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module_few, "from_output", lambda folder, held_out: asked.append((folder, held_out)) or ([], 0))
    rule = Few((None, 3), (0,), {"made": {"folder": "out"}, "moved": {}}, 1)
    index = DatasetIndex(Path("."), "folder", [], [], SAMPLES, [])
    assert module_few._Pairs(index, rule, SAMPLES[:1]).of("made", [], None, 0) == []
    assert asked == [("out", {Path("crack-0.png").resolve(), Path("crack-0-mask.png").resolve()})]
    assert module_few._needs_all("made", rule)
    assert not module_few._needs_all("moved", rule)
