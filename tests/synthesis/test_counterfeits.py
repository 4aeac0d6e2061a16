"""Counterfeits: the same masks filled with normal content, made beside the pairs and labelled normal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fast.aias import Guidance
from fast.artifact import find_artifact, load_model
from fast.bench.work import first
from fast.cli import export as exporting
from fast.data.images import read_image, read_mask
from fast.segmentation.data import SegmentationSample, from_output, is_normal, merged
from fast.synthesis.counterfeit import renewed
from fast.synthesis.options import FIRST_COUNTERFEIT
from fast.synthesis.records import read_records
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from support.images import SIDE, mask, picture
from support.synthesis import arguments, manifest, plain_recipe, synthesize, whole_set


@pytest.fixture(scope="module")
def reference(drawn_root: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs and three counterfeits."""
    out = tmp_path_factory.mktemp("counterfeits") / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--counterfeits", "0.6")) == 0
    return out


def fakes(out: Path) -> list[dict[str, Any]]:
    return [row for row in manifest(out) if row.get("counterfeit")]


def test_a_network_that_knows_the_answer_gives_the_normal_back() -> None:
    """Told exactly which noise is in, the chain must end where it began, whatever its jumps."""
    schedule = NoiseSchedule.linear(1000, 8.5e-4, 1.2e-2)
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    asked: list[int] = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]) + 1)
        a = schedule.alpha_bar(asked[-1])
        return (x - a**0.5 * clean) / (1 - a) ** 0.5

    place = torch.zeros(2, 1, 8, 8)
    place[..., 2:6, 3:7] = 1
    for strength in (0.2, 0.5):
        asked.clear()
        made = renewed(denoise, Guidance(schedule, place, clean), torch.randn_like, 10, strength)
        assert torch.allclose(made, clean, atol=1e-3)
        assert asked[0] == 1000 * strength
        assert asked == sorted(asked, reverse=True)
        assert asked[-2:] == [2, 1]


def test_they_are_written_beside_the_pairs_with_empty_masks(reference: Path) -> None:
    rows = manifest(reference)
    assert [row["index"] for row in rows] == [*range(5), *(FIRST_COUNTERFEIT + k for k in range(3))]
    pairs = {row["index"]: row for row in rows}
    assert len(fakes(reference)) == 3
    for row in fakes(reference):
        twin = pairs[row["index"] - FIRST_COUNTERFEIT]
        assert (row["normal_source"], row["mask_source"]) == (twin["normal_source"], twin["mask_source"])
        assert (row["type"], row["prompt"], row["defect_pixels"]) == ("wood/good", "", 0)
        assert not read_mask(reference / row["mask"]).any()
        filled = read_mask(Path(row["mask_source"])) > 0
        assert row["filled_pixels"] == filled.sum() == twin["defect_pixels"]
        image, normal = read_image(reference / row["image"]), read_image(Path(row["normal_source"]))
        assert (image[~filled] == normal[~filled]).all()
        assert (image[filled] != normal[filled]).any()
        assert (image != read_image(reference / twin["image"])).any()


def test_pairs_are_the_same_with_and_without_and_a_set_goes_on(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "3")) == 0
    assert fakes(out) == []
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "3", "--counterfeits", "0.4")) == 0
    assert len(fakes(out)) == 1
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--extend", "--counterfeits", "0.6")) == 0
    assert "5 pairs and 3 counterfeits in" in capsys.readouterr().out
    assert whole_set(out) == whole_set(reference)


