"""Defects that lie over edges: areas of another finish that run out of the picture, and what is broken off a part."""

import cv2
import numpy as np
import pytest

from fast.generators import create
from fast.generators.windows import gone, hanging_over, rim
from ldm.errors import UserError


def streaked(height: int = 200, width: int = 240) -> np.ndarray:
    """A ground surface: bright and dark lines down the picture under a soft light."""
    rng = np.random.default_rng(3)
    lines = cv2.GaussianBlur(rng.normal(0, 22, (1, width)), (0, 0), 1.2).repeat(height, 0)
    level = 120 + np.linspace(-15, 15, height)[:, None] + lines + rng.normal(0, 1, (height, width))
    return np.repeat(np.clip(level, 0, 255).astype(np.uint8)[..., None], 3, 2)


def disc() -> tuple[np.ndarray, np.ndarray]:
    """A bright part on dark ground, and where it is."""
    region = np.zeros((240, 240), np.uint8)
    cv2.circle(region, (120, 120), 90, 1, -1)
    noise = np.random.default_rng(1).normal(0, 1.5, (240, 240))
    return np.clip(np.where(region, 180, 25)[..., None] + noise[..., None], 0, 255).repeat(3, 2).astype(
        np.uint8
    ), region


def grain(image: np.ndarray) -> np.ndarray:
    level = image[..., 0].astype(np.float32)
    return np.abs(cv2.GaussianBlur(level, (0, 0), 1) - cv2.GaussianBlur(level, (0, 0), 6))


def test_uneven_areas_are_the_surface_itself_with_more_or_less_of_its_texture() -> None:
    image, method = streaked(), create("procedural", on_object="off")
    before, ratios, at_border = grain(image), [], 0
    for seed in range(24):
        made, mask = method.synthesize(image, None, np.random.default_rng(seed), "uneven")
        assert np.array_equal(made[mask == 0], image[mask == 0])
        inner = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
        if inner.sum() > 200:
            ratios.append(grain(made)[inner].mean() / before[inner].mean())
        at_border += bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        # Its lines go on where they were: the area is no patch of something else.
        rows = made[..., 0][inner].astype(float), image[..., 0][inner].astype(float)
        assert inner.sum() < 200 or np.corrcoef(*rows)[0, 1] > 0.1
    assert min(ratios) < 0.6
    assert max(ratios) > 1.5
    assert 4 <= at_border <= 20


def test_an_uneven_area_is_one_whole_area_and_large() -> None:
    shares = []
    for seed in range(12):
        _, mask = create("procedural", on_object="off").synthesize(
            streaked(), None, np.random.default_rng(seed), "uneven"
        )
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        largest = int(stats[1:, cv2.CC_STAT_AREA].max())
        assert count >= 2
        assert largest > 0.8 * mask.sum()
        shares.append(mask.mean())
    assert np.median(shares) > 0.05
    assert max(shares) < 0.8


def test_what_is_broken_off_lies_at_the_edge_and_shows_the_ground_behind_half_of_the_time() -> None:
    image, region = disc()
    far = cv2.distanceTransform(region, cv2.DIST_L2, 5)
    method, behind = create("procedural"), 0
    for seed in range(24):
        made, mask = method.synthesize(image, None, np.random.default_rng(seed), "break", region)
        assert np.array_equal(made[mask == 0], image[mask == 0])
        assert not (mask & (1 - region)).any()
        assert far[mask > 0].min() < 4
        behind += bool(np.percentile(made[mask > 0], 25) < 45)
    assert 4 <= behind <= 20


@pytest.mark.parametrize(("word", "change", "sign"), [("break", "darker", -1), ("break", "brighter", 1),
                                                      ("uneven", "darker", -1), ("uneven", "brighter", 1)])  # fmt: skip
def test_what_lies_over_an_edge_changes_as_it_is_asked_to(word: str, change: str, sign: int) -> None:
    image, region = disc()
    image = np.where(region[..., None] > 0, image // 2, 255 - image * (sign < 0)).astype(np.uint8)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        made, mask = create("procedural", change=change).synthesize(image, None, rng, word, region)
        assert mask.any()
        assert (sign * (made.astype(int) - image) >= 0).all()


def test_a_part_without_ground_beside_it_breaks_at_the_pictures_edge() -> None:
    image = streaked()
    for seed in range(8):
        made, mask = create("procedural", on_object="off").synthesize(image, None, np.random.default_rng(seed), "break")
        y, x = np.nonzero(mask)
        assert min(y.min(), x.min(), 199 - y.max(), 239 - x.max()) <= 6
        assert not np.array_equal(made, image)


@pytest.mark.parametrize("spot", [(0, 0), (4, 30), (19, 39), (10, 20)])
def test_a_window_over_the_edge_is_mirrored_and_gives_its_part_of_the_picture_back(spot: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 40, 3), np.uint8)
    window, inner, place = hanging_over(image, spot, 16)
    padded = np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="symmetric")
    assert np.array_equal(window, padded[spot[0] + 8 : spot[0] + 24, spot[1] + 8 : spot[1] + 24])
    assert np.array_equal(window[inner], image[place])


def test_the_rim_is_the_outermost_ring_and_the_picture_ends_the_object() -> None:
    region = np.zeros((7, 9), np.uint8)
    region[2:6, 3:] = 1
    ring = region.copy()
    ring[3:5, 4:8] = 0
    assert np.array_equal(rim(region), ring)


def test_nothing_is_gone_where_nothing_lies_behind() -> None:
    image, region = disc()
    mask = np.zeros_like(region)
    mask[118:124, 118:124] = 1
    window = np.s_[100:140, 100:140]
    rng = np.random.default_rng(0)
    after = image[window].copy()
    assert gone(image[window], after, mask[window], region[window], 1.0, rng) is after
    whole = gone(image, image, mask, region, 1.0, rng)
    assert abs(float(np.median(whole[120:122, 120:122])) - 25) < 3


def test_a_given_outline_is_filled_with_another_finish() -> None:
    image, mask = streaked(), np.zeros((200, 240), np.uint8)
    cv2.ellipse(mask, (120, 100), (70, 40), 20, 0, 360, 1, -1)
    made, found = create("procedural").synthesize(image, mask, np.random.default_rng(5), "uneven")
    assert not (found & (1 - mask)).any()
    assert found.sum() > 0.7 * mask.sum()
    assert np.array_equal(made[mask == 0], image[mask == 0])


def test_an_object_too_small_for_an_area_is_told() -> None:
    image, region = disc()
    dot = np.zeros_like(region)
    dot[120, 120] = 1
    with pytest.raises(UserError, match="no uneven shows on the object"):
        create("procedural").synthesize(image, None, np.random.default_rng(0), "uneven", dot)
