"""Scores of pairs against answers worked by hand, and what is kept by them."""

import numpy as np
import pytest
import torch

from fast.features.nearest import LEAST, MOST, Defect, RealDefects, describe, window
from fast.features.store import FeatureStore
from fast.quality.agreement import agreement, in_window
from fast.quality.measure import texture
from fast.quality.ranking import ENOUGH, goodness, kept, ranks
from fast.segmentation.data import SegmentationSample
from fast.segmentation.quick import QuickJudge

Array = np.ndarray


def noisy(spread: float, seed: int, side: int = 64) -> Array:
    grey = np.random.default_rng(seed).normal(120, spread, (side, side, 1))
    return np.repeat(np.clip(np.rint(grey), 0, 255), 3, axis=2).astype(np.uint8)


def disc(row: int, column: int, radius: int, side: int = 64) -> Array:
    y, x = np.mgrid[:side, :side]
    return ((y - row) ** 2 + (x - column) ** 2 <= radius**2).astype(np.uint8)


# texture


def test_texture_is_the_ratio_of_the_noise_s_energy() -> None:
    mask = disc(32, 32, 14)
    inside = mask[..., None] > 0
    assert texture(noisy(8, 0), mask) == pytest.approx(1, abs=0.1)
    # Half the noise has a quarter of its energy, whatever share of it the Gaussian leaves, but for the 1 on both sides.
    assert texture(np.where(inside, noisy(6, 1), noisy(12, 0)), mask) == pytest.approx(0.25, abs=0.05)
    assert texture(np.where(inside, noisy(12, 1), noisy(6, 0)), mask) == pytest.approx(4, abs=0.8)
    assert texture(np.where(inside, np.uint8(120), noisy(12, 0)), mask) < 0.03
    assert texture(noisy(8, 0), np.ones((64, 64), np.uint8)) is None


# distance


def test_distance_is_the_mean_of_the_nearest_in_units_of_real_ones() -> None:
    """Numbers on a line at 0, 2, 4 and 10 of one type: their spread 3.74 divides out. Each one's mean distance from its
    three others: 16/3, 12/3, 12/3 and 24/3; the median 14/3."""
    real = RealDefects([Defect("a/x", f"{v}.png", "", torch.tensor([float(v)])) for v in (0, 2, 4, 10)])
    found = real.distance("a/x", torch.tensor([3.0]))
    assert found is not None
    assert found[0] == pytest.approx((1 + 1 + 3) / 3 / (14 / 3))
    assert found[1] == "2.png"
    assert real.distance("other/x", torch.tensor([3.0])) == found  # a dataset's name says nothing
    assert real.distance("a/y", torch.tensor([3.0])) is None


def test_a_part_s_other_images_do_not_make_the_unit() -> None:
    defects = [Defect("a/x", "0", "p", torch.tensor([0.0])), Defect("a/x", "1", "p", torch.tensor([0.1]))]
    defects += [Defect("a/x", "2", "q", torch.tensor([8.0]))]
    real = RealDefects(defects)
    assert real.units["a/x"] * float(real.scale) == pytest.approx(7.95, rel=0.01)  # of 8, 7.9 and the mean of both


def test_like_defects_are_nearer_than_unlike_ones() -> None:
    store, mask = FeatureStore(), disc(32, 32, 9)

    def shown(by: int, seed: int) -> torch.Tensor:
        image = np.clip(noisy(5, seed).astype(int) + by * mask[..., None].astype(int), 0, 255).astype(np.uint8)
        return describe(store, image, mask)

    dark, other_dark, bright = shown(-60, 0), shown(-60, 1), shown(70, 2)
    assert dark.shape == (1024,)
    assert (dark - other_dark).norm() < 0.5 * (dark - bright).norm()


