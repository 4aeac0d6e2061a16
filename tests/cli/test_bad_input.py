"""Every slip of the synthesis command's user ends in one line on stderr and exit code 2, and writes nothing."""

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fast.artifact import find_artifact
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from ldm.hashing import file_hash
from support.paths import ROOT
from support.synthesis import arguments, leftovers, manifest, synthesize, whole_set

Refused = Callable[..., str]


@pytest.fixture
def refused(drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs the command with more flags; checks exit code, the single line and that no output came; returns the line."""

    def run(*more: str) -> str:
        out = tmp_path / "out"
        assert synthesize(arguments(drawn_root, tiny_artifact, out, *more)) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert not out.exists()
        return said.err

    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps 0 must be at least 1"),
        (["--steps", "5000"], "--steps 5000 lies outside 1..1000"),
        (["--steps", "5000", "--sampler", "ddpm"], "--steps 5000 lies outside 1..1000"),
        (["--steps", "ten"], "argument --steps: invalid int value: 'ten'"),
        (["--count", "0"], "--count 0 must be at least 1"),
        (["--batch_size", "0"], "--batch_size 0 must be at least 1"),
        (["--size", "0"], "--size 0 must be at least 1"),
        (["--margin", "-1"], "--margin -1 must not be negative"),
        (["--reuse", "0"], "--reuse 0 must be at least 1"),
        (["--stop_at", "2", "--sampler", "ddim"], "--stop_at 2 is for --sampler aias"),
        (["--weights_cache", "kept", "--precision", "fp32"], "add --precision bf16"),
        (["--precision", "int8", "--compile"], "--compile is for one size of window"),
        (["--seed", "-1"], "--seed -1 must not be negative"),
        (["--sampler", "euler"], "invalid choice: 'euler'"),
        (["--weight_idx", "10000"], "has the steps 3, 7"),
        (["--anomaly_name", "bottle_test"], "--anomaly_name bottle_test: these weights know leather/crack"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
    ids=lambda value: "_".join(value).strip("-") if isinstance(value, list) else "",
)
def test_flags(refused: Refused, flags: list[str], message: str) -> None:
    assert message in refused(*flags)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(refused: Refused) -> None:
    assert "there is no GPU here; use --device cpu" in refused("--device", "cuda")


@pytest.mark.parametrize("flag", ["--data_root", "--mask_path", "--pt_path"])
def test_folders_missing_empty_or_files(refused: Refused, tmp_path: Path, flag: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for name in ("nowhere", "empty", "file.txt"):
        line = refused(flag, str(tmp_path / name))
        assert name in line


def test_required_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert synthesize([]) == 2
    assert "required: --sample_name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "fast needs masks; give --mask_path FOLDER, or --masks mixed"),
        (["--mask_path", "m"], "fast needs trained weights; give --pt_path FOLDER"),
        (["--masks", "mixed", "--method", "stage"], "stage needs trained weights; give --pt_path FOLDER"),
        (["--method", "draem"], "draem needs normal pictures; give --data_root FOLDER"),
        (["--method", "dfmgan", "--mask_path", "."], "dfmgan draws its own masks; leave --mask_path and --masks out"),
        (["--masks", "given"], "--masks given needs masks; give their folder with --mask_path"),
        (["--masks", "perlin", "--mask_path", "m"], "--masks perlin takes no files"),
        (["--masks", "learned"], "--masks learned and --mask_weights FOLDER go together"),
        (["--method", "draem", "--data_root", ".", "--on_object", "auto"], "--on_object is for masks that are there"),
        (["--method", "draem", "--stop_at", "2"], "--stop_at 2 is for --sampler aias of fast"),
        (["--method", "procedural", "--strength", "0.3"], "procedural starts from no draft; leave it out"),
        (["--strength", "0.3", "--masks", "mixed"], "--strength 0.3 is how much of fast's --draft is made new; add --"),
        (["--method", "procedural", "--blend", "2"], "--blend is not for procedural"),  # the default, yet asked for
        (["--method", "procedural", "--draft", "procedural"], "--method procedural makes whole pairs, and --draft"),
        (["--method", "stage", "--draft", "mixed"], "--draft mixed is what --method fast starts from, not stage"),
        (["--draft", "mixed", "--sampler", "ddim"], "--draft mixed is for --sampler aias, not ddim"),
        (["--method", "stage", "--masks", "mixed", "--no_farm"], "--no_farm is for fast: stage has no FARM"),
        (["--method", "procedural", "--preview", "p.png"], "--preview shows masks that are there before the picture"),
        (["--draft", "transplant", "--preview", "p.png"], "and --draft transplant brings its own"),
    ],
)
def test_flags_that_belong_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert synthesize(["--sample_name", str(tmp_path / "out"), *flags]) == 2
    said, line = capsys.readouterr()
    assert said == ""
    assert says in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_masks_that_are_all_empty(refused: Refused, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(2):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / f"{i}.png")
    assert "all 2 masks are empty; defect pixels must be white" in refused("--mask_path", str(masks))


@pytest.mark.parametrize("more", [[], ["--anomaly_name", "scratch"]], ids=["unnamed", "named"])
@pytest.mark.parametrize("draft", ["mixed", "transplant"])
def test_drafts_of_real_defects_where_there_are_normals_only(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], draft: str, more: list[str]
) -> None:
    normals = shutil.copytree(drawn_root / "wood" / "train" / "good", tmp_path / "parts" / "normal")
    argv = ["--pt_path", "mini", "--data_root", str(normals), "--sample_name", str(tmp_path / "out"), "--draft", draft]
    assert synthesize([*argv, *more]) == 2
    said, line = capsys.readouterr()
    assert said == ""
    assert "no usable defect with a mask (it holds normal images only)" in line
    assert line.endswith("or take --draft procedural, which needs none\n")
    assert not (tmp_path / "out").exists()


def test_a_truncated_mask(refused: Refused, drawn_root: Path, tmp_path: Path) -> None:
    masks = Path(shutil.copytree(drawn_root / "wood" / "ground_truth", tmp_path / "masks"))
    broken = sorted((masks / "crack").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    assert str(broken) in refused("--mask_path", str(masks))


def test_a_truncated_normal_stops_the_run_before_any_pair(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours into a run is too late. Without the broken file the same folder serves."""
    normals = Path(shutil.copytree(drawn_root / "wood" / "train" / "good", tmp_path / "normals"))
    broken = normals / "zz.png"
    broken.write_bytes(next(p for p in normals.iterdir() if p.suffix == ".png").read_bytes()[:200])
    out = tmp_path / "out"
    argv = arguments(drawn_root, tiny_artifact, out, "--data_root", str(normals))
    assert synthesize(argv) == 2
    error = capsys.readouterr().err
    assert str(broken) in error
    assert error.count("\n") == 1
    assert not (out / "image").exists()
    broken.unlink()
    assert synthesize(argv) == 0
    assert len(manifest(out)) == 5


# checkpoints


def test_a_damaged_artifact(refused: Refused, own_artifact: Path) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    assert "damaged" in refused("--pt_path", str(own_artifact))
    path.write_bytes(b"")
    assert "damaged" in refused("--pt_path", str(own_artifact))


def test_weights_that_are_no_artifact(refused: Refused, tiny_base: Path) -> None:
    assert "is not an artifact of main.py" in refused("--pt_path", str(tiny_base))


class Boom:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def based_on(artifact: Path, base: Path) -> None:
    """Let the artifact claim another base."""
    path = artifact / "checkpoints" / "fast-7.safetensors"
    metadata = {**read_metadata(path), "base": str(base), "base_sha256": file_hash(base)}
    save_safetensors({k: v.clone() for k, v in read_state_dict(path).items()}, path, metadata)


def test_pickled_code_is_not_run(
    refused: Refused, own_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    work = tmp_path / "work"
    work.mkdir()
    pickled, zipped = work / "old.ckpt", work / "new.ckpt"
    pickled.write_bytes(pickle.dumps({"state_dict": {"x": Boom()}}))
    torch.save({"state_dict": {"x": Boom()}}, zipped)
    for path in (pickled, zipped):
        assert "is not the base" in refused("--actual_resume", str(path))
        based_on(own_artifact, path)
        assert str(path) in refused("--pt_path", str(own_artifact))
        assert str(path) in refused("--pt_path", str(path))
    assert not (ROOT / "executed").exists()
    assert not Path("executed").exists()


def test_a_base_of_another_architecture(refused: Refused, own_artifact: Path, tiny_base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    state = {k: v.clone() for k, v in read_state_dict(tiny_base).items()}
    state["model.diffusion_model.out.2.weight"] = torch.zeros(4, 64, 3, 3)
    save_safetensors(state, other, {})
    based_on(own_artifact, other)
    line = refused("--pt_path", str(own_artifact))
    assert "does not fit FAST: 1 of another shape (model.diffusion_model.out.2.weight" in line


def test_an_artifact_of_another_architecture(refused: Refused, own_artifact: Path) -> None:
    path = own_artifact / "checkpoints" / "fast-7.safetensors"
    state = {k: v.clone() for k, v in read_state_dict(path).items() if "dec1" not in k}
    save_safetensors(state, path, read_metadata(path))
    assert "missing (farm.dec1" in refused("--pt_path", str(own_artifact))


# the output folder


def test_a_folder_that_holds_something_else(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    assert synthesize(arguments(drawn_root, tiny_artifact, out)) == 2
    assert "holds other files; give an empty or a new folder" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]
    for place in (out / "thesis.tex", out / "thesis.tex" / "below"):
        assert synthesize(arguments(drawn_root, tiny_artifact, place)) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "differing"),
    [
        (["--seed", "1"], "seed"),
        (["--steps", "4"], "steps"),
        (["--sampler", "ddim", "--no_farm"], "sampler, use_farm"),
        (["--weight_idx", "3"], "training, weights, weights_sha256"),
        (["--size", "32"], "size"),
        (["--anomaly_name", "wood/hole"], "masks, types"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_a_folder_that_holds_another_run(
    drawn_root: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    differing: str,
) -> None:
    out = tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "1")) == 0
    before = whole_set(out)
    assert synthesize(arguments(drawn_root, tiny_artifact, out, *flags)) == 2
    assert f"holds another run (differs in {differing})" in capsys.readouterr().err
    assert whole_set(out) == before
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "1")) == 0
    assert whole_set(out) == before


