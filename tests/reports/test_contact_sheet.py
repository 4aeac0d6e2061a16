"""The sheet that people look at: four cells a row, the difference doubled, and the scripts around it."""

import json
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fast.data.images import read_image, write_image, write_mask
from fast.reports.contact_sheet import SheetRow, contact_sheet, read_counterfeit, read_row
from fast.runtime.command import run_cli
from fast.synthesis.options import FIRST_COUNTERFEIT


def script(name: str) -> ModuleType:
    return import_module(f"fast.cli.{name}")


def row(change: int) -> SheetRow:
    normal = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 5:7] = 1
    synthetic = normal.copy()
    synthetic[2:4, 5:7, 1] = 100 + change
    return SheetRow("leather hole", normal, mask, synthetic)


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


def pairs(folder: Path) -> list[dict[str, Any]]:
    """A pair of 400 pixels with a defect of 6, one with a large defect, and counterfeits of both; the second's pair is
    not known."""
    rng = np.random.default_rng(0)
    rows = []
    normal = rng.integers(60, 120, (400, 400, 3)).astype(np.uint8)
    write_image(folder / "normal.png", normal)
    small, large = np.zeros((400, 400), np.uint8), np.zeros((400, 400), np.uint8)
    small[300:306, 100:106], large[50:350, 40:360] = 1, 1
    for index, mask, value in ((0, small, 255), (1, large, 255), (FIRST_COUNTERFEIT, small, 90),
                               (FIRST_COUNTERFEIT + 1, small, 90)):  # fmt: skip
        made, fake = normal.copy(), index >= FIRST_COUNTERFEIT
        made[mask > 0] = value
        files = {kind: f"{kind}/{index:06d}.png" for kind in ("image", "mask")}
        write_image(folder / files["image"], made)
        write_mask(folder / files["mask"], mask * (not fake))
        named = {"prompt": "", "type": "tile/good"} if fake else {"prompt": "tile pit", "type": "tile/pit"}
        seed = 7 if index in (0, FIRST_COUNTERFEIT) else index
        made_of = {"normal_source": str(folder / "normal.png"), "windows": [[0, 0, 400, 400]], "pair_seed": seed}
        record = {"index": index, **files, **named, **made_of}
        rows.append({**record, **({"counterfeit": True} if fake else {})})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_small_defect_is_shown_with_its_surroundings_alone(tmp_path: Path) -> None:
    small, large, *_ = pairs(tmp_path)
    whole, near = read_row(tmp_path, small), read_row(tmp_path, small, zoom=True)
    assert whole.mask.shape == (400, 400)
    assert near.mask.shape == (64, 64)
    assert near.line == "tile pit, 6.2 x"
    for one, other in ((near.normal, whole.normal), (near.mask, whole.mask), (near.synthetic, whole.synthetic)):
        np.testing.assert_array_equal(one, other[271:335, 71:135])
    assert near.mask.sum() == 36
    assert read_row(tmp_path, large, zoom=True).mask.shape == (400, 400)


def test_a_counterfeit_shows_where_it_was_filled_by_its_pair_or_by_what_changed(tmp_path: Path) -> None:
    pair, other, known, unknown = pairs(tmp_path)
    shown = read_counterfeit(tmp_path, known, pair, zoom=True)
    assert (shown.line, shown.mask.sum()) == ("of tile pit, 6.2 x", 36)
    assert (shown.synthetic[shown.mask > 0] == 90).all()
    for one in (other, None):  # another pair's mask is not where it was filled
        changed = read_counterfeit(tmp_path, unknown, one)
        assert changed.caption == "where it changed"
        np.testing.assert_array_equal(changed.mask > 0, (changed.synthetic != changed.normal).any(axis=2))
        assert 30 <= changed.mask.sum() <= 36


def test_the_command_says_how_many_of_how_many_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path / "set")
    argv = [str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png"), "--cell", "64"]
    assert run_cli(script("contact_sheet").main, [*argv, "--rows", "1"]) == 0
    assert f"{tmp_path / 'set'}: 1 of 2 pairs, evenly chosen; --rows 2 shows all\n" in capsys.readouterr().out
    assert run_cli(script("contact_sheet").main, argv) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sheet.png'}\n"
    assert run_cli(script("contact_sheet").main, [*argv[:-1], "100000"]) == 2
    assert "--cell 100000 is larger than a sheet can hold" in capsys.readouterr().err


def test_no_sheet_lies_among_pairs_or_normal_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pairs(tmp_path / "set")
    (tmp_path / "normal").mkdir()
    normal = shutil.copy(tmp_path / "set/normal.png", tmp_path / "normal/a.png")
    content = normal.read_bytes()
    told = [{**row, "normal_source": str(normal)} for row in rows]
    (tmp_path / "set/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    for out, said in ((normal, "lies among the normal images"), (tmp_path / "set/sheet.png", "lies in")):
        assert run_cli(script("contact_sheet").main, [str(tmp_path / "set"), "--out", str(out)]) == 2
        assert f"--out {out} {said}" in capsys.readouterr().err
    assert normal.read_bytes() == content
    assert not (tmp_path / "set/sheet.png").exists()


def test_the_command_shows_counterfeits_below_the_pairs_under_a_title(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, sheets = pairs(tmp_path / "set"), {}
    for name, kept in (("with", rows), ("without", rows[:2])):
        (tmp_path / "set" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        argv = [str(tmp_path / "set"), "--out", str(tmp_path / f"{name}.png"), "--cell", "64"]
        assert run_cli(script("contact_sheet").main, argv) == 0
        sheets[name] = read_image(tmp_path / f"{name}.png")
    more = sheets["with"].shape[0] - sheets["without"].shape[0]
    assert more == 2 * 26 + 64 + 22 + 6  # the title, and one line of two counterfeits
    np.testing.assert_array_equal(sheets["with"][: -more - 18], sheets["without"][:-18])
    title = sheets["with"][-more - 18 :][:52]
    assert (title < 100).any()
    assert (sheets["with"][-64 - 28 - 18 :] < 250).any()


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
