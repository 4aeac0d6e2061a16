"""The scores of a base, end to end with a tiny one: figures, tables in the page, going on, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fast.checkpoint import find_artifact
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split
from fast.door import open_door
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import evaluate_base  # noqa: E402

TINY = [
    *("--materials", "leather", "--size", "32", "--pairs", "3", "--normals", "2", "--evaluations", "2"),
    *("--variant_pairs", "3", "--ddpm_pairs", "1", "--workers", "1", "--device", "cpu", "--segmenter_pairs", "4"),
    *("--test_pairs", "3", "--steps", "2", "--batch_size", "2", "--seeds", "0", "1"),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text((ROOT / "docs" / "base_model.md").read_text())
    return path


def measure(base: Path, page: Path, *more: str) -> int:
    flags = ["--base", str(base), "--out", str(page.with_name("scores.json")), "--doc", str(page), *TINY, *more]
    return open_door(evaluate_base.main, flags)


def scores(page: Path) -> dict[str, Any]:
    return json.loads(page.with_name("scores.json").read_text())


def between(page: Path, name: str) -> str:
    begin, end = evaluate_base.marks(name)
    return page.read_text().split(begin)[1].split(end)[0]


def test_two_sections_end_to_end(tiny_artifact: Path, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(tiny_artifact, page, "--only", "segmenter,visible") == 0
    shown = capsys.readouterr().out
    found = scores(page)
    assert set(found) == {"visible", "segmenter"}
    visible, segmenter = (found[name]["figures"] for name in ("visible", "segmenter"))
    assert [visible[k]["pairs"] for k in ("made", "true", "coded", "others", "nothing")] == [3] * 5
    # A drawn defect changes nothing outside its mask and is as far from itself as can be said: not at all.
    assert visible["true"]["outside"] == 0
    assert visible["true"]["inside"] > 10
    assert visible["true"]["distance"] == visible["true"]["set_distance"] == 0
    assert visible["made"]["distance"] > 0
    assert segmenter["true pairs"]["miou"]["seeds"] == 2
    assert segmenter["ratio"] == pytest.approx(
        segmenter["FAST pairs"]["miou"]["mean"] / segmenter["true pairs"]["miou"]["mean"]
    )
    assert f"| all | 3 | {visible['made']['inside']:.1f} |" in between(page, "visible")
    assert "FAST / true" in between(page, "segmenter")
    assert between(page, "samplers") == between(ROOT / "docs/base_model.md", "samplers")  # not asked for
    assert "by type, %" in shown


def test_nothing_is_measured_twice_unless_asked(
    tiny_artifact: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--only", "first_stage"]
    assert measure(tiny_artifact, page, *flags) == 0
    assert "as measured before" not in capsys.readouterr().out
    before = scores(page), page.read_text()
    assert measure(tiny_artifact, page, *flags) == 0
    assert "as measured before" in capsys.readouterr().out
    assert (scores(page), page.read_text()) == before
    assert before[0]["first_stage"]["figures"]["drawn"]["all"]["pictures"] == 5  # two normals, three defects
    assert measure(tiny_artifact, page, *flags, "--seed", "1") == 2
    assert "first_stage was measured with seed 0, not 1; add --redo" in capsys.readouterr().err
    assert measure(tiny_artifact, page, *flags, "--seed", "1", "--redo") == 0
    assert scores(page)["first_stage"]["figures"] != before[0]["first_stage"]["figures"]


def test_a_stopped_section_goes_on_with_its_parts(tmp_path: Path) -> None:
    store = evaluate_base.Store(tmp_path / "scores.json")
    part = evaluate_base.keeper(store, store.section("visible", {"seed": 0}))
    assert part("a", lambda: 1) == 1
    with pytest.raises(KeyboardInterrupt):
        part("b", interrupted)
    store = evaluate_base.Store(tmp_path / "scores.json")
    part = evaluate_base.keeper(store, store.section("visible", {"seed": 0}))
    assert part("a", interrupted) == 1
    assert part("b", lambda: 2) == 2


def interrupted() -> int:
    raise KeyboardInterrupt


def test_real_pictures_with_pairs_of_the_training_third(
    tiny_artifact: Path, drawn_root: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = drawn_root / "leather" / "test" / "scratch"  # one type of it
    split = make_split(check(open_dataset(dataset)).usable)
    found = find_artifact(tiny_artifact)
    adapted = page.parent / "adapted" / "fast-7.safetensors"
    metadata = {**read_metadata(found.path), "split": split.hash}
    save_safetensors(read_state_dict(found.path), adapted, metadata)
    flags = ["--only", "real", "--real", str(dataset), "--per_type", "2", "--real_segmenter", "mini"]
    flags += ["--real_steps", "2"]
    assert measure(tiny_artifact, page, *flags, "--adapted", str(adapted)) == 0
    figures = scores(page)["real"]["figures"]
    assert figures["split"] == split.hash
    assert figures["counts"] == {"train": 1, "test": 2, "types": 1}
    assert (figures["real third"]["pairs"], figures["real third + FAST"]["pairs"]) == (1, 3)
    assert "| scratch |" in between(page, "real")
    made = (page.parent / "scores").glob("real-*/leather/scratch/manifest.jsonl")
    rows = [json.loads(line) for line in next(made).read_text().splitlines()]
    assert [Path(row["normal_source"]).parent.name for row in rows] == ["good", "good"]
    # The base itself was not adapted to this third: it may have seen the rest.
    assert measure(tiny_artifact, page, *flags, "--adapted", str(tiny_artifact), "--redo") == 2
    assert "may have seen what is tested on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "samplers,prices"], "no such section"),
        (["--only", "real"], "needs --real DATASET and --adapted ARTIFACT"),
        (["--only", "visible", "--pairs", "0"], "--pairs 0 must be at least 1"),
        (["--only", "visible", "--materials", "cheese"], "unknown material 'cheese'"),
        (["--only", "visible", "--size", "50"], "--size 50 is no multiple of"),
        (["--only", "visible", "--base", "configs"], "--base configs: no fast-<step>.safetensors there"),
        (["--only", "first_stage", "--real", ".", "--fitted", "configs"], "--fitted configs: no fast-<step>"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny_artifact: Path, page: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert measure(tiny_artifact, page, *flags) == 2
    assert message in capsys.readouterr().err


def test_a_page_without_marks_is_refused(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(tiny_artifact, tmp_path / "absent.md", "--only", "visible") == 2
    assert "marks <!-- scores: first_stage -->" in capsys.readouterr().err