@pytest.mark.parametrize("moment", [0, 1, 3, 4, 9])
def test_a_full_disk(
    drawn_root: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: int,
) -> None:
    left, replace = iter(range(moment)), os.replace

    def full(src: object, dst: object) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(src, dst)  # type: ignore[call-overload]

    out, argv = tmp_path / "out", arguments(drawn_root, tiny_artifact, tmp_path / "out", "--count", "3")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert synthesize(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device); free space" in error
    assert not [name for name in leftovers(out) if name.endswith(".part")]
    assert synthesize(argv) == 0
    assert synthesize(arguments(drawn_root, tiny_artifact, tmp_path / "fresh", "--count", "3")) == 0
    assert whole_set(out) == whole_set(tmp_path / "fresh")
    assert leftovers(out) == []


def test_a_file_too_large_for_the_disk(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real thing: the system refuses the bytes half-way through a picture."""
    out, argv = tmp_path / "out", arguments(drawn_root, tiny_artifact, tmp_path / "out", "--count", "2")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        assert synthesize(argv) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot write (File too large); free space" in error
    assert leftovers(out) == []
    assert not list(out.rglob("*.png"))
    assert synthesize(argv) == 0
    assert len(manifest(out)) == 2


# the command itself


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys, generate_with_mask as g; sys.argv = ['g', '--help']\n"
        "try: g.main(['--help'])\nfinally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for flag in ("data_root", "weight_idx", "sample_name", "init_word", "anomaly_name", "pt_path", "mask_path", "seed"):
        assert f"--{flag}" in done.stdout


def test_the_issue_s_own_line_is_understood(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--flag='value'` with a trailing slash, a test's name after the category, and the artifact's own folder."""
    monkeypatch.chdir(tmp_path)
    Path("normals").symlink_to(drawn_root / "wood" / "train" / "good")
    Path("masks").symlink_to(drawn_root / "wood" / "ground_truth" / "scratch")
    argv = ["--data_root=normals/", "--weight_idx", "7", "--sample_name=samples/fast_output/", "--init_word", "wood"]
    argv += [
        "--anomaly_name=wood_test",
        f"--pt_path={tiny_artifact}/checkpoints/",
        "--mask_path=masks/",
        "--count",
        "2",
    ]
    assert synthesize(argv) == 0
    assert len(manifest(Path("samples/fast_output"))) == 2
    assert find_artifact(tiny_artifact).step == 7
