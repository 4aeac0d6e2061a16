"""A defect that keeps to its place comes where its own surroundings are found again."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fast.data.images import write_image, write_mask
from fast.generators import create, surroundings
from fast.generators.surroundings import SIDE, found_again, surroundings_of
from fast.generators.transplant import Transplant
from support.images import picture

H, W = 240, 320
BOX = (150, 100, 20, 14)  # left, top, width, height


def marked() -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[BOX[1] : BOX[1] + BOX[3], BOX[0] : BOX[0] + BOX[2]] = 1
    return mask


@pytest.mark.parametrize("shift", [(0, 0), (9, -14), (-17, 11)])
def test_surroundings_are_found_again_in_other_light(shift: tuple[int, int]) -> None:
    image = picture(0, H, W)
    own = surroundings_of(np.where(marked()[..., None] > 0, 0, image), marked(), BOX)
    assert max(own.grey.shape) <= SIDE
    there = np.roll(image, shift, (0, 1)).astype(np.float32) * 0.7 + 20
    middle = np.array([BOX[1] + BOX[3] / 2, BOX[0] + BOX[2] / 2])
    found = found_again(own, there.astype(np.uint8), middle, (25, 25))
    assert len(found) >= 1
    assert np.abs(found - (middle + shift)).max() < 3
    assert len(found_again(own, there.astype(np.uint8), middle, (5, 5))) == (shift == (0, 0))  # not as far away


def test_what_lies_near_is_not_taken_for_what_lies_far(monkeypatch: pytest.MonkeyPatch) -> None:
    own = surroundings_of(picture(0, H, W), marked(), BOX)
    middle = np.array([107.0, 160.0])
    for shift in ((22, 0), (-21, 21), (0, -23)):
        there = np.roll(picture(0, H, W), shift, (0, 1))
        assert np.abs(found_again(own, there, middle, (25, 25)) - (middle + shift)).max() < 3
    monkeypatch.setattr(surroundings, "AREA", 60)  # searched coarsely, as large pictures are
    coarse = found_again(own, np.roll(picture(0, H, W), (9, -14), (0, 1)), middle, (25, 25))
    assert np.abs(coarse - middle - [9, -14]).max() < 6


def test_other_and_plain_surfaces_have_no_such_place() -> None:
    own = surroundings_of(picture(0, H, W), marked(), BOX)
    for other in (picture(1, H, W), np.full((H, W, 3), 120, np.uint8), picture(1, 12, 12)):
        assert found_again(own, other, (107, 160), (25, 25)).shape == (0, 2)
    plain = surroundings_of(np.full((H, W, 3), 120, np.uint8), marked(), BOX)
    assert len(found_again(plain, picture(0, H, W), (107, 160), (25, 25))) == 0


def flanks(top: int, seed: int) -> np.ndarray:
    """A bright band between two dark grooves, and grain."""
    image = np.full((96, 120, 3), 130, np.float32)
    image[top - 12 : top] = 60
    image[top : top + 16] = 190
    image[top + 16 : top + 24] = 40
    return np.clip(image + np.random.default_rng(seed).normal(0, 2, image.shape[:2])[..., None], 0, 255).astype(
        np.uint8
    )


def test_defects_of_a_band_come_onto_it_wherever_it_lies(tmp_path: Path) -> None:
    for number in range(6):
        top, mask = 36 + 2 * number, np.zeros((96, 120), np.uint8)
        image = flanks(top, number)
        cv2.circle(mask, (30 + 10 * number, top + 8), 4, 1, -1)
        image[mask > 0] = 25
        write_image(tmp_path / f"parts/defects/pit/{number}.png", image)
        write_mask(tmp_path / f"parts/masks/pit/{number}.png", mask)
    write_image(tmp_path / "parts/normal/0.png", flanks(40, 9))
    made = create("transplant", defects=str(tmp_path / "parts"), split="all", on_object="off", scale=(1, 1))
    assert isinstance(made, Transplant)
    assert made.near == {"parts/pit": True}
    assert made.settings()["surroundings"]
    columns = []
    for seed in range(12):
        top = 36 + seed
        mask = made.synthesize(flanks(top, 50 + seed), None, np.random.default_rng(seed), "parts/pit")[1]
        y, x = np.argwhere(mask).mean(0)
        assert abs(y - top - 8) < 2.5, (seed, y - top)
        columns.append(x)
    assert np.std(columns) > 5  # along the band any place is as good
