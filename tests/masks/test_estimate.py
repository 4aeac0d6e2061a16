"""The object is found untold in scenes whose object is known exactly, and images without a ground are taken whole."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.object_scenes import GROUNDS, SHAPES, draw_scene, light
from benchmarks.objects import OUTLINES, main, read_outlines
from fast.data.images import write_image
from fast.masks.estimate import estimate
from fast.masks.foreground import foreground
from fast.masks.source import Masks
from fast.masks.vote import Vote, Votes, overlap
from fast.procedural import draw_surface

OPAQUE = {"tone": "opaque"}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_is_found_on_uneven_ground_with_a_soft_shadow(shape: str) -> None:
    ground = GROUNDS[SHAPES.index(shape) % len(GROUNDS)]
    scene = draw_scene(11, shape, ground, (300, 260), fall_off=0.35, shadow=0.35, **OPAQUE)
    found = estimate(scene.image)
    assert found.mask.dtype == np.uint8
    assert found.mask.shape == (300, 260)
    assert overlap(found.mask, scene.mask) >= 0.95, scene.words


@pytest.mark.parametrize("seed", range(4))
def test_a_dark_part_on_bright_uneven_ground_is_found_without_its_shadow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.zeros((280, 320), np.uint8)
    cv2.ellipse(truth, (150 + 10 * seed, 140), (90, 50), 20 * seed, 0, 360, 1, -1)
    moved = np.roll(truth, (6, 9), (0, 1)).astype(np.float32)
    shadow = 1 - 0.45 * cv2.GaussianBlur(moved, (0, 0), 9)
    ground = np.array([225.0, 228, 220]) * shadow[..., None]
    soft = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 0.8)[..., None]
    image = (ground * (1 - soft) + np.array([85.0, 80, 78]) * soft) * light(rng, truth.shape, 0.65)
    image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    assert overlap(estimate(image).mask, truth) >= 0.95
    assert overlap(foreground(image, "otsu_dark"), truth) < 0.8


def test_a_hole_is_ground_and_a_print_in_the_grounds_colour_is_not() -> None:
    truth = np.zeros((256, 256), np.uint8)
    cv2.circle(truth, (128, 128), 90, 1, -1)
    cv2.circle(truth, (128, 128), 30, 0, -1)
    image = np.where(truth[..., None] == 1, (70, 74, 72), (190, 188, 180)).astype(np.uint8)
    cv2.putText(image, "50", (110, 75), 0, 0.7, (190, 188, 180), 2)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    found = estimate(np.clip(image + noise, 0, 255).astype(np.uint8)).mask
    assert found[128, 128] == 0
    assert overlap(found, truth) >= 0.97


def test_drawn_scenes_at_large_and_the_same_answer_twice() -> None:
    scenes = [draw_scene(seed, **OPAQUE) for seed in range(500, 510)]
    found = [estimate(scene.image).mask for scene in scenes]
    shares = [overlap(mask, scene.mask) for mask, scene in zip(found, scenes, strict=True)]
    assert np.mean([share >= 0.95 for share in shares]) >= 0.9
    assert (estimate(scenes[3].image).mask == found[3]).all()


def test_size_does_not_matter() -> None:
    scene = draw_scene(7, "gear", "bright", (320, 320), fall_off=0.2, shadow=0.2, **OPAQUE)
    large = cv2.resize(scene.image, (1500, 1500), interpolation=cv2.INTER_CUBIC)
    truth = cv2.resize(scene.mask, (1500, 1500), interpolation=cv2.INTER_NEAREST)
    assert overlap(estimate(large).mask, truth) >= 0.95


@pytest.mark.parametrize("material", ["wood", "carpet", "fabric", "marble", "brushed_metal"])
def test_a_surface_under_a_lamp_has_no_ground(material: str) -> None:
    rng = np.random.default_rng(1)
    lit = draw_surface(material, rng, 160) * light(rng, (160, 160), 0.5)
    found = estimate(lit.astype(np.uint8))
    assert found.everything
    assert found.reason


def test_an_empty_ground_and_a_tiny_image_are_taken_whole() -> None:
    noise = np.random.default_rng(0).normal(120, 2, (200, 200, 3))
    assert estimate(noise.astype(np.uint8)).reason == "nothing stands out"
    assert estimate(np.zeros((9, 5, 3), np.uint8)).reason == "the image is too small"


def part(seed: int, body: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A plate that always lies in the same place on a grey ground, and where."""
    truth = np.zeros((200, 200), np.uint8)
    truth[50:150, 40:170] = 1
    image = np.where(truth[..., None] == 1, body, (120, 122, 125))
    return (image + np.random.default_rng(seed).normal(0, 2, image.shape)).astype(np.uint8), truth