@pytest.mark.parametrize("radius", [1, 9, 400])
def test_the_window_holds_the_defect_and_has_a_bounded_size(radius: int) -> None:
    side = 64 if radius < 20 else 1200
    image, mask = noisy(3, 0, side), disc(side // 2, side // 2, radius, side)
    shown, own = window(image, mask)
    assert shown.shape[:2] == own.shape
    assert min(own.shape) >= LEAST
    assert max(own.shape) <= MOST
    assert own.any()
    if radius < 20:
        assert own.sum() == mask.sum()


# agreement


def labelled(index: int, at: tuple[int, int], marked: tuple[int, int]) -> SegmentationSample:
    image = np.clip(noisy(6, index).astype(int) + 90 * disc(*at, 9)[..., None], 0, 255).astype(np.uint8)
    return SegmentationSample(image, disc(*marked, 9), "a/x", group=str(index))


def test_masks_that_lie_elsewhere_agree_with_nobody() -> None:
    at = [(16, 16), (40, 44), (20, 45), (46, 18), (32, 32), (14, 40), (44, 30), (30, 16), (22, 22), (45, 45)]
    pairs = [labelled(i, place, place) for i, place in enumerate(at)]
    wrong = [labelled(10, (16, 16), (46, 46)), labelled(11, (46, 46), (16, 16))]
    judge = QuickJudge(size=None, augment="none", pool=3000, steps=120, folds=2)
    found = agreement([*pairs, *wrong], pairs[:0], judge)
    right, elsewhere = found[:10], found[10:]
    assert np.median([f for f in right if f is not None]) > 0.3
    assert max(f for f in elsewhere if f is not None) < 0.1
    assert agreement(pairs[:1], [], judge) == [None]


def test_of_a_large_image_the_defect_s_surroundings_are_looked_at() -> None:
    image, mask = noisy(3, 0, 900), disc(700, 100, 5, 900)
    cut = in_window(SegmentationSample(image, mask, "a/x"))
    shown, labels = cut.read()
    assert shown.shape[:2] == labels.shape
    assert max(labels.shape) <= 270
    assert labels.sum() == mask.sum()
    small = SegmentationSample(image[:200, :200], mask[600:800, :200], "a/x")
    assert in_window(small) is small


# rank


def test_ranks_are_the_mean_over_the_scores_that_there_are() -> None:
    usual = {"seam": 2.0}
    scores = [
        {"visible": 5.0, "seam": 2.0, "texture": None, "distance": 1.0, "agreement": 0.5},
        {"visible": ENOUGH + 40, "seam": 4.0, "texture": None, "distance": None, "agreement": 0.5},
        {"visible": ENOUGH, "seam": 1.0, "texture": None, "distance": 3.0, "agreement": 0.8},
    ]
    good = [goodness(s, usual) for s in scores]
    assert [set(g) for g in good] == [{"visible", "seam", "distance", "agreement"}, {"visible", "seam", "agreement"},
                                      {"visible", "seam", "distance", "agreement"}]  # fmt: skip
    # visible 0, .75, .75; seam 1, .25, .25; distance 1, -, 0; agreement .25, .25, 1
    assert ranks(good) == pytest.approx([2.25 / 4, 1.25 / 3, 2 / 4])
    assert ranks([{}, {"visible": 3.0}]) == [None, 0.5]


def test_the_same_share_of_each_type_is_kept() -> None:
    kinds = ["a"] * 6 + ["b"] * 4
    rank = [0.1, 0.9, 0.8, 0.2, 0.5, 0.5, 0.3, 0.2, 0.1, 0.0]
    assert kept(rank, kinds, 5) == {1, 2, 4, 6, 7}  # half of each; of the equal ones the first
    assert kept(rank, kinds, 7) == {1, 2, 4, 5, 6, 7, 8}  # 4.2 and 2.8
    assert kept(rank, kinds, 10) == kept(rank, kinds, 99) == set(range(10))
    assert kept([None, 0.5, 0.6], ["a"] * 3, 1) == {0, 2}
