"""The demo from nothing to its page, at the smallest size, on weights that are random."""

import json
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fast.bench.demo import case, page, run, work
from fast.cli import demo
from fast.cli.synthesize import synthesize
from fast.data.images import read_image, read_mask
from fast.procedural import defects_of
from fast.procedural.traits import HELD_APART
from fast.runtime.command import run_cli
from ldm.errors import UserError

MATERIAL = "marble"


@pytest.fixture(scope="module")
def plan() -> case.DemoPlan:
    return case.DemoPlan(
        (MATERIAL,), size=64, normals=2, handful=3, pairs=1, tests=1, evaluations=2, steps=2, window=32
    )


@pytest.fixture(scope="module")
def out(plan: case.DemoPlan, shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo. Read only."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    assert run.run(plan, folder, str(shipped), synthesize) == folder / "report.html"
    return Path(folder)


def test_every_type_is_synthesized_by_its_words(out: Path) -> None:
    rows = [json.loads(line) for line in (out / "pairs" / MATERIAL / "manifest.jsonl").read_text().splitlines()]
    assert sorted(row["prompt"] for row in rows) == sorted(f"{MATERIAL} {defect}" for defect in defects_of(MATERIAL))
    assert {(row["sampler"], row["steps"]) for row in rows} == {("aias", 2)}


def test_real_defects_lie_in_their_masks_and_are_used_once(plan: case.DemoPlan, out: Path) -> None:
    few, tests = case.handful(plan, out), case.tests(plan, out)
    assert len(few) == 3
    assert len({d.defect for d in few}) == 3
    assert [d.defect for d in tests] == list(defects_of(MATERIAL))
    pictures = [read_image(d.image).tobytes() for d in [*few, *tests]]
    pictures += [p.read_bytes() for p in case.normals_of(plan, out, MATERIAL)]
    assert len(set(pictures)) == len(pictures)
    by_hand = {read_mask(p).tobytes() for p in (out / "parts" / MATERIAL / "masks").rglob("*.png")}
    assert len(by_hand) == len(defects_of(MATERIAL))
    assert not by_hand & {read_mask(d.mask).tobytes() for d in [*few, *tests]}


def test_the_page_says_what_was_measured(plan: case.DemoPlan, out: Path) -> None:
    text = (out / "report.html").read_text()
    for name, label in work.SEGMENTERS.items():
        both = either = 0
        for job in case.tests(plan, out):
            found = read_mask(work.found_path(out, name, job)) > 0
            truth = read_mask(job.mask) > 0
            both, either = both + int((found & truth).sum()), either + int((found | truth).sum())
        assert re.search(rf'<dt>IoU, {re.escape(label)}</dt><dd class="value">{100 * both / either:.1f} %</dd>', text)
    assert text.count("<img") == 4 * (page.PAIRS_SHOWN + page.TRIALS_SHOWN) + 1
    assert all(f">{defect.capitalize()}</th>" in text for defect in defects_of(MATERIAL))


def test_a_second_run_does_nothing_twice_and_a_broken_off_one_goes_on(
    plan: case.DemoPlan, out: Path, shipped: Path, tmp_path: Path
) -> None:
    again = tmp_path / "demo"
    shutil.copytree(out, again)
    lost = again / "test" / MATERIAL / "defects" / "crack" / "000.png"
    before = lost.read_bytes()
    lost.unlink()
    kept = {p: p.stat().st_mtime_ns for p in again.rglob("*.png") if "test" not in p.relative_to(again).parts}
    run.run(plan, again, str(shipped), synthesize)
    assert lost.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_a_folder_of_something_else_is_left_alone(
    plan: case.DemoPlan, out: Path, shipped: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds a run with other settings"):
        run.run(case.DemoPlan((MATERIAL,), size=64, seed=1), out, str(shipped), synthesize)
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        run.run(plan, tmp_path, str(shipped), synthesize)
    assert [p.name for p in tmp_path.iterdir()] == ["own.txt"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pt_path", "nowhere"], "nowhere is not there; give the run of a training, or mini"),
        (["--pairs", "0"], "--pairs 0"),
        (["--sise"], "--sise"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(demo.main, ["--out", str(tmp_path / "demo"), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_the_demo_shows_all_types_on_materials_kept_apart() -> None:
    assert case.DemoPlan().materials == HELD_APART
    shown = page.spread(HELD_APART, page.PAIRS_SHOWN, rarest=True)
    assert {d for types in shown.values() for d in types} == {d for m in HELD_APART for d in defects_of(m)}


def test_processes_draw_what_one_draws(tmp_path: Path) -> None:
    plan = case.DemoPlan((MATERIAL,), size=32)
    paths = {
        name: [tmp_path / name / f"{i}.png" for i in range(n)] for name, n in (("many", 2 * case.AT_ONCE), ("few", 2))
    }
    for targets in paths.values():
        case.in_processes([partial(case.draw_normal, plan, MATERIAL, i, path) for i, path in enumerate(targets)])
    for one, other in zip(paths["many"], paths["few"], strict=False):
        np.testing.assert_array_equal(read_image(one), read_image(other))
    assert all(path.is_file() for path in paths["many"])


@dataclass(frozen=True)
class Small(case.DemoPlan):
    materials: tuple[str, ...] = (MATERIAL,)
    size: int = 64
    normals: int = 2
    handful: int = 3
    tests: int = 1
    evaluations: int = 2
    window: int = 32


def test_the_command_with_the_weights_that_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "DemoPlan", Small)
    out = tmp_path / "demo"
    assert run_cli(demo.main, ["--out", str(out), "--pairs", "1", "--steps", "2"]) == 0
    assert (out / "report.html").is_file()
    folder = out / "pairs" / MATERIAL
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == len(defects_of(MATERIAL))
    for row in rows:
        made, normal = read_image(folder / row["image"]), read_image(Path(row["normal_source"]))
        mask = read_mask(folder / row["mask"])
        assert (made[mask == 0] == normal[mask == 0]).all()
        assert (made[mask == 1] != normal[mask == 1]).any()
