"""The measures against values worked out by hand, and SSIM against another implementation."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from fast.quality.measure import (
    Contrast,
    contrast,
    distance,
    features,
    noise_limit,
    psnr,
    set_distance,
    spread,
    ssim,
    ssim_map,
)


def flat(value: int, side: int = 24) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def square(side: int = 24) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[8:16, 8:16] = 1
    return mask


def test_psnr_of_known_errors() -> None:
    # An error of 25.5 everywhere is a tenth of the peak: 20 dB.
    assert psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 25.5)) == pytest.approx(20.0)
    other, mask = flat(100), square()
    other[mask != 0] = 110
    assert psnr(flat(100), other, mask) == pytest.approx(20 * np.log10(255 / 10))
    # The same squares over nine times as many pixels: 64 of 576.
    assert psnr(flat(100), other) == pytest.approx(20 * np.log10(255 / 10) + 10 * np.log10(9))
    assert psnr(flat(7), flat(7)) == pytest.approx(100.0)


def test_ssim_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 40, a.shape), 0, 255).astype(np.uint8)
    pair = [torch.from_numpy(x).permute(2, 0, 1)[None].double() for x in (a, b)]
    expected, whole = structural_similarity_index_measure(*pair, data_range=255.0, return_full_image=True)
    assert ssim(a, b) == pytest.approx(float(expected), abs=1e-6)
    np.testing.assert_allclose(ssim_map(a, b), whole[0].mean(0).numpy(), atol=1e-6)


def test_ssim_inside_a_mask_sees_what_lies_there() -> None:
    a, mask = flat(100), square()
    b = a.copy()
    b[0:2, 0:2] = 200  # more than a window away from the mask
    assert ssim(a, b, mask) == pytest.approx(1.0)
    b[mask != 0] = 200
    # At the middle of two even areas only the means count.
    m = (2 * 100 * 200 + 6.5025) / (100**2 + 200**2 + 6.5025)
    wide = ssim_map(flat(100, 40), flat(200, 40))
    np.testing.assert_allclose(wide, m)
    assert ssim(a, b, mask) < 0.9


def test_contrast_inside_and_outside() -> None:
    normal, image, mask = flat(100), flat(102), square()
    image[mask != 0] = (130, 70, 100)
    assert contrast(normal, image, mask) == Contrast(inside=20.0, outside=2.0)
    assert contrast(normal, image, np.ones_like(mask)).outside == 0


def test_the_noise_limit_is_a_percentile_over_pictures() -> None:
    errors = np.zeros((3, 24, 24))
    errors[:, 8:16, 8:16] = np.array([1.0, 2.0, 3.0])[:, None, None]
    errors[:, 0, 0] = 1000  # outside the mask
    assert noise_limit(errors, square(), 50) == pytest.approx(2.0)
    assert noise_limit(errors, square(), 95) == pytest.approx(2.9)


def test_features_of_an_even_change() -> None:
    normal, mask = flat(100), square()
    image = normal.copy()
    image[mask != 0] = 70
    found = features(normal, image, mask)
    np.testing.assert_allclose(found[:4], [-30, 0, -30, -30], atol=1e-9)
    # The gradient is 15 per pixel on both sides of the edge: 28 pixels of 64 inside have one, the four at the corners
    # two; of the surroundings 32 have one.
    inside = (24 * 15**2 + 4 * 2 * 15**2) / 64
    ring = 24 * 24 - 64
    reached = cells_within(8)
    assert reached <= ring
    outside = 32 * 15**2 / reached
    assert found[4] == pytest.approx(np.log((inside + 1) / (outside + 1)))


def cells_within(radius: int) -> int:
    """Pixels of the picture of 24 x 24 that some pixel of the square reaches, and are none of it."""
    import cv2

    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    offsets = np.argwhere(element) - radius
    own = {tuple(p) for p in np.argwhere(square())}
    reached = {(y + dy, x + dx) for y, x in own for dy, dx in offsets} - own
    return sum(0 <= y < 24 and 0 <= x < 24 for y, x in reached)


def test_features_without_surroundings_and_without_change() -> None:
    everywhere = np.ones((24, 24), np.uint8)
    np.testing.assert_allclose(features(flat(100), flat(110), everywhere), [10, 0, 10, 10, 0], atol=1e-9)
    np.testing.assert_allclose(features(flat(9), flat(9), square()), np.zeros(5), atol=1e-9)


def test_percentiles_of_the_change() -> None:
    normal, mask = flat(0), np.zeros((24, 24), np.uint8)
    image = normal.copy()
    mask[3, :21] = 1
    image[3, :21] = np.arange(21)[:, None]  # 0, 1, ... 20: percentiles 1 and 19
    np.testing.assert_allclose(features(normal, image, mask)[:4], [10, np.sqrt((21**2 - 1) / 12), 1, 19], atol=1e-6)


def test_spread_and_distance_in_its_units() -> None:
    rows = [np.full(5, value) for value in (0.0, 2.0, 6.0, 100.0, 104.0)]
    unit = spread(rows, ["a", "a", "a", "b", "b"])
    np.testing.assert_allclose(unit, np.full(5, (2 + 6 + 4 + 4) / 4))  # never between groups
    np.testing.assert_allclose(distance(rows[:2], rows[:2], unit), 0)
    np.testing.assert_allclose(distance([rows[0], rows[1]], [rows[1], rows[2]], unit), (2 + 4) / 2 / 4)
    with pytest.raises(ValueError, match="no group"):
        spread(rows[:2], ["a", "b"])


def test_the_distance_of_sets_ignores_who_meets_whom_within_a_group() -> None:
    rows = [np.full(5, value) for value in (1.0, 5.0, 9.0)]
    turned = [rows[1], rows[0], rows[2]]
    np.testing.assert_allclose(set_distance(rows, turned, "aab", np.full(5, 2.0)), 0)
    np.testing.assert_allclose(set_distance(rows, turned, "abb", np.full(5, 2.0)), (4 + 4 + 0) / 3 / 2)
    middle = [np.full(5, 3.0)] * 2  # nearest to either of 1 and 5, but twice the same
    np.testing.assert_allclose(set_distance(middle, rows[:2], "aa", np.ones(5)), 2)
