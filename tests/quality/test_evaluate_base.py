"""The scores of a base, end to end with a tiny one: figures, tables in the page, going on, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import base_sheet, evaluate_base
from benchmarks.base_scores.bench import Bench
from benchmarks.base_scores.segmenters import THIN
from benchmarks.base_scores.sheet import FOOT, GAP, HEAD, examples
from benchmarks.base_scores.store import FigureStore, keeper, marks
from fast.artifact import find_artifact
from fast.data.images import read_image
from fast.data.layouts import check, open_dataset
from fast.data.split import make_split
from fast.procedural import DEFECTS, defects_of
from fast.quality.words import Classifier, WordNet
from fast.runtime.command import run_cli
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from support.paths import ROOT

TINY = [
    *("--materials", "leather", "--size", "32", "--pairs", "3", "--normals", "2", "--evaluations", "2"),
    *("--variant_pairs", "3", "--ddpm_pairs", "1", "--workers", "1", "--device", "cpu", "--segmenter_pairs", "4"),
    *("--test_pairs", "3", "--steps", "2", "--batch_size", "2", "--seeds", "0", "1", "--word_pairs", "3"),
    *("--precision", "fp32"),
]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text((ROOT / "docs" / "base_model.md").read_text())
    return path


def measure(base: Path, page: Path, *more: str) -> int:
    flags = ["--base", str(base), "--out", str(page.with_name("scores.json")), "--doc", str(page), *TINY, *more]
    return run_cli(evaluate_base.main, flags)


def scores(page: Path) -> dict[str, Any]:
    return json.loads(page.with_name("scores.json").read_text())


def between(page: Path, name: str) -> str:
    begin, end = marks(name)
    return page.read_text().split(begin)[1].split(end)[0]


def test_two_sections_end_to_end(tiny_artifact: Path, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(tiny_artifact, page, "--only", "segmenter,visible") == 0
    shown = capsys.readouterr().out
    found = scores(page)
    assert set(found) == {"visible", "segmenter", "aims"}
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
    thin = [kind for kind in segmenter["ratio_types"] if kind in THIN]
    assert ("the thin and faint types" in shown) == bool(thin)
    aims = found["aims"]
    assert aims["segmenter"]["value"] == segmenter["ratio"]
    assert aims["invisible"] == {
        "true": visible["true"]["below_noise"],
        "floor": visible["nothing"]["below_noise"],
        "value": visible["made"]["below_noise"],
    }
    assert between(page, "samplers") == between(ROOT / "docs/base_model.md", "samplers")  # not asked for
    assert "by type, %" in shown


def test_words_against_those_of_a_base_before(
    tiny_artifact: Path, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = page.with_name("words.safetensors")
    torch.manual_seed(0)
    network = WordNet(len(DEFECTS))
    torch.nn.init.zeros_(network.head.weight)
    # One that says "scratch" whatever it sees.
    network.head.bias.data = torch.arange(len(DEFECTS), 0, -1).float()
    Classifier(network).save(classifier)
    flags = ["--only", "words", "--classifier", str(classifier), "--scales", "1"]
    assert measure(tiny_artifact, page, *flags) == 0
    figures = scores(page)["words"]["figures"]
    truth = [next(iter(row)) for row in figures["references"][0]["confusion"].items()]
    share = figures["references"][0]["types"].get("scratch", 0.0) / len(truth)
    rows = [*figures["references"], *figures["made"]]
    assert len(rows) >= 5
    assert all(row["accuracy"] == pytest.approx(share) for row in rows)
    assert {kind for row in rows for found in row["confusion"].values() for kind in found} == {"scratch"}
    assert "| true defects | 3 |" in between(page, "words")
    before = page.with_name("before.json")
    before.write_text(json.dumps({"aims": {"set_distance": {"true": 0.82, "floor": 2.05, "value": 1.18}}}))
    assert measure(tiny_artifact, page, *flags, "--before", str(before)) == 0
    assert "| set distance to true defects | 0.7 or less | 0.82 | 2.05 | 1.18 | - |" in between(page, "aims")
    before.write_text("{}")
    assert measure(tiny_artifact, page, *flags, "--before", str(before)) == 2
    assert "no score file with aims" in capsys.readouterr().err


def test_what_one_section_made_another_takes(tiny_artifact: Path) -> None:
    options = evaluate_base.parser().parse_args(["--base", str(tiny_artifact), *TINY])
    bench = Bench(options)
    _, few = bench.made(bench.shipped, 2)
    _, more = bench.made(bench.shipped, 4)
    assert all(a is b for a, b in zip(few.pictures, more.pictures, strict=False))
    _, alone = Bench(options).made(bench.shipped, 4)
    for one, other in zip(alone.pictures, more.pictures, strict=True):
        assert (one == other).all()


def test_a_sheet_of_true_and_synthesized_defects(tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    flags = ["--base", str(tiny_artifact), "--out", str(out), "--materials", "leather", "--per_type", "1"]
    flags += ["--size", "32", "--tile", "32", "--blocks", "2", "--evaluations", "2", "--workers", "1"]
    assert run_cli(base_sheet.main, flags) == 0
    sheet = read_image(out)
    lines = -(-len(defects_of("leather")) // 2)
    assert sheet.shape == (HEAD + lines * (32 + FOOT + GAP), 2 * (4 * (32 + GAP) + 4 * GAP), 3)
    truth = examples(["leather"], 1, 100, 32)
    assert (sheet[HEAD : HEAD + 32, :32] == truth[0].normal).all()
    made = sheet[HEAD : HEAD + 32, 3 * (32 + GAP) :][:, :32]
    outside = truth[0].mask == 0
    assert (made[outside] == truth[0].normal[outside]).all()
    assert (made != truth[0].normal).any()
    assert run_cli(base_sheet.main, [*flags, "--tile", "0"]) == 2


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
    store = FigureStore(tmp_path / "scores.json")
    part = keeper(store, store.section("visible", {"seed": 0}))
    assert part("a", lambda: 1) == 1
    with pytest.raises(KeyboardInterrupt):
        part("b", interrupted)
    store = FigureStore(tmp_path / "scores.json")
    part = keeper(store, store.section("visible", {"seed": 0}))
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
        (["--only", "words", "--classifier", "words.txt"], "give the name of a .safetensors file"),
        (["--only", "words", "--scales", "0"], "--scales 0 must be above 0"),
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
    assert "marks <!-- scores: aims -->" in capsys.readouterr().err
