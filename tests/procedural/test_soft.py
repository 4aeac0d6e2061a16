"""The soft, woven, moulded and coated materials: each maker alone, before any dataset is drawn of them."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from fast.procedural.camera import Scene, photograph
from fast.procedural.pressed import _chips
from fast.procedural.soft import SOFT
from fast.procedural.yarn import dyed, fibres, part

SIDE = 96


def scene(material: str, seed: int, dye: int | None = None) -> Scene:
    rng = np.random.default_rng(seed)
    return SOFT[material](rng, rng if dye is None else np.random.default_rng(dye), SIDE, 1.0)


@pytest.mark.parametrize("material", SOFT)
def test_a_scene_is_lightable_and_its_generator_alone_decides_it(material: str) -> None:
    for seed in range(6):
        first, again = scene(material, seed), scene(material, seed)
        assert first.albedo.shape == (SIDE, SIDE, 3)
        assert first.height.shape == (SIDE, SIDE)
        assert first.albedo.dtype == first.height.dtype == np.float32
        assert first.albedo.min() > 0
        assert first.albedo.max() <= 0.95
        assert np.isfinite(first.height).all()
        assert np.array_equal(first.albedo, again.albedo)
        assert np.array_equal(first.height, again.height)
    assert not np.array_equal(first.height, scene(material, 99).height)


@pytest.mark.parametrize("material", SOFT)
def test_pictures_are_neither_flat_nor_black_nor_white(material: str) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        picture = photograph(SOFT[material](rng, rng, SIDE, 1.0), SIDE // 2, rng)
        assert picture.std() > 4
        assert 30 < picture.mean() < 230


@pytest.mark.parametrize("material", SOFT)
def test_a_dye_keeps_the_colour_and_not_the_place(material: str) -> None:
    def chroma(dye: int | None) -> float:
        means = np.array([scene(material, i, dye).albedo.reshape(-1, 3).mean(0) for i in range(6)])
        return float((means / means.sum(1, keepdims=True)).std(0).sum())

    assert chroma(4) < 0.7 * chroma(None)
    assert not np.array_equal(scene(material, 0, 4).height, scene(material, 1, 4).height)


def test_colours_span_the_wheel_and_greys_are_grey() -> None:
    rng = np.random.default_rng(1)
    hues = [colorsys.rgb_to_hsv(*dyed(rng, greys=0.0))[0] for _ in range(120)]
    assert len({int(6 * h) for h in hues}) == 6
    greys = np.array([dyed(rng, greys=1.0) for _ in range(60)])
    assert (greys.std(1) / greys.mean(1)).mean() < 0.1


def test_fractional_part_is_that_of_numpy() -> None:
    x = np.linspace(-7.3, 5.2, 50, dtype=np.float32)
    assert np.allclose(part(x), np.mod(x, 1), atol=1e-6)


def test_fibres_lie_in_the_direction_asked_for() -> None:
    flat = fibres(np.random.default_rng(0), 128, 60, 20, (0.5, 1.0), bend=0.0, lean=(0.0, 0.05))
    assert 0.02 < (flat > 0).mean() < 0.5
    assert set(np.unique(np.rint(255 * flat))) == {0, 127, 255}
    assert np.abs(np.diff(flat, axis=0)).sum() > 3 * np.abs(np.diff(flat, axis=1)).sum()


def test_chips_cover_the_board_and_are_as_long_as_asked() -> None:
    owner, angle = _chips(np.random.default_rng(0), 200, (40.0, 60.0), (8.0, 12.0), 4.0)
    assert owner.max() < len(angle)
    assert (owner == 0).mean() < 0.1
    top = owner == owner.max()
    y, x = np.nonzero(top)
    assert np.hypot(np.ptp(x), np.ptp(y)) < 80