def test_two_processes_make_the_same_set(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert synthesize(arguments(drawn_root, tiny_artifact, out, "--counterfeits", "0.6")) == 0
    assert whole_set(out) == whole_set(reference)


def test_segmenters_see_them_as_normal(reference: Path) -> None:
    assert len(read_records(reference)) == 5
    assert len(read_records(reference, counterfeits=True)) == 8
    found, left_out = from_output(reference)
    assert (len(found), left_out) == (8, 0)
    assert [is_normal(pair) for pair in found] == [False] * 5 + [True] * 3
    assert not found[-1].read()[1].any()


def test_an_export_says_that_it_leaves_them_out(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exporting.main([str(reference), "--format", "imagefolder", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "note: 3 counterfeits, normal content made like defects, are left out" in said
    assert "5 pairs ->" in said


def test_they_take_nothing_from_the_defects_share(reference: Path) -> None:
    found, _ = from_output(reference)
    real = [SegmentationSample(Path("real.png"), Path("mask.png"), "wood/hole")] * 4
    normals = [SegmentationSample(Path("good.png"), None, "wood/good")] * 2
    weighted = merged(found, real, normals, real_share=0.5, normal_share=0.2)
    weight = {"real": 0.0, "defects": 0.0, "fakes": 0.0, "normals": 0.0}
    for pair in weighted:
        key = (
            ("fakes" if is_normal(pair) else "defects") if pair.synthetic else "normals" if is_normal(pair) else "real"
        )
        weight[key] += pair.weight
    assert weight["real"] == pytest.approx(weight["defects"])
    assert weight["fakes"] / 3 == pytest.approx(weight["defects"] / 5)
    assert weight["normals"] / sum(weight.values()) == pytest.approx(0.2)
    with pytest.raises(UserError, match="counterfeits alone"):
        merged(found[5:], real)


def test_the_bench_takes_as_large_a_share_of_them_as_of_the_pairs(reference: Path) -> None:
    found, _ = from_output(reference)
    assert [is_normal(pair) for pair in first(found, None)] == [False] * 5 + [True] * 3
    assert [pair.name for pair in first(found, 2)] == [found[0].name, found[1].name, found[5].name]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--counterfeits", "-1"], "--counterfeits -1.0 must not be negative"),
        (["--counterfeits", "nan"], "--counterfeits nan is no share"),
        (["--counterfeits", "0.1", "--count", "4"], "--counterfeits 0.1 of --count 4 is not one; raise it"),
        (["--counterfeits", "0.1", "--count", "2000000"], "--count 2000000 is more than a set holds"),
    ],
)
def test_what_is_no_share_is_refused(
    flags: list[str],
    says: str,
    drawn_root: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert synthesize(arguments(drawn_root, tiny_artifact, tmp_path / "out", *flags)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_methods_without_a_base_have_none(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--method", "cutpaste", "--data_root", str(drawn_root / "wood/train/good"), "--counterfeits", "0.3"]
    assert synthesize([*argv, "--sample_name", str(tmp_path / "out")]) == 2
    assert "--counterfeits is for methods on a latent base, not cutpaste" in capsys.readouterr().err


def test_no_words_take_part(tiny_artifact: Path) -> None:
    synthesizer = Synthesizer(load_model(find_artifact(tiny_artifact)), plain_recipe(SIDE, steps=3, scale=2.0))
    made = [synthesizer.fill(picture(1), mask(), kind, 5, counterfeit=True) for kind in (0, 3)]
    assert np.array_equal(*made)
    assert (made[0][mask() == 0] == picture(1)[mask() == 0]).all()
    assert (synthesizer.fill(picture(1), mask(), 0, 5) != made[0]).any()


def test_where_defects_start_from_drafts_the_normal_is_one(tiny_artifact: Path) -> None:
    recipe = plain_recipe(SIDE, steps=3, draft="procedural", strength=0.3, detail=True)
    engine = Synthesizer(load_model(find_artifact(tiny_artifact)), recipe).engine
    asked: list[int] = []
    engine.model.model.register_forward_pre_hook(lambda _, inputs: asked.append(int(inputs[1][0])))
    made = engine.counterfeit([picture(1)], [mask()], [1])[0]
    first, steps = max(asked), len(asked)
    pair = engine.generate([picture(1)], [mask()], [0], [1], None, [picture(1)])[0]
    assert max(asked[steps:]) == first
    assert len(asked) == 2 * steps
    assert (made[mask() == 1] != pair[mask() == 1]).any()
    assert (engine.counterfeit([picture(1)], [mask()], [1], strength=0)[0] == picture(1)).all()


def test_a_restored_window_of_normal_content_is_the_normal(tiny_artifact: Path) -> None:
    synthesizer = Synthesizer(load_model(find_artifact(tiny_artifact)), plain_recipe(SIDE, steps=3, detail=True))
    engine = synthesizer.engine
    made = engine.counterfeit([picture(1)], [mask()], [1], ["a"], strength=0)
    assert (made[0] == picture(1)).all()
    decoder: list[int] = []
    engine.model.first_stage_model.decoder.register_forward_pre_hook(lambda *_: decoder.append(1))
    engine.generate([picture(1)], [mask()], [0], [1], ["a"])
    assert len(decoder) == 1, "the decoded normal is kept"
    engine.generate([picture(2)], [mask()], [0], [1], ["b"])
    assert len(decoder) == 3
