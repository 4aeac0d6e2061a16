"""The set that the synthesis command makes: complete, a function of the seed, whoever makes it and in what portions."""

import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fast.artifact import find_artifact, load_model
from fast.data.images import read_image, read_mask, resize_image, resize_mask
from fast.model import FAST
from fast.runtime.precision import has_bf16
from fast.synthesis.options import Recipe
from fast.synthesis.synthesizer import Synthesizer
from ldm.hashing import file_hash
from support.paths import ROOT
from support.synthesis import arguments, leftovers, manifest, synthesize, whole_set
from support.tiny import write_artifacts, write_base


@pytest.fixture(scope="module")
def reference(drawn_root: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pairs made in one go."""
    out = tmp_path_factory.mktemp("reference") / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "7")) == 0
    return out


def test_pairs_are_whole_and_the_background_is_untouched(reference: Path) -> None:
    rows = manifest(reference)
    assert [row["index"] for row in rows] == list(range(7))
    assert leftovers(reference) == []
    for row in rows:
        normal = resize_image(read_image(row["normal_source"]), 64)
        image, mask = read_image(reference / row["image"]), read_mask(reference / row["mask"])
        assert (mask == resize_mask(read_mask(row["mask_source"]), 64)).all()
        assert row["defect_pixels"] == mask.sum() > 0
        assert (image[mask == 0] == normal[mask == 0]).all()
        assert (image[mask == 1] != normal[mask == 1]).any()
        assert set(np.unique(np.asarray(Image.open(reference / row["mask"])))) <= {0, 255}
        triptych = read_image(reference / "triptych" / f"{row['index']:06d}.png")
        assert (triptych[:, :64] == normal).all()
        assert (triptych[:, 68:132, 0] == mask * 255).all()
        assert (triptych[:, 136:] == image).all()


def test_masks_in_a_type_s_folder_make_that_type(reference: Path) -> None:
    for row in manifest(reference):
        kind = Path(row["mask_source"]).parent.name
        assert row["type"] == f"wood/{kind}"
        assert row["prompt"] == f"wood {kind}"


def test_the_manifest_says_how_and_a_line_makes_its_pair_again(
    reference: Path, tiny_artifact: Path, tiny_base: Path
) -> None:
    artifact = find_artifact(tiny_artifact)
    rows = manifest(reference)
    assert len({row["pair_seed"] for row in rows}) == 7
    for row in rows:
        assert (row["seed"], row["sampler"], row["steps"], row["size"], row["use_farm"]) == (0, "aias", 3, 64, True)
        assert row["weights_sha256"] == file_hash(artifact.path)
        assert row["base_sha256"] == file_hash(tiny_base)
        assert row["seconds"] > 0
    row = rows[4]
    recipe = Recipe(**{field.name: row[field.name] for field in fields(Recipe) if field.name in row})
    dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
    engine = Synthesizer(load_model(artifact, dtype=dtype), recipe, row["device"])
    normal, mask = read_image(row["normal_source"]), read_mask(row["mask_source"])
    again = engine.fill(normal, mask, artifact.types.index(row["type"]), row["pair_seed"])
    assert (again == read_image(reference / row["image"])).all()


@pytest.mark.parametrize("batch", ["1", "3"])
def test_the_batch_size_changes_nothing(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, batch: str
) -> None:
    argv = arguments(drawn_root, tiny_artifact, tmp_path / "out", "--count", "7", "--batch_size", batch)
    assert synthesize(argv) == 0
    assert whole_set(tmp_path / "out") == whole_set(reference)


def test_two_processes_share_the_set_out(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, indices in (("1", [1, 3, 5]), ("0", list(range(7)))):
        monkeypatch.setenv("RANK", rank)
        assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "7")) == 0
        assert [row["index"] for row in manifest(out)] == indices
    assert whole_set(out) == whole_set(reference)


def test_torchrun_makes_the_same_set(reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    argv = [*launcher, "generate_with_mask.py", *arguments(drawn_root, tiny_artifact, out, "--count", "7")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert whole_set(out) == whole_set(reference)
    assert leftovers(out) == []


def test_a_set_grows_by_a_larger_count(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "3")) == 0
    times = {p: p.stat().st_mtime_ns for p in (out / "image").iterdir()}
    assert len(times) == 3
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "7")) == 0
    assert whole_set(out) == whole_set(reference)
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())
    assert (
        f"\n7 pairs in {out}\nby type: wood/crack 1, wood/hole 2, wood/scratch 2, wood/stain 2\n"
        in capsys.readouterr().out
    )


def test_another_seed_is_another_set(reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    assert synthesize(arguments(drawn_root, tiny_artifact, tmp_path / "out", "--count", "2", "--seed", "1")) == 0
    for old, new in zip(manifest(reference), manifest(tmp_path / "out"), strict=False):
        assert old["pair_seed"] != new["pair_seed"]
        assert (reference / old["image"]).read_bytes() != (tmp_path / "out" / new["image"]).read_bytes()


@pytest.mark.parametrize(
    "how",
    [
        ["--sampler", "ddim"],
        ["--sampler", "plms"],
        ["--no_farm"],
        ["--precision", "fp32" if has_bf16() else "bf16"],
        ["--size", "32"],
        ["--weight_idx", "3"],
        ["--steps", "1"],
    ],
    ids=" ".join,
)
def test_every_way_of_making_pairs(
    reference: Path, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, how: list[str]
) -> None:
    out = tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--count", "1", *how)) == 0
    row: dict[str, Any] = manifest(out)[0]
    image, mask = read_image(out / row["image"]), read_mask(out / row["mask"])
    normal = resize_image(read_image(row["normal_source"]), row["size"])
    assert (image[mask == 0] == normal[mask == 0]).all()
    assert (image != normal).any()
    assert (out / row["image"]).read_bytes() != (reference / row["image"]).read_bytes()


def test_ddpm_takes_every_step_and_says_so(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a schedule of 60 steps: what is asked of the network is counted."""
    own, times = FAST.apply_model, []

    def counted(self: FAST, x: torch.Tensor, t: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        times.append(int(t[0]))
        return own(self, x, t, *rest, **named)

    monkeypatch.setattr(FAST, "apply_model", counted)
    artifact = write_artifacts(tmp_path / "run", write_base(tmp_path, timesteps=60), 3, timesteps=60)
    out = tmp_path / "out"
    argv = arguments(drawn_root, artifact, out, "--count", "1", "--sampler", "ddpm", "--size", "16")
    assert synthesize(argv) == 0
    assert manifest(out)[0]["steps"] == 60
    assert times == [*range(59, -1, -1)]
    assert "--steps 3 is not used: ddpm always takes all 60" in capsys.readouterr().out


def test_any_camera_s_pictures_serve(drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    """Grey, 16-bit and oblong normals; masks of another size and shape than the normal's."""
    rng = np.random.default_rng(0)
    normals, masks = tmp_path / "normals", tmp_path / "masks"
    normals.mkdir()
    masks.mkdir()
    cv2.imwrite(str(normals / "grey.png"), rng.integers(0, 256, (50, 90), dtype=np.uint8))
    cv2.imwrite(str(normals / "deep.png"), rng.integers(0, 65536, (33, 65, 3), dtype=np.uint16))
    cv2.imwrite(str(normals / "photo.jpg"), rng.integers(0, 256, (130, 70, 3), dtype=np.uint8))
    hairline = np.zeros((300, 200), np.uint8)
    hairline[150, 20:180] = 255
    Image.fromarray(hairline).save(masks / "hairline.png")
    out = tmp_path / "out"
    argv = arguments(drawn_root, tiny_artifact, out, "--data_root", str(normals), "--mask_path", str(masks))
    assert synthesize([*argv, "--count", "20"]) == 0
    rows = manifest(out)
    assert {Path(row["normal_source"]).name for row in rows} == {"grey.png", "deep.png", "photo.jpg"}
    for row in rows:
        assert row["defect_pixels"] >= 160 * 64 // 200
        image, normal = read_image(out / row["image"]), resize_image(read_image(row["normal_source"]), 64)
        mask = read_mask(out / row["mask"])
        assert image.shape == (64, 64, 3)
        assert (image[mask == 0] == normal[mask == 0]).all()


def test_empty_masks_are_refused_by_name(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = Path(shutil.copytree(drawn_root / "wood" / "ground_truth", tmp_path / "masks"))
    empty = masks / "scratch" / "blank.png"
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(empty)
    out = tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--mask_path", str(masks), "--count", "14")) == 0
    assert f"refused: {empty} is an empty mask" in capsys.readouterr().out
    assert len({row["mask_source"] for row in manifest(out)}) == 12
    assert str(empty) not in {row["mask_source"] for row in manifest(out)}


def test_a_whole_dataset_meets_its_own_types(drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = arguments(drawn_root, tiny_artifact, out, "--data_root", str(drawn_root), "--anomaly_name", "scratch")
    assert synthesize([*argv, "--count", "6"]) == 0
    rows = manifest(out)
    for row in rows:
        category = Path(row["normal_source"]).relative_to(drawn_root).parts[0]
        assert row["type"] == f"{category}/scratch"
        assert Path(row["mask_source"]).parent.name == "scratch"
    assert {row["type"] for row in rows} == {"wood/scratch", "leather/scratch"}
