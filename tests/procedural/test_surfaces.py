"""What single materials promise beyond being a textured picture."""

from __future__ import annotations

import numpy as np
import pytest

from fast.procedural.noise import grains, near_grey, spots, sweep
from fast.procedural.surfaces import MAKERS, MATERIALS, draw_surface
from fast.procedural.traits import TRAITS

METALS = sorted(m for m in MATERIALS if TRAITS[m].kind == "metal")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_material_has_traits_and_every_trait_a_material() -> None:
    assert set(MATERIALS) == set(TRAITS)


@pytest.mark.parametrize("material", MATERIALS)
def test_a_scene_is_finite_float32_and_reflects_no_more_than_it_gets(material: str) -> None:
    scene = MAKERS[material](rng(5), rng(6), 80, 2.0)
    assert scene.albedo.shape == (80, 80, 3)
    assert scene.height.shape == (80, 80)
    assert scene.albedo.dtype == scene.height.dtype == np.float32
    assert np.isfinite(scene.height).all()
    assert scene.albedo.min() >= 0
    assert scene.albedo.max() <= 1
    if scene.glow is not None:
        assert scene.glow.shape == (80, 80)
        assert scene.glow.min() > 0


@pytest.mark.parametrize("material", METALS)
def test_metals_are_nearly_grey(material: str) -> None:
    for seed in range(4):
        red, green, blue = draw_surface(material, rng(seed), 64).reshape(-1, 3).mean(0)
        assert max(red, green, blue) < 1.4 * min(red, green, blue)


def test_perforated_metal_has_holes_at_one_distance_from_each_other() -> None:
    """The picture repeats: some shift makes it resemble itself far better than noise would."""
    picture = draw_surface("perforated_metal", rng(3), 128).mean(2)
    spectrum = np.abs(np.fft.fft2((picture - picture.mean()) * np.hanning(128)[:, None] * np.hanning(128))) ** 2
    likeness = np.fft.ifft2(spectrum).real
    likeness /= likeness[0, 0]
    y, x = np.mgrid[:128, :128]
    away = np.hypot(np.minimum(y, 128 - y), np.minimum(x, 128 - x))
    assert likeness[(away > 5) & (away < 45)].max() > 0.4


def test_turned_metal_shows_circles_round_one_point() -> None:
    """Somewhere there is a point from which brightness depends on the distance; milled lanes have none."""
    picture = draw_surface("turned_metal", rng(1), 128).mean(2)
    fine = picture - np.asarray([np.convolve(row, np.ones(9) / 9, "same") for row in picture])
    y, x = np.mgrid[4:124, 4:124].astype(float)
    fine = fine[4:124, 4:124]

    def explained(cy: float, cx: float) -> float:
        ring = np.hypot(y - cy, x - cx).astype(int).ravel()
        size = np.maximum(np.bincount(ring), 1)
        means = np.bincount(ring, fine.ravel()) / size
        return float((means[ring] ** 2).mean() / fine.var())

    found = [explained(cy, cx) for cy in range(8, 121, 4) for cx in range(8, 121, 4)]
    assert max(found) > 2.5 * float(np.median(found))


def test_noise_helpers_keep_their_promises() -> None:
    noise = grains(rng(), 64, 3.0)
    assert abs(float(noise.mean())) < 1e-4
    assert abs(float(noise.std()) - 1) < 1e-3
    light = sweep(rng(), 64, 3.0)
    assert light.min() >= 0.1
    assert np.ptp(light) > 0.3
    dots = spots(rng(), 200, 20, 2.0, 6.0)
    assert dots.min() == 0
    assert dots.max() == 1
    assert 0.002 < dots.mean() < 0.06
    colours = np.stack([near_grey(rng(i), [(0.5, 0.5, 0.5)], 0.0) for i in range(200)])
    # Red and blue pull against each other; green stays between them.
    assert np.corrcoef(colours[:, 0], colours[:, 2])[0, 1] < -0.8
    assert colours[:, 1].std() < 0.3 * colours[:, 0].std()
