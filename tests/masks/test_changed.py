"""The mask of what really changed, on changes whose place is known."""

import numpy as np
import pytest

from fast.masks.changed import changed_mask, surface_noise

Array = np.ndarray


def surface(noise: float = 3.0, seed: int = 0, side: int = 96) -> Array:
    grey = 120 + noise * np.random.default_rng(seed).standard_normal((side, side, 1))
    return np.repeat(np.clip(np.rint(grey), 0, 255), 3, axis=2).astype(np.uint8)


def box(top: int, left: int, height: int, width: int, side: int = 96) -> Array:
    mask = np.zeros((side, side), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def changed(normal: Array, mask: Array, by: int) -> Array:
    return np.clip(normal.astype(int) + by * mask[..., None].astype(int), 0, 255).astype(np.uint8)


def iou(a: Array, b: Array) -> float:
    return float(np.logical_and(a, b).sum() / np.logical_or(a, b).sum())


def test_an_unchanged_picture_has_an_empty_mask() -> None:
    assert not changed_mask(surface(), surface(), box(20, 20, 40, 40)).any()


def test_a_change_that_fills_the_asked_mask_is_that_mask() -> None:
    asked = box(30, 24, 20, 33)
    assert (changed_mask(surface(), changed(surface(), asked, -40), asked) == asked).all()


def test_one_pixel_and_a_hairline_are_kept() -> None:
    for asked in (box(40, 41, 1, 1), box(40, 10, 1, 70)):
        assert (changed_mask(surface(), changed(surface(), asked, -60), asked) == asked).all()


def test_half_a_change_is_half_a_mask() -> None:
    asked, real = box(30, 20, 30, 50), box(30, 20, 30, 25)
    found = changed_mask(surface(), changed(surface(), real, 40), asked)
    assert iou(found, real) > 0.95
    assert not found[:, 48:].any()


@pytest.mark.parametrize("noise", [1.0, 3.0, 9.0])
def test_thresholds_follow_the_surface_s_noise(noise: float) -> None:
    """The same surface with other noise, as a decoder makes it, is no defect, however much; ten times that is one."""
    asked, defect = box(20, 20, 40, 40), box(28, 28, 20, 20)
    normal, other = surface(noise, 1), surface(noise, 2)
    pasted = np.where(asked[..., None] > 0, normal // 2 + other // 2, normal)
    assert changed_mask(normal, pasted, asked).mean() < 0.01 * asked.mean()
    found = changed_mask(normal, changed(pasted, defect, int(10 * noise)), asked)
    assert found[defect > 0].mean() > 0.99
    beside = asked * (1 - box(26, 26, 24, 24))  # the smoothing reaches two pixels, and grain may hang on it
    assert found[beside > 0].mean() < 0.05


def test_a_faint_part_is_kept_only_beside_a_strong_one() -> None:
    asked = box(20, 10, 12, 80)
    faint_and_strong = box(20, 10, 12, 24) * 3 + box(20, 10, 12, 8) * 30
    faint_alone = box(20, 60, 12, 24) * 3
    normal = surface(2.0)  # smoothed, one grey level
    shown = np.clip(normal + (faint_and_strong + faint_alone)[..., None], 0, 255).astype(np.uint8)
    found = changed_mask(normal, shown, asked)
    assert iou(found, box(20, 10, 12, 24)) > 0.9
    assert not found[:, 58:].any()


def test_small_holes_are_closed_and_large_ones_are_not() -> None:
    asked = box(10, 10, 70, 70)
    small, large = box(20, 20, 3, 3), box(40, 40, 20, 20)
    normal = surface()
    found = changed_mask(normal, changed(normal, asked - small - large, -50), asked)
    assert (found[small > 0] == 1).all()
    assert not found[42:58, 42:58].any()


def test_nothing_outside_counts_but_within_the_margin() -> None:
    asked, real = box(30, 30, 20, 20), box(20, 20, 40, 40)
    shown = changed(surface(), real, 50)
    assert (changed_mask(surface(), shown, asked) == asked).all()
    grown = changed_mask(surface(), shown, asked, margin=4)
    assert (grown >= asked).all()
    assert grown[26:54, 39].all()
    assert not grown[:26].any()


def test_the_noise_of_a_surface_is_told_apart_from_its_shading() -> None:
    """White noise of 4 grey levels keeps about a third of itself between the two blurs; a slope adds nothing."""
    noise = np.random.default_rng(0).normal(0, 4, (128, 128, 1))
    flat = np.repeat(noise, 3, axis=2).astype(np.float32)
    sloped = flat + np.linspace(0, 200, 128, dtype=np.float32)[None, :, None]
    assert 1.2 < surface_noise(flat)[0] < 2.4
    np.testing.assert_allclose(surface_noise(sloped), surface_noise(flat), rtol=0.1)
