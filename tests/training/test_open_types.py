"""Weights that serve any defect word, and trainings that start from them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fast.artifact import find_artifact, find_base, in_project, load_model
from fast.cli.synthesis_notes import tell_words
from fast.data.words import prompt_text
from fast.latent.prompts import by_word, check_words, is_vocabulary
from fast.model import FAST
from fast.synthesis.defect_types import category_of, open_types, perhaps_category
from fast.synthesis.options import Recipe, SynthesisOptions
from fast.synthesis.sources import NormalSource
from fast.training.config import merge
from ldm.checkpoint import read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.hashing import file_hash
from support.synthesis import manifest, synthesize
from support.tiny import TYPES
from support.training import artifact as weights_of
from support.training import door, recipe

KNOWN = ["surface/scratch", "surface/oil_stain"]


# names


@pytest.mark.parametrize(
    ("anomaly_name", "init_word", "kinds", "category", "expected"),
    [
        ("bottle/scratch", None, [], "", ["bottle/scratch"]),
        ("bottle+chip", "scratch", ["dent"], "wood", ["bottle/chip"]),
        ("scratch", None, ["dent"], "", ["/scratch"]),
        ("oil stain", None, [], "wood", ["wood/oil stain"]),
        ("surface", None, [], "", KNOWN),
        ("surface", "scratch", [], "", ["surface/scratch"]),
        ("burr", None, [], "", ["/burr"]),  # a word that is new, with nothing else to go by
        ("bottle", "chip", [], "wood", ["bottle/chip"]),
        ("bottle", None, ["chip", "dent", "chip"], "wood", ["bottle/chip", "bottle/dent"]),
        (None, "scratch", ["dent"], "wood", ["wood/scratch"]),
        (None, None, ["dent", "scratch"], "", ["/dent", "/scratch"]),
    ],
)
def test_what_flags_and_folders_ask_for(
    anomaly_name: str | None, init_word: str | None, kinds: list[str], category: str, expected: list[str]
) -> None:
    assert open_types(KNOWN, anomaly_name, init_word, kinds, category) == expected


def test_no_defect_is_named() -> None:
    with pytest.raises(UserError, match=r"none is named; name some with --anomaly_name scratch,crack"):
        open_types(KNOWN, None, None, [], "wood")


def test_a_folder_says_what_is_on_its_pictures_where_the_word_is_known(tmp_path: Path) -> None:
    def knows(name: str) -> bool:
        return name in ("wood", "leather", "good")

    flat = [NormalSource(Path("a.png"))]
    for folder, expected in (
        ("wood", "wood"),
        ("wood/train/good", "wood"),
        ("parts/normal", ""),
        ("wood/a/b/c", ""),
        ("leather/wood", "wood"),
        ("leather/x1/normal", ""),  # the place of a part's folder says nothing of it
        ("leather/x1", ""),
        ("leather/normal", ""),
    ):
        assert category_of(flat, str(tmp_path / folder), knows) == expected
    for folder in (".", "train/good", "normal"):
        assert category_of(flat, folder, knows) == ""
    assert category_of([NormalSource(Path("a"), "leather")], str(tmp_path / "wood"), knows) == "leather"
    assert category_of([NormalSource(Path("a"), "screw")], str(tmp_path / "wood"), knows) == ""
    assert category_of([NormalSource(Path("a"), c) for c in ("wood", "leather")], str(tmp_path), knows) == ""


def test_a_folder_s_path_is_only_asked_about(tmp_path: Path) -> None:
    def knows(name: str) -> bool:
        return name in ("wood", "leather", "good")

    for folder, expected in (
        ("wood", "wood"),
        ("wood/train/good", "wood"),
        ("parts/normal", ""),
        ("wood/a/b/c", ""),
        ("leather/wood", "wood"),
    ):
        assert perhaps_category(str(tmp_path / folder), knows) == expected


# vectors


def test_vectors_of_one_word_are_the_mean_of_its_types() -> None:
    vectors = torch.arange(12.0).reshape(3, 2, 2)
    found = by_word(["a/oil_stain", "b/hole", "c/oil stain"], vectors)
    assert set(found) == {"oil stain", "hole"}
    assert torch.equal(found["oil stain"], (vectors[0] + vectors[2]) / 2)
    assert torch.equal(found["hole"], vectors[1])


def test_other_types_get_the_vectors_of_their_word(tiny_fast: FAST) -> None:
    before, encoder = tiny_fast.prompts, tiny_fast.cond_stage_model
    tiny_fast.set_classes(["wood/scratch", "bottle/scratch", "/hole", "/quirk"])
    after = tiny_fast.prompts
    assert after.types == ["wood/scratch", "bottle/scratch", "/hole", "/quirk"]
    assert [after.text(i) for i in range(4)] == ["wood scratch", "bottle scratch", "hole", "quirk"]
    scratches = before.vectors[[i for i, t in enumerate(TYPES) if t.endswith("/scratch")]]
    assert torch.equal(after.vectors[0], before.vectors[TYPES.index("wood/scratch")])
    torch.testing.assert_close(after.vectors[1], scratches.mean(dim=0))
    word = encoder.token_embedding(torch.tensor(encoder.tokenizer.pieces("quirk"))).mean(dim=0)
    torch.testing.assert_close(after.vectors[3], word.expand(8, -1))
    assert not after.vectors.requires_grad
    assert tiny_fast.conditioning({"type": torch.tensor([0, 3])}).shape[0] == 2


def test_words_that_cannot_be_spelled(tiny_fast: FAST) -> None:
    encoder = tiny_fast.cond_stage_model
    for key, word in (("bottle/\u5272", "\u5272"), ("\u5272/scratch", "\u5272"), ("bottle/ ", " ")):
        with pytest.raises(UserError, match=f"'{word}' has no token"):
            check_words(encoder, key)
    check_words(encoder, "/scratch")
    assert is_vocabulary(encoder, "scratch")
    assert not is_vocabulary(encoder, "scrtchx")
    assert not is_vocabulary(encoder, "\u5272")


def test_a_word_that_is_a_number_says_damaged() -> None:
    assert prompt_text("", "7") == "damaged"
    assert prompt_text("", "scratch") == "scratch"


# without training


def run(shipped: Path, root: Path, out: Path, *more: str) -> int:
    normals = root / "wood" / "train" / "good"
    flags = ["--pt_path", str(shipped), "--sample_name", str(out), "--device", "cpu", "--steps", "2", "--count", "3"]
    masks = ["--mask_path", str(root / "wood" / "ground_truth" / "scratch")]
    return synthesize(["--data_root", str(normals), *masks, *flags, *more])


def test_a_word_and_masks_make_pairs(shipped: Path, drawn_root: Path, tmp_path: Path) -> None:
    flags = ["--min_window", "32"]
    assert run(shipped, drawn_root, tmp_path / "out", "--init_word", "scratch", *flags) == 0
    rows = manifest(tmp_path / "out")
    assert {row["prompt"] for row in rows} == {"wood scratch"}
    assert {row["type"] for row in rows} == {"wood/scratch"}
    assert {row["region"] for row in rows} == {"auto"}
    assert run(shipped, drawn_root, tmp_path / "own", "--anomaly_name", "mypart/scratch", *flags) == 0
    assert {row["prompt"] for row in manifest(tmp_path / "own")} == {"mypart scratch"}


def test_a_name_of_one_s_own_is_made_from_drafts_by_the_word_for_its_look(
    shipped: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    normals, out = drawn_root / "wood" / "train" / "good", tmp_path / "out"
    flags = ["--pt_path", str(shipped), "--sample_name", str(out), "--device", "cpu", "--steps", "2", "--count", "2"]
    drafts = ["--draft", "procedural", "--strength", "0.5", "--on_object", "off", "--min_window", "32"]
    named = ["--anomaly_name", "mypart/pinprick", "method.draft_options.looks.pinprick=[hole]"]
    unused = "method.draft_options.looks.pinprik=[stain]"
    assert synthesize(["--data_root", str(normals), *flags, *drafts, *named[:2]]) == 2
    assert "say how it looks: 'method.draft_options.looks.pinprick=[scratch]'" in capsys.readouterr().err
    assert synthesize(["--data_root", str(normals), *flags, *drafts, *named, unused]) == 0
    assert "looks of pinprik are not used: no type here has that name (pinprick)" in capsys.readouterr().out
    rows = manifest(out)
    assert [(row["type"], row["prompt"]) for row in rows] == [("mypart/pinprick", "mypart hole")] * 2
    assert rows[0]["draft_prompts"] == "looks"


@pytest.mark.parametrize(
    ("drafts", "told"),
    [
        ({}, "'quirk', 'blowhole', 'scrach' (did you mean scratch?); they go"),
        ({"draft": "procedural"}, "'quirk', 'scrach' (did you mean scratch?); they go"),  # a hole or a pit is known
        ({"draft": "procedural", "strength": 1.0}, "'quirk', 'blowhole', 'scrach' (did you mean scratch?); they go"),
        ({"draft": "mixed"}, "'scrach' (did you mean scratch?), 'blowhole' (where a draft is a real one); they go"),
    ],
    ids=["none", "drawn", "masks alone", "mixed"],
)
def test_one_note_tells_the_words_that_were_not_learned(
    drafts: dict[str, Any], told: str, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, names = find_artifact(shipped), "quirk,blowhole,scrach"
    options = SynthesisOptions(sample_name="out", data_root="wood/normal", anomaly_name=names, **drafts)
    types = [f"/{name}" for name in names.split(",")]
    tell_words(options, artifact, Recipe(**drafts), types)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "not trained" in line] == [line for line in said if told in line]
    assert len(said) == 2
    assert said[0].endswith("if it is wood, say --anomaly_name wood/quirk,wood/blowhole,wood/scrach")


def test_mixed_drafts_tell_of_which_types_one_kind_is_missing(
    shipped: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(drawn_root, tmp_path / "set")
    for side in ("test", "ground_truth"):
        shutil.copytree(root / "wood" / side / "hole", root / "wood" / side / "gizmo")
    flags = ["--pt_path", str(shipped), "--data_root", str(root), "--split", "all", "--device", "cpu", "--steps", "2"]
    drafts = ["--draft", "mixed", "--on_object", "off", "--min_window", "32", "--count", "4"]
    line = [*flags, *drafts, "--sample_name", str(tmp_path / "out"), "--anomaly_name"]
    assert synthesize([*line, "wood/thing"]) == 2
    said = capsys.readouterr().err
    assert "--draft mixed can make no 'wood/thing'" in said
    assert "has no real defect of type 'wood/thing'" in said
    assert synthesize([*line, "wood/hole,wood/gizmo,wood/dent"]) == 0
    said = capsys.readouterr().out
    assert "nothing that can be drawn is called gizmo: its drafts are real defects alone" in said
    assert "'method.draft_options.looks.gizmo=[scratch]'" in said
    assert "no real defect of type dent: its drafts are drawn ones alone" in said
    by = {(row["type"], row["draft_by"]) for row in manifest(tmp_path / "out")}
    assert {("wood/gizmo", "procedural"), ("wood/dent", "transplant")}.isdisjoint(by)


def test_folders_of_masks_name_the_defects(
    shipped: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    for source, name in (("scratch", "scratch"), ("hole", "quirk")):
        shutil.copytree(drawn_root / "wood" / "ground_truth" / source, masks / name)
    assert (
        run(shipped, drawn_root, tmp_path / "out", "--mask_path", str(masks), "--count", "6", "--min_window", "32") == 0
    )
    rows = manifest(tmp_path / "out")
    assert {row["prompt"] for row in rows} == {"wood scratch", "wood quirk"}
    assert all(Path(row["mask_source"]).parent.name == row["type"].split("/")[1] for row in rows)
    assert "note: these weights were not trained on 'quirk'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: these weights serve any defect, and none is named"),
        (["--init_word", "\u5272"], "error: '\u5272' has no token in the base's tokenizer"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_line(
    shipped: Path, drawn_root: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shipped, drawn_root, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_weights_stay_with_their_types(tiny_artifact: Path, shipped: Path) -> None:
    assert not find_artifact(tiny_artifact).open_types
    assert find_artifact(shipped).open_types


def test_a_base_beside_its_artifact_is_found(shipped: Path) -> None:
    assert load_model(find_artifact(shipped)).base_hash == file_hash(shipped / "base.safetensors")


def test_an_artifact_says_that_it_is_open(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    for is_open in (True, False):
        model = FAST(types=TYPES, ckpt_path=str(tiny_base), open_types=is_open, **tiny_fast_config["params"])
        assert model.artifact_metadata().get("open_types") == ("true" if is_open else None)


# training from them


def test_farm_and_vectors_start_from_the_shipped_ones(shipped: Path, tiny_fast_config: dict[str, Any]) -> None:
    path = shipped / "fast-7.safetensors"
    given, params = read_state_dict(path), tiny_fast_config["params"]
    base = {"ckpt_path": str(shipped / "base.safetensors"), "farm_from": str(path)}
    model = FAST(types=["nut/scratch", "nut/quirk"], **base, **params)
    assert all(torch.equal(v, given[f"farm.{k}"]) for k, v in model.farm.state_dict().items())
    known = by_word(json.loads(read_metadata(path)["types"]), given["prompts.vectors"])
    assert torch.equal(model.prompts.vectors[0], known["scratch"])
    encoder = model.cond_stage_model
    own = encoder.token_embedding(torch.tensor(encoder.tokenizer.pieces("nut quirk"))).mean(dim=0)
    torch.testing.assert_close(model.prompts.vectors[1], own.expand(8, -1))
    named = FAST(types=["nut/other", "nut/quirk"], init_word="scratch", **base, **params).prompts.vectors
    assert all(torch.equal(row, known["scratch"]) for row in named)
    assert model.farm.out.weight.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"farm": {"base_width": 16}}, "FARM of farm_from=.* does not fit FARM"),
        ({"prompt_tokens": 4}, "has 8 vectors per type; set prompt_tokens"),
        ({"ckpt_path": None}, "was trained on another base"),
    ],
)
def test_a_start_that_does_not_fit(
    shipped: Path, tiny_fast_config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    base = {"ckpt_path": str(shipped / "base.safetensors"), "farm_from": str(shipped / "fast-7.safetensors")}
    with pytest.raises(UserError, match=message):
        FAST(types=TYPES, **{**tiny_fast_config["params"], **base, **change})


def test_what_a_path_to_a_base_means(shipped: Path, tiny_base: Path, tmp_path: Path) -> None:
    assert find_base(str(tiny_base)) == (str(tiny_base), None)
    assert find_base(str(shipped)) == (str(shipped / "base.safetensors"), str(shipped / "fast-7.safetensors"))
    with pytest.raises(UserError, match=r"no base\.safetensors in that folder"):
        find_base(str(tmp_path))
    with pytest.raises(UserError, match=r"checkpoint .*gone does not exist; check --actual_resume"):
        find_base(str(tmp_path / "gone"))


def test_recipes_name_the_project_s_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_project(Path("configs/mini/fast.yaml")).is_file()
    (tmp_path / "configs").mkdir()
    assert in_project(Path("configs")) == Path("configs"), "what is here comes first"
    assert in_project(Path("nowhere")) == Path("nowhere")


def test_another_class_of_data_starts_its_section_anew(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: {target: x.y, params: {k: 1}}\ndata: {target: a.b, params: {pool: p}}")
    (tmp_path / "b.yaml").write_text("include: a.yaml\nmodel: {target: z.w}\ndata: {target: c.d, params: {size: 8}}")
    config = merge([tmp_path / "b.yaml"], ["data.params.size=16"])
    assert config["data"] == {"target": "c.d", "params": {"size": 16}}
    assert config["model"] == {"target": "z.w", "params": {"k": 1}}


def test_the_door_starts_from_a_shipped_folder_and_goes_on_without_it(
    shipped: Path, drawn_root: Path, tmp_path: Path, tiny_fast_config: dict[str, Any]
) -> None:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    flags = ["-l", tmp_path, "-n", "run", "-t", "model.params.lr=1e-9"]
    mini = shutil.copytree(shipped, tmp_path / "mini")
    assert door("-b", path, "--actual_resume", mini, *flags) == 0
    trained, given = weights_of(tmp_path / "run", 1), read_state_dict(shipped / "fast-7.safetensors")
    torch.testing.assert_close(trained["farm.enc1.0.0.weight"], given["farm.enc1.0.0.weight"], atol=1e-6, rtol=0)
    assert find_artifact(tmp_path / "run").base == str(mini / "base.safetensors")
    (mini / "fast-7.safetensors").unlink()
    assert door("-r", tmp_path / "run", "-t", "--max_steps", "2") == 0
