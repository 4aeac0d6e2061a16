"""Drawn shapes and varied real masks: their statistics, that nothing is empty, and that hairlines stay whole."""

import cv2
import numpy as np
import pytest

from fast.masks.augment import AugmentOptions, augmented
from fast.masks.perlin import perlin_mask
from fast.masks.shapes import SHAPES, drawn
from ldm.errors import UserError


def parts(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents(mask, connectivity=8)[0]) - 1


def cut(mask: np.ndarray) -> np.ndarray:
    """The box around a defect."""
    left, top, width, height = cv2.boundingRect(mask)
    return mask[top : top + height, left : left + width]


def test_perlin_masks_are_like_the_published_ones() -> None:
    """4.6 % empty draws; of the others the area has a median of 4.7 %, and 90 % of it lies within 1.9 to 9.4 %."""
    rng = np.random.default_rng(0)
    areas = np.array([perlin_mask((256, 256), rng).mean() for _ in range(300)])
    some = areas[areas > 0]
    assert 0.015 < (areas == 0).mean() < 0.085
    assert np.median(some) == pytest.approx(0.047, abs=0.005)
    assert np.quantile(some, 0.05) == pytest.approx(0.019, abs=0.008)
    assert np.quantile(some, 0.95) == pytest.approx(0.094, abs=0.02)


@pytest.mark.parametrize("kind", [*SHAPES, "mixed"])
def test_shapes_are_seeded_binary_and_never_empty(kind: str) -> None:
    for seed, shape in enumerate([(8, 8), (33, 64), (64, 20), (64, 64), (96, 96), (64, 64)]):
        mask = drawn(kind, shape, np.random.default_rng(seed))
        assert mask.shape == shape
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) in ({0, 1}, {1})
        assert mask.any()
        assert (mask == drawn(kind, shape, np.random.default_rng(seed))).all()
    assert (mask != drawn(kind, (64, 64), np.random.default_rng(99))).any()


def test_shapes_look_like_their_names() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        blob, crack, scratch = (drawn(kind, (256, 256), rng) for kind in ("blob", "crack", "scratch"))
        assert parts(blob) == 1
        assert np.pi * (0.45 * 0.03 * 256) ** 2 < blob.sum() < np.pi * (1.8 * 0.16 * 256) ** 2
        assert parts(crack) == 1
        assert parts(scratch) <= 3
        for lines in (crack, scratch):
            # A line is thin: twice the largest distance to its outside, against the length of its box.
            thick = 2 * cv2.distanceTransform(np.pad(lines, 1), cv2.DIST_L2, 5).max()
            _, _, width, height = cv2.boundingRect(lines)
            assert thick < 0.4 * np.hypot(width, height)
    assert np.median([parts(drawn("spots", (256, 256), rng)) for _ in range(20)]) >= 3


def test_a_shape_that_is_unknown_or_has_no_room() -> None:
    with pytest.raises(UserError, match="'star' is unknown; use one of perlin"):
        drawn("star", (64, 64), np.random.default_rng(0))
    with pytest.raises(UserError, match="7 x 64 pixels is too small"):
        drawn("blob", (64, 7), np.random.default_rng(0))


@pytest.mark.parametrize("slope", [(0, 1), (1, 1), (1, 3)], ids=["level", "diagonal", "slanting"])
def test_a_hairline_stays_one_piece_and_a_hairline(slope: tuple[int, int]) -> None:
    line = np.zeros((96, 96), np.uint8)
    cv2.line(line, (30, 30), (30 + 12 * slope[1], 30 + 12 * slope[0]), 1, 1)
    assert line.sum() == 12 * max(slope) + 1
    lengths = []
    for seed in range(30):
        mask = augmented(line, (96, 96), np.random.default_rng(seed))
        assert parts(mask) == 1
        # Holds no square of three: as thin as it was.
        assert not cv2.erode(mask, np.ones((3, 3), np.uint8)).any()
        _, _, width, height = cv2.boundingRect(mask)
        lengths.append(np.hypot(width, height) / np.hypot(*(12 * np.array(slope))))
    assert min(lengths) < 0.9
    assert max(lengths) > 1.1


def test_an_area_scales_as_asked() -> None:
    disc = np.zeros((128, 128), np.uint8)
    cv2.circle(disc, (40, 60), 15, 1, -1)
    for factor in (0.5, 1.0, 2.0):
        options = AugmentOptions(scale=(factor, factor), bend=0)
        areas = [augmented(disc, (128, 128), np.random.default_rng(s), options).sum() for s in range(5)]
        assert areas == pytest.approx([disc.sum() * factor**2] * 5, rel=0.06)


def test_what_is_only_moved_keeps_its_form() -> None:
    mask = np.zeros((64, 90), np.uint8)
    cv2.circle(mask, (40, 30), 12, 1, -1)
    cv2.line(mask, (40, 30), (75, 50), 1, 1)
    still = AugmentOptions(move=False, turn=False, mirror=False, scale=(1, 1), bend=0)
    assert (augmented(mask, (64, 90), np.random.default_rng(0), still) == mask).all()
    moved = augmented(mask, (64, 90), np.random.default_rng(0), AugmentOptions(True, False, False, (1, 1), 0))
    assert (moved != mask).any()
    assert (cut(moved) == cut(mask)).all()


def test_masks_move_turn_and_are_never_lost() -> None:
    bar = np.zeros((40, 80), np.uint8)
    bar[18:22, 2:78] = 1  # longer than the picture is high
    boxes = []
    for seed in range(40):
        mask = augmented(bar, (40, 80), np.random.default_rng(seed))
        assert mask.sum() > 0.2 * bar.sum()
        boxes.append(cv2.boundingRect(mask))
    assert len({(left, top) for left, top, _, _ in boxes}) > 20
    assert any(height > width for _, _, width, height in boxes)
    whole = augmented(np.ones((20, 20), np.uint8), (20, 20), np.random.default_rng(0))
    assert whole.mean() > 0.2
    assert augmented(bar, (64, 64), np.random.default_rng(0)).shape == (64, 64)
    dot = np.zeros((50, 50), np.uint8)
    dot[7, 9] = 1
    assert all(1 <= augmented(dot, (50, 50), np.random.default_rng(s)).sum() <= 4 for s in range(20))


def test_bad_masks_and_options_to_augment() -> None:
    with pytest.raises(UserError, match="is empty"):
        augmented(np.zeros((9, 9)), (9, 9), np.random.default_rng(0))
    for wrong in ({"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)}, {"bend": 0.5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            AugmentOptions(**wrong)  # type: ignore[arg-type]
