"""Painters of deposits and of broken patterns, drawn into pictures whose right answer is known."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fast.procedural.deposits import DEPOSITS, oil, stain
from fast.procedural.noise import Field
from fast.procedural.site import Change, Site
from fast.procedural.structure import STRUCTURES, displaced_copy, doubled, marks, missing, smooth_ground
from fast.procedural.traits import KINDS, TRAITS, Traits

SIDE = 128
OF_KIND = {traits.kind: traits for traits in TRAITS.values()}
PAINTERS = {**DEPOSITS, **STRUCTURES}


def rng_for(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def site_of(picture: Field, traits: Traits, light: tuple[float, float] = (-0.6, -0.8)) -> Site:
    return Site(picture.astype(np.float32), 1.0, traits, light, 0.0, False, float(picture.mean()) < 95)


def grained(level: float = 140.0, side: int = SIDE) -> Field:
    return level + 3 * np.random.default_rng(0).standard_normal((side, side, 3), dtype=np.float32)


def punched(side: int = SIDE, pitch: int = 32) -> tuple[Field, NDArray[np.uint8]]:
    """A light sheet with dark round holes, and where the holes are."""
    holes = np.zeros((side, side), np.uint8)
    for x in range(pitch // 2, side, pitch):
        for y in range(pitch // 2, side, pitch):
            cv2.circle(holes, (x, y), 7, 1, -1)
    return np.where(holes[..., None] > 0, np.float32(30), grained(side=side)), holes


def drawn(site: Site, change: Change) -> Field:
    return np.clip(site.picture * change.gain + change.add, 0, 255)


@pytest.mark.parametrize("name", PAINTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_painter_changes_a_bounded_part_of_every_kind_of_ground(name: str, kind: str) -> None:
    for i, level in enumerate((60.0, 150.0)):
        site = site_of(grained(level), OF_KIND[kind])
        before = site.picture.copy()
        change = PAINTERS[name](site, rng_for(name, kind, i))
        again = PAINTERS[name](site, rng_for(name, kind, i))
        assert np.array_equal(site.picture, before)
        assert np.array_equal(change.gain, again.gain)
        assert np.array_equal(change.add, again.add)
        assert change.gain.shape[:2] == change.add.shape[:2] == site.shape
        off = np.abs(drawn(site, change) - before).max(2)
        assert np.isfinite(off).all()
        assert (off > 10).sum() >= 4
        # Most of the picture is as it was, to the bit: no veil lies over the rest.
        assert (off == 0).mean() > 0.3


@pytest.mark.parametrize("name", PAINTERS)
def test_a_painter_draws_small_and_large_ones(name: str) -> None:
    site = site_of(grained(), OF_KIND["polymer"])
    areas = []
    for i in range(12):
        change = PAINTERS[name](site, rng_for(name, i))
        areas.append(int((np.abs(drawn(site, change) - site.picture).max(2) > 10).sum()))
    assert max(areas) > 4 * max(min(areas), 1)


def test_marks_finds_the_pattern_and_none_on_plain_or_speckled_ground() -> None:
    picture, holes = punched()
    found = marks(site_of(picture, OF_KIND["metal"]), True)
    assert found is not None
    assert (found * holes).sum() / np.maximum(found, holes).sum() > 0.9
    assert marks(site_of(grained(), OF_KIND["metal"]), True) is None
    assert marks(site_of(picture, OF_KIND["mineral"]), True) is None


def test_missing_lets_the_sheet_go_on_where_a_whole_hole_was() -> None:
    picture, holes = punched()
    site = site_of(picture, OF_KIND["metal"])
    count, labels = cv2.connectedComponents(holes)
    whole = 0
    for seed in range(6):
        after = drawn(site, missing(site, np.random.default_rng(seed)))
        gone = [i for i in range(1, count) if after[labels == i].mean() > 120]
        assert len(gone) == 1
        there = cv2.dilate((labels == gone[0]).astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
        assert np.array_equal(after[~there], site.picture[~there])
        # The sheet is 140 with a grain of 3: so is what fills the hole.
        assert abs(float(after[labels == gone[0]].mean()) - 140) < 4
        whole += int(after[labels == gone[0]].min() > 110)
    assert whole >= 5


def test_doubled_shows_a_displaced_copy_of_a_hole_beside_it() -> None:
    picture, holes = punched()
    site = site_of(picture, OF_KIND["metal"])
    for seed in range(4):
        after = drawn(site, doubled(site, np.random.default_rng(seed)))
        new = (after.mean(2) < 80) & (holes == 0)
        assert new.sum() > 20
        # Some displacement of the holes covers everything that is new.
        y, x = np.nonzero(new)
        covered = [
            displaced_copy(holes.astype(np.float32), dx, dy)[y, x].mean()
            for dx in range(-15, 16)
            for dy in range(-15, 16)
        ]
        assert max(covered) > 0.9
        assert np.array_equal(after[holes > 0] < 80, picture[holes > 0] < 80)


def test_smooth_ground_uses_free_px_alone() -> None:
    ramp = np.repeat(np.linspace(50, 200, 96, dtype=np.float32)[None, :, None], 96, 0).repeat(3, 2)
    free = np.ones((96, 96), np.uint8)
    free[40:56, 40:56] = 0
    spoiled = ramp.copy()
    spoiled[40:56, 40:56] = 255
    assert np.abs(smooth_ground(spoiled, free) - ramp)[42:54, 42:54].max() < 14


def test_oil_soaks_into_cloth_without_a_glint_and_shines_on_glass() -> None:
    ground = np.full((SIDE, SIDE, 3), 130, np.float32)
    cloth, glass = (site_of(ground, OF_KIND[kind]) for kind in ("cloth", "glass"))
    for seed in range(3):
        assert drawn(cloth, oil(cloth, np.random.default_rng(seed))).max() <= 130
        assert drawn(glass, oil(glass, np.random.default_rng(seed))).max() > 150


def test_a_stain_reaches_its_full_depth_more_slowly_where_it_soaks_in() -> None:
    ground = np.full((SIDE, SIDE, 3), 150, np.float32)

    def steepest(soaks: float) -> float:
        traits = Traits("cloth", (200, 200, 200), 0.1, 0.2, 0.0, soaks)
        steps = []
        for seed in range(8):
            off = 150 - drawn(site_of(ground, traits), stain(site_of(ground, traits), np.random.default_rng(seed)))
            steps.append(np.abs(np.diff(off.max(2), axis=1)).max() / off.max())
        return float(np.mean(steps))

    assert steepest(1.0) < steepest(0.0)
