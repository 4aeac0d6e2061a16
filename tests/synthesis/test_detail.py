"""What the first stage loses is given back, by independent answers: the normal itself, spectra, distances."""

import cv2
import numpy as np
import pytest

from fast.procedural.noise import weighted_blur, wide_blur
from fast.synthesis.detail import faded, likeness, noise_like, restored, varied, weights

SIDE = 96


def surface(seed: int = 0) -> np.ndarray:
    """A grey surface (SIDE,SIDE,3) with stripes and noise."""
    rng = np.random.default_rng(seed)
    stripes = 12 * np.sin(np.arange(SIDE) / 3)[None, :, None]
    return np.clip(120 + stripes + rng.normal(0, 6, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)


def decoded(image: np.ndarray) -> np.ndarray:
    """What a first stage does to it: the finest is gone."""
    return cv2.GaussianBlur(image, (0, 0), 1.2)


def disc(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return ((rows - 48) ** 2 + (columns - 48) ** 2 <= radius**2).astype(np.uint8)


def fine(image: np.ndarray) -> np.ndarray:
    """The finest of the picture's levels, (H,W)."""
    grey = image[..., 0].astype(float)
    return grey - cv2.GaussianBlur(grey, (0, 0), 1)


def test_where_nothing_was_made_the_normal_comes_back() -> None:
    normal = surface()
    assert (restored(normal, decoded(normal), decoded(normal), 1) == normal).all()


def test_a_darker_surface_keeps_its_own_grain() -> None:
    normal = surface()
    made = (decoded(normal) * 0.9).astype(np.uint8)
    full = restored(normal, decoded(normal), made, 1)
    assert np.corrcoef(fine(full).ravel(), fine(normal).ravel())[0, 1] > 0.85
    assert np.corrcoef(fine(made).ravel(), fine(normal).ravel())[0, 1] < 0.8


def test_another_surface_gets_noise_as_strong_but_not_the_same() -> None:
    normal, own = surface(), disc(30) > 0
    made = decoded(normal)
    checks = 50 * ((np.add(*np.mgrid[:SIDE, :SIDE]) // 12) % 2)
    made[own] = np.clip(200 - checks, 0, 255).astype(np.uint8)[own][:, None]
    full = restored(normal, decoded(normal), made, 1)
    added = (full.astype(float) - made)[..., 0]
    lost = (normal.astype(float) - decoded(normal))[..., 0]
    deep = disc(24) > 0
    assert added[deep].std() == pytest.approx(lost[deep].std(), rel=0.15)
    assert np.corrcoef(added[deep], lost[deep])[0, 1] < 0.5
    assert (restored(normal, decoded(normal), made, 2) != full)[own].any(), "the seed says which noise"
    assert (restored(normal, decoded(normal), made, 1) == full).all()


def test_noise_has_the_spectrum_of_what_is_lost() -> None:
    rng = np.random.default_rng(3)
    stripes = cv2.GaussianBlur(rng.normal(0, 9, (SIDE, SIDE)), (1, 31), 0).astype(np.float32)
    lost = np.repeat(stripes[..., None], 3, axis=2)
    noise = noise_like(lost, 5)
    assert noise.std() == pytest.approx(lost.std(), rel=0.1)
    assert (noise[..., 0] == noise[..., 1]).all(), "grey stays grey"

    def along(x: np.ndarray) -> tuple[float, float]:
        return float(np.corrcoef(x[1:].ravel(), x[:-1].ravel())[0, 1]), float(
            np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1]
        )

    assert along(noise[..., 0]) == pytest.approx(along(stripes), abs=0.15)
    assert abs(np.corrcoef(noise[..., 0].ravel(), stripes.ravel())[0, 1]) < 0.2


def test_strength_is_local() -> None:
    lost = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE, 3)).astype(np.float32)
    lost[:, : SIDE // 2] *= 10
    noise = noise_like(lost, 1)
    assert noise[:, : SIDE // 2 - 12].std() > 5 * noise[:, SIDE // 2 + 16 :].std()


def test_likeness_is_one_for_the_same_and_low_for_another() -> None:
    normal = surface()
    assert likeness(normal, normal).min() > 0.999
    assert likeness(normal, surface(9)[:, ::-1]).mean() < 0.6


def test_outside_the_mask_nothing_changes_and_without_blend_nothing_inside() -> None:
    normal, made, own = surface(), surface(4), disc(20)
    for blend in (0, 3):
        full = faded(normal, made, own, blend)
        assert (full[own == 0] == normal[own == 0]).all()
    assert (faded(normal, made, own, 0)[own > 0] == made[own > 0]).all()


def test_a_hard_change_fades_within_the_blend_and_a_soft_one_further_in() -> None:
    normal, own = surface(), disc(40)
    hole = np.clip(255 - cv2.GaussianBlur(surface(7), (0, 0), 3)[::-1].astype(int) * 2, 0, 40).astype(np.uint8)
    stain = (normal * 0.85).astype(np.uint8)
    inside = cv2.distanceTransform(own, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    hard, soft = (weights(normal, made, own, 2) for made in (hole, stain))
    assert hard[inside >= 4].min() > 0.95
    assert 0.2 < hard[(inside >= 1) & (inside < 1.5)].mean() < 0.5
    assert soft[(inside > 4) & (inside < 5)].mean() < 0.4
    assert soft[inside > 24].min() == 1
    by_ring = [soft[(inside >= k) & (inside < k + 1)].mean() for k in range(1, 20)]
    assert by_ring == sorted(by_ring)


def test_a_hairline_is_not_faded_away() -> None:
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[40, 10:80] = 1
    own[60:63, 10:80] = 1
    found = weights(surface(), (surface() * 0.3).astype(np.uint8), own, 4)
    assert (found[40, 10:80] == 1).all()
    assert (found[61, 12:78] == 1).all()


def test_the_picture_s_edge_is_no_border() -> None:
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[:, :50] = 1
    found = weights(surface(), surface(5), own, 3)
    assert (found[:, 0] == 1).all()
    assert (weights(surface(), surface(5), np.ones_like(own), 3) == 1).all()


def test_a_large_draft_takes_no_clouds_from_sampling_but_its_darkness() -> None:
    draft = np.random.default_rng(2).integers(60, 180, (96, 96, 3)).astype(np.uint8)
    before = np.full_like(draft, 120)
    clouds = 8 * np.sin(np.arange(96) / 2.5)[None, :, None] * np.ones((96, 1, 3))
    made = np.rint(np.clip(before - 20 + clouds, 0, 255)).astype(np.uint8)
    mask = disc(40)
    change = varied(draft, before, made, mask).astype(float) - draft
    inside = change[mask > 0]
    assert abs(inside.mean() + 20) < 1.5
    assert inside.std() < 1.5
    # A defect as small as the clouds keeps what became of it.
    small = disc(3)
    own = (varied(draft, before, made, small).astype(float) - draft)[small > 0]
    assert np.corrcoef(own[:, 0], (made.astype(float) - before)[small > 0][:, 0])[0, 1] > 0.9


def test_a_draft_that_sampling_left_alone_stays_byte_for_byte() -> None:
    draft = np.random.default_rng(4).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    decoded, mask = (
        np.random.default_rng(5).integers(0, 256, (64, 48, 3)).astype(np.uint8),
        np.zeros((64, 48), np.uint8),
    )
    for own in (mask, mask + 1):
        assert np.array_equal(varied(draft, decoded, decoded, own), draft)


def test_the_change_outside_the_mask_hardly_leaks_into_it() -> None:
    flat, mask = np.full((96, 96, 3), 100, np.uint8), disc(24)
    made = np.where(disc(30)[..., None] > 0, 90, 200).astype(np.uint8)
    change = varied(flat, flat, made, mask).astype(int) - 100
    assert (np.abs(change[mask > 0] + 10) <= 1).all()
    assert change[0, 0, 0] == 100


def test_a_wide_average_is_the_same_of_a_smaller_field() -> None:
    rng = np.random.default_rng(6)
    field = cv2.GaussianBlur(rng.normal(0, 60, (250, 333, 3)).astype(np.float32), (0, 0), 3)
    for sigma in (5.0, 11.0, 30.0):
        whole = cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        off = np.abs(wide_blur(field, sigma) - whole)
        assert off.mean() < 0.1 * whole.std()
        assert off.max() < 0.5


def test_what_counts_nothing_leaves_no_trace_in_a_weighted_blur() -> None:
    field = np.full((40, 60, 3), 7.0, np.float32)
    field[:, 30:] = 1000
    weight = np.zeros((40, 60, 1), np.float32)
    weight[:, :30] = 1
    np.testing.assert_allclose(weighted_blur(field, weight, 5.0)[:, :40], 7, rtol=1e-5)
    prior = np.array([1, 2, 3], np.float32)
    far = weighted_blur(field, weight, 1.0, prior)[:, -1]
    np.testing.assert_allclose(far, np.broadcast_to(prior, far.shape), rtol=1e-5)
