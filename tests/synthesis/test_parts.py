"""Several parts by one command: the same sets as by one command for each."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import fast.artifact
from fast.artifact import find_artifact, load_model
from fast.cli.synthesis_parts import parts_of
from fast.latent.lora import Adapters
from fast.synthesis.options import SynthesisOptions
from ldm.checkpoint import read_metadata, save_safetensors
from support.synthesis import arguments, synthesize, whole_set

STEP = ("--count", "2", "--steps", "2")


@pytest.fixture(scope="module")
def parts(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of two parts: adapters of their own on one base."""
    folders = []
    for seed, name in enumerate(("left", "right")):
        artifact = find_artifact(tiny_artifact, 7)
        model, meta = load_model(artifact), read_metadata(artifact.path)
        torch.manual_seed(seed)
        model.lora = Adapters(model.model.diffusion_model, rank=2)
        for adapter in model.lora.by_layer.values():
            torch.nn.init.normal_(adapter.up, std=0.3)
        config = json.loads(meta["config"])
        config["model"]["params"]["lora"] = 2
        folder = tmp_path_factory.mktemp("runs") / name
        meta = {**meta, "config": json.dumps(config)}
        save_safetensors(model.artifact()[1], folder / "checkpoints" / "fast-7.safetensors", meta)
        folders.append(folder)
    return folders


def test_a_list_of_parts_makes_what_each_alone_makes(
    parts: list[Path],
    drawn_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    normals = shutil.copytree(drawn_root / "wood" / "train" / "good", tmp_path / "good")
    sorted(normals.iterdir())[0].unlink()  # the second part has normals of its own
    own = [drawn_root / "wood" / "train" / "good", normals]
    for part, root in zip(parts, own, strict=True):
        alone = arguments(drawn_root, part, tmp_path / "alone" / part.name, *STEP, "--data_root", str(root))
        assert synthesize(alone) == 0
    hashed, hash_aside = [], fast.artifact.hash_aside
    fast.artifact._VERIFIED.clear()
    monkeypatch.setattr(fast.artifact, "hash_aside", lambda path: hashed.append(path) or hash_aside(path))
    capsys.readouterr()
    out, both, roots = tmp_path / "out", ",".join(map(str, parts)), ",".join(map(str, own))
    assert synthesize(arguments(drawn_root, Path("x"), out, *STEP, "--pt_path", both, "--data_root", roots)) == 0
    said = capsys.readouterr().out
    assert "part 1 of 2: left\n" in said
    assert "part 2 of 2: right\n" in said
    assert len(hashed) == 1  # the base, once
    assert sorted(p.name for p in out.iterdir()) == ["left", "right"]
    for part in parts:
        assert whole_set(out / part.name) == whole_set(tmp_path / "alone" / part.name)
    left, right = (whole_set(out / part.name)["image/000000.png"] for part in parts)
    assert left != right


def test_a_base_that_was_changed_meanwhile_is_hashed_again(
    parts: list[Path], tiny_base: Path, tmp_path: Path, drawn_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copy(tiny_base, tmp_path / "base.safetensors"))
    argv = ("--actual_resume", str(base), *STEP)
    assert synthesize(arguments(drawn_root, parts[0], tmp_path / "a", *argv)) == 0
    data = bytearray(base.read_bytes())
    data[-1] ^= 1
    base.write_bytes(data)
    assert synthesize(arguments(drawn_root, parts[1], tmp_path / "b", *argv)) == 2
    assert "is not the base that fast-7.safetensors was trained on" in capsys.readouterr().err


def test_lists_that_do_not_fit_are_refused(
    parts: list[Path], drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both, good = ",".join(map(str, parts)), str(drawn_root / "wood" / "train" / "good")
    for more, says in (
        (("--data_root", ",".join([good] * 3)), "names 3, and --pt_path 2 parts"),
        (("--data_root", f"{good},"), "names nothing beside a comma; give folders"),
        (("--pt_path", f"{parts[0]},{parts[0]}/checkpoints"), "--pt_path names two parts left"),
        (("--pt_path", f"{parts[0]},{tmp_path / 'none'}"), "is not there; give the run of a training"),
        (("--preview", str(tmp_path / "p.png"), "--masks", "given"), "--preview shows the masks of one part"),
    ):
        assert synthesize(arguments(drawn_root, Path("x"), tmp_path / "out", *STEP, "--pt_path", both, *more)) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_the_home_folder_is_expanded_in_each_of_a_list() -> None:
    listed = SynthesisOptions(sample_name="out", weights="~/a,~/b", mask_path="~/m, /n", data_root="~/normal")
    made = parts_of(listed)
    home = Path("~").expanduser()
    assert [(o.weights, o.mask_path) for o in made.values()] == [(f"{home}/a", f"{home}/m"), (f"{home}/b", "/n")]


def test_a_folder_whose_name_has_a_comma_is_one_part(parts: list[Path], drawn_root: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(parts[0], tmp_path / "left, old")
    assert synthesize(arguments(drawn_root, odd, tmp_path / "out", *STEP)) == 0
    assert (tmp_path / "out" / "manifest.jsonl").is_file()
