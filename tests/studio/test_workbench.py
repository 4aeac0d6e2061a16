"""The making half without a page: methods, types, masks, and pairs that a wish alone decides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fast.data.content import Copies
from fast.data.images import read_image, read_mask, write_image, write_mask
from fast.generators.latent import LatentGenerator
from fast.segmentation.data import from_output
from fast.studio.kept import keep
from fast.studio.workbench import Wish, Workbench
from fast.synthesis.records import read_records
from ldm.errors import UserError


@pytest.fixture(scope="module")
def bench(drawn_root: Path, tiny_artifact: Path) -> Workbench:
    normals = str(drawn_root / "wood/train/good")
    return Workbench(normals, str(tiny_artifact), str(drawn_root), device="cpu", split="all")


@pytest.fixture
def mask() -> np.ndarray:
    found = np.zeros((64, 64), np.uint8)
    found[20:40, 30:36] = 1
    return found


def test_what_can_be_made_follows_from_weights_and_defects(bench: Workbench, drawn_root: Path) -> None:
    assert bench.methods == ["fast", "procedural", "cutpaste", "transplant"]
    assert bench.drafts == ["none", "procedural", "transplant"]
    assert "wood/crack" in bench.types("fast")
    assert "/scratch" in bench.types("procedural")
    plain = Workbench(str(drawn_root / "wood/train/good"))
    assert plain.methods == ["procedural", "cutpaste"]
    assert plain.real("wood/crack") == []
    with pytest.raises(UserError, match="is not to be had here"):
        plain.make(Wish("fast", "wood/crack", 0))
    with pytest.raises(UserError, match="no fast-<step>"):
        Workbench(str(drawn_root / "wood/train/good"), str(drawn_root))


def test_a_painted_mask_is_filled_and_nothing_else_changes(bench: Workbench, mask: np.ndarray) -> None:
    wish = Wish("fast", "wood/crack", 1, mask, steps=2, seed=3)
    made = bench.make(wish)
    assert (made.mask == mask).all()
    assert (made.image[mask == 0] == made.normal[mask == 0]).all()
    assert (made.image[mask == 1] != made.normal[mask == 1]).any()
    assert (bench.make(wish).image == made.image).all()
    assert (bench.make(replace(wish, seed=4)).image != made.image).any()


def test_a_pair_on_a_grey_picture_is_grey(
    bench: Workbench, tiny_artifact: Path, mask: np.ndarray, tmp_path: Path
) -> None:
    write_image(tmp_path / "grey.png", bench.read_normal(0)[:, :, 0])
    found = Workbench(str(tmp_path), str(tiny_artifact), device="cpu")
    made = found.make(Wish("fast", "wood/crack", 0, mask, steps=2))
    assert (made.image[mask == 1] != made.normal[mask == 1]).any()
    assert not np.ptp(made.image, axis=2).any()


def test_steps_guidance_and_drafts_change_with_the_weights_loaded(bench: Workbench, mask: np.ndarray) -> None:
    wish = Wish("fast", "wood/crack", 0, mask, steps=2)
    first, loaded = bench.make(wish), bench._generator("fast")
    for other in ({"steps": 3}, {"scale": 3.0}, {"draft": "procedural"}, {"draft": "transplant", "mask": None}):
        made = bench.make(replace(wish, **other))
        assert bench._generator("fast") is loaded
        assert (made.image != first.image).any()
    assert (bench.make(wish).image == first.image).all()  # nothing of the others is left


def test_real_defects_of_a_draft_are_read_once_and_a_kept_pair_says_which_it_holds(
    bench: Workbench, drawn_root: Path, tmp_path: Path
) -> None:
    wish = Wish("fast", "wood/crack", 0, steps=2, draft="transplant")
    first, fast = bench.make(wish), bench._generator("fast")
    assert isinstance(fast, LatentGenerator)
    drafts = fast.drafter
    made = bench.make(replace(wish, steps=3, strength=0.5, seed=7))
    assert fast.drafter is drafts
    for index, pair in enumerate((first, made)):
        keep(tmp_path / "kept", pair, bench.normals[0].path)
        row = read_records(tmp_path / "kept")[index]
        assert Path(row["defect_source"]).parent == drawn_root / "wood/test/crack"
    held = [Path(row["defect_source"]) for row in read_records(tmp_path / "kept")]
    assert from_output(tmp_path / "kept", Copies(held))[1] == 2


def test_what_does_not_fit_is_said(bench: Workbench, mask: np.ndarray) -> None:
    for wish, says in (
        (Wish("fast", "wood/crack", 0), "paint, load or draw one"),
        (Wish("fast", "wood/crack", 0, 0 * mask), "paint, load or draw one"),
        (Wish("fast", "wood/crack", 0, mask, draft="transplant"), "brings its own mask"),
        (Wish("transplant", "wood/crack", 0, mask), "brings its own masks"),
        (Wish("fast", "wood/none", 0, mask), "has no type 'wood/none'"),
        (Wish("fast", "wood/crack", 99, mask), "no normal image number 99"),
        (Wish("fast", "wood/crack", 0, mask, steps=5000), "--steps 5000 lies outside"),
        (Wish("fast", "wood/crack", 0, mask, seed=-1), "a number from 0"),
    ):
        with pytest.raises(UserError, match=says):
            bench.make(wish)


def test_masks_are_drawn_on_the_object_or_loaded(bench: Workbench, mask: np.ndarray, tmp_path: Path) -> None:
    drawn = bench.draw_mask(0, "blob", 5)
    assert drawn.shape == (64, 64)
    assert drawn.any()
    assert (bench.draw_mask(0, "blob", 5) == drawn).all()
    assert (bench.draw_mask(0, "blob", 6) != drawn).any()
    write_mask(tmp_path / "m.png", np.kron(mask, np.ones((2, 2), np.uint8)))
    assert (bench.load_mask(0, tmp_path / "m.png") == mask).all()
    write_mask(tmp_path / "wide.png", np.ones((64, 80), np.uint8))
    with pytest.raises(UserError, match="other proportions"):
        bench.load_mask(0, tmp_path / "wide.png")


def test_real_defects_of_a_type_are_shown(bench: Workbench) -> None:
    found = bench.real("wood/crack")
    assert len(found) == 3
    assert all(image.shape == (64, 64, 3) and mask.any() for _, image, mask in found)
    assert len(bench.real("/hole")) > 3  # on every part


def test_kept_pairs_are_an_output_folder_that_training_takes(
    bench: Workbench, mask: np.ndarray, tmp_path: Path
) -> None:
    made = bench.make(Wish("procedural", "/scratch", 2, seed=1))
    assert [keep(tmp_path / "kept", made, bench.normals[2].path) for _ in range(2)] == [0, 1]
    rows = read_records(tmp_path / "kept")
    assert [(row["index"], row["type"], row["seed"]) for row in rows] == [(0, "/scratch", 1), (1, "/scratch", 1)]
    assert (read_image(tmp_path / "kept/image/000001.png") == made.image).all()
    assert len(from_output(tmp_path / "kept")[0]) == 2
    painted = bench.make(Wish("procedural", "/scratch", 2, mask, seed=1))
    number = keep(tmp_path / "kept", painted, bench.normals[2].path)
    row = read_records(tmp_path / "kept")[number]
    assert (read_mask(tmp_path / "kept" / row["mask_asked"]) == mask).all()
    assert all("mask_asked" not in row for row in rows)
    soft = replace(made, filled=np.ones_like(made.mask))  # as a moved defect with its soft edge
    number = keep(tmp_path / "kept", soft, bench.normals[2].path)
    row = read_records(tmp_path / "kept")[number]
    assert read_mask(tmp_path / "kept" / row["mask_asked"]).all()