def test_an_image_that_is_hard_to_read_follows_the_others() -> None:
    good = [part(seed, (40, 42, 45))[0] for seed in range(4)]
    faint, truth = part(9, (124, 124, 127))
    assert estimate(faint).everything
    vote = Vote(good)
    assert overlap(vote.estimate(faint).mask, truth) >= 0.9
    assert overlap(vote.estimate(good[0]).mask, truth) >= 0.97


def test_a_part_that_moves_keeps_its_own_outline() -> None:
    scenes = [draw_scene(seed, "polygon", "bright", (240, 240), shadow=0.2, **OPAQUE) for seed in range(30, 33)]
    vote = Vote([scene.image for scene in scenes])
    assert vote.common is None
    for scene in scenes:
        assert overlap(vote.estimate(scene.image).mask, scene.mask) >= 0.95


def test_surfaces_outvote_one_that_looks_like_an_object(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    plate = part(0, (40, 42, 45))[0]
    images = [draw_surface("wood", rng, 200) for _ in range(5)] + [plate]
    for i, image in enumerate(images):
        write_image(tmp_path / "wood" / f"{i}.png", image)
    assert not estimate(plate).everything
    assert Vote(images).estimate(plate).reason == "most images of the part have no ground"
    files = [tmp_path / "wood" / f"{i}.png" for i in range(6)]
    masks = Masks("blob", on_object="auto")
    assert not masks.region(plate, files[5]).all()  # type: ignore[union-attr]
    masks.survey(files)
    assert masks.region(plate, files[5]).all()  # type: ignore[union-attr]
    assert masks.whole == {files[5]: True}
    assert Votes(files).of(tmp_path / "other" / "1.png") is None


def test_the_outlines_by_hand_are_sound() -> None:
    outlines = read_outlines(OUTLINES)
    assert len(outlines) == 21
    assert all(mask.shape == (600, 600) and 0.15 < mask.mean() < 0.85 for mask in outlines.values())
    assert all(mask[300, 300] == 0 for name, mask in outlines.items() if name.startswith("metal_nut"))


def test_the_score_of_images_is_that_of_their_outlines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = part(0, (40, 42, 45))
    write_image(tmp_path / "photos" / "a.png", image)
    write_image(tmp_path / "wood" / "w.png", draw_surface("wood", np.random.default_rng(0), 128))
    half = [[40, 50], [169, 50], [169, 99], [40, 99]]
    outlines = tmp_path / "outlines.json"
    outlines.write_text(json.dumps({"a.png": {"size": [200, 200], "polygons": [half]}}))
    command = ["--images", str(tmp_path / "photos"), "--outlines", str(outlines), "--surfaces", str(tmp_path / "wood")]
    assert main([*command, "--scenes", "1", "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "0.500  a.png" in said
    assert "0 of 1 at IoU 0.95" in said
    assert "1 of 1 taken whole" in said
    assert (tmp_path / "sheet.png").is_file()
    (tmp_path / "bare").mkdir()
    for given, error in [
        ([], "nothing to score"),
        (["--images", str(tmp_path / "wood")], "holds none of the outlined images"),
        (["--images", str(tmp_path / "photos"), "--outlines", str(tmp_path / "no.json")], "no file of outlines"),
        (["--surfaces", str(tmp_path / "bare")], "holds no images"),
    ]:
        assert main(given) == 2
        assert error in capsys.readouterr().err
