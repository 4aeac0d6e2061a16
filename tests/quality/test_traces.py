"""What gives a filled mask away: grain by bands, and a network that looks for it."""

import cv2
import numpy as np
import pytest
import torch

from fast.quality.detector import detect
from fast.quality.noise import band_levels

SIDE = 48


def noise(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(120, 12, (SIDE, SIDE, 1))
    return np.clip(values, 0, 255).astype(np.uint8).repeat(3, axis=2)


def square(seed: int) -> np.ndarray:
    y, x = np.random.default_rng([seed, 1]).integers(4, SIDE - 24, 2)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[y : y + 20, x : x + 20] = 1
    return mask


def smooth_inside(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, mask = noise(seed), square(seed)
    return np.where(mask[..., None] > 0, cv2.GaussianBlur(image, (0, 0), 1), image), mask


def test_the_same_grain_is_at_zero_and_half_of_it_at_minus_six() -> None:
    levels = np.mean([band_levels(noise(k), square(k)) for k in range(6)], axis=0)
    assert levels == pytest.approx(np.zeros(3), abs=1)
    image, mask = noise(1).astype(float), square(1)
    image[mask > 0] = 120 + (image[mask > 0] - 120) / 2
    assert band_levels(np.rint(image).astype(np.uint8), mask)[0] == pytest.approx(-6, abs=1)


def test_a_smoothed_mask_lacks_the_finest_most() -> None:
    levels = np.mean([band_levels(*smooth_inside(k)) for k in range(6)], axis=0)
    assert levels[0] < -10
    assert levels[0] < levels[1] < levels[2]


def test_a_mask_too_small_to_say_is_none() -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20, 5:40] = 1
    assert band_levels(noise(0), mask) is None
    assert band_levels(noise(0), np.ones_like(mask)) is None


def test_the_detector_finds_what_is_smooth_and_nothing_where_nothing_is() -> None:
    smooth = [smooth_inside(k) for k in range(24)]
    plain = [(noise(k), square(k)) for k in range(24)]
    found, nothing = (detect(pairs[:16], pairs[16:], steps=40, batch=4, side=32) for pairs in (smooth, plain))
    assert found.auroc > 0.85
    assert found.ap > 2 * found.chance
    assert 0.35 < nothing.auroc < 0.65
    assert found.chance == pytest.approx(400 / SIDE**2)


def test_the_detector_s_seed_leaves_the_generators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seeded = torch.get_rng_state(), list[int]()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    detect([smooth_inside(0)], [smooth_inside(1)], steps=1, batch=2, side=32)
    assert torch.equal(before, torch.get_rng_state())
    assert not seeded, "a card's neither"
