"""The sheet that people look at: four cells a row, the difference doubled, and the scripts around it."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fast.data.images import read_image
from fast.reports.contact_sheet import Row, contact_sheet
from fast.runtime.command import run_cli


def script(name: str) -> ModuleType:
    return import_module(f"fast.cli.{name}")


def row(change: int) -> Row:
    normal = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 5:7] = 1
    synthetic = normal.copy()
    synthetic[2:4, 5:7, 1] = 100 + change
    return Row("leather hole", normal, mask, synthetic)


@pytest.mark.parametrize(("change", "shown"), [(30, 60), (-40, 80), (150, 255), (0, 0)])
def test_the_difference_is_twice_the_largest_change(change: int, shown: int) -> None:
    normal, mask, synthetic, difference = row(change).cells()
    assert (normal == 100).all()
    assert set(np.unique(mask)) == {0, 255}
    assert (synthetic[2:4, 5:7, 1] == 100 + change).all()
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[2:4, 5:7] = shown
    np.testing.assert_array_equal(difference, expected)


def test_the_sheet_has_a_line_for_every_two_rows(tmp_path: Path) -> None:
    few = read_image(contact_sheet([row(30)], tmp_path / "few.png", cell=32))
    many = read_image(contact_sheet([row(30)] * 5, tmp_path / "many.png", cell=32))
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] - few.shape[0] == 2 * (32 + 22 + 6)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(script("contact_sheet").main, [str(tmp_path)]) == 2
    assert "has no manifest.jsonl" in capsys.readouterr().err


def test_psnr_of_a_first_stage_by_type(
    tiny_base: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = script("evaluate_first_stage")
    assert run_cli(evaluate.main, [str(tiny_base), str(drawn_root), "--size", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:6]] == [
        ["leather/crack", "2"], ["leather/good", "1"], ["leather/hole", "2"], ["leather/scratch", "2"],
        ["leather/stain", "2"],
    ]  # fmt: skip
    assert lines[-1].split()[:2] == ["all", "18"]
    assert run_cli(evaluate.main, [str(tmp_path / "absent.safetensors"), str(drawn_root)]) == 2
    assert "absent.safetensors" in capsys.readouterr().err
