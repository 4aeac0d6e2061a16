"""Defects that lie over edges: areas of another finish that run out of the picture, and what is broken off a part."""

import cv2
import numpy as np
import pytest

from fast.generators import create
from fast.generators.windows import rim, window_at
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
        assert not (mask & (1 - cv2.dilate(region, np.ones((9, 9), np.uint8)))).any()
        assert far[mask > 0].min() < 4
        behind += bool(np.median(made[(mask > 0) & (far > 2)]) < 45)
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
def test_a_window_lies_about_its_pixel_and_within_the_picture(spot: tuple[int, int]) -> None:
    image = np.arange(20 * 40).reshape(20, 40)
    place = window_at(image.shape, spot[0] * 40 + spot[1], 16)
    window = image[place]
    assert window.shape == (16, 16)
    y, x = spot[0] - place[0].start, spot[1] - place[1].start
    assert window[y, x] == image[spot]
    for at, low, high, full in ((y, place[0].start, place[0].stop, 20), (x, place[1].start, place[1].stop, 40)):
        assert at == 8 or low == 0 or high == full
    assert image[window_at(image.shape, 0, 64)].shape == (20, 40)


def test_the_rim_is_the_outermost_ring_and_the_picture_ends_the_object() -> None:
    region = np.zeros((7, 9), np.uint8)
    region[2:6, 3:] = 1
    ring = region.copy()
    ring[3:5, 4:8] = 0
    assert np.array_equal(rim(region), ring)


def rimmed() -> tuple[np.ndarray, np.ndarray]:
    """A grey part on dark ground whose outline shines, as chamfers do, and where it is."""
    _, region = disc()
    far = np.hypot(*(np.mgrid[:240, :240] - 120))
    level = np.where(far < 87, 120, np.where(far < 92, 240, 25)) + np.random.default_rng(1).normal(0, 1.5, far.shape)
    return cv2.GaussianBlur(level, (0, 0), 0.8)[..., None].repeat(3, 2).clip(0, 255).astype(np.uint8), region


def test_a_break_takes_the_old_outline_with_it() -> None:
    image, region = rimmed()
    y, x = np.mgrid[:240, :240] - 120
    turn, far, broken = np.degrees(np.arctan2(y, x)) % 360, np.hypot(x, y), 0
    for seed in range(16):
        made, mask = create("procedural").synthesize(image, None, np.random.default_rng(seed), "break", region)
        assert np.array_equal(made[mask == 0], image[mask == 0])
        assert mask.sum() >= 24
        hit = np.zeros(360, np.uint8)
        hit[turn[(mask > 0) & (np.abs(far - 85.5) < 1)].astype(int)] = 1
        # Where the outline is broken off across all of its width, nothing shines from there out to the ground.
        middle = cv2.erode(np.tile(hit, 3)[None], np.ones((1, 7), np.uint8))[0, 360:720]
        across = (middle[turn.astype(int)] > 0) & (far > 86.5) & (far < 97)
        broken += int(middle.sum() > 0)
        assert not across.any() or made[across].max() < 180, seed
    assert broken > 8


def test_a_break_is_not_cut_at_its_window() -> None:
    image, region = disc()
    for seed in range(24):
        _, mask = create("procedural").synthesize(image, None, np.random.default_rng(seed), "break", region)
        y, x = np.nonzero(mask)
        high, wide = y.max() - y.min() + 1, x.max() - x.min() + 1
        rows, columns = mask[[y.min(), y.max()]].sum(1), mask[:, [x.min(), x.max()]].sum(0)
        assert rows.max() <= max(6, 0.6 * wide), seed
        assert columns.max() <= max(6, 0.6 * high), seed


def test_on_a_small_part_a_break_is_no_block_of_white() -> None:
    image, region = disc()
    image, region = (cv2.resize(v, (100, 100), interpolation=cv2.INTER_AREA) for v in (image, region))
    for seed in range(16):
        made, mask = create("procedural").synthesize(image, None, np.random.default_rng(seed), "break", region)
        assert mask.sum() >= 24
        assert np.percentile(made[mask > 0], 95) < 190


def test_an_uneven_area_fades_out_towards_its_border_and_has_no_gaps() -> None:
    image, shares = streaked(), []
    for seed in range(16):
        made, mask = create("procedural", on_object="off").synthesize(
            image, None, np.random.default_rng(seed), "uneven"
        )
        change = np.abs(made.astype(float) - image).mean(2)
        # The last px of the mask, but for those where the picture ends.
        inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=1)
        border = change[(mask > 0) & (inner == 0)]
        shares.append(border.mean() / np.percentile(cv2.blur(change, (9, 9))[mask > 0], 90))
        _, _, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
        assert stats[1:, cv2.CC_STAT_AREA].min() > 0.05 * mask.sum()
    assert max(shares) < 0.4
    assert np.median(shares) < 0.25


def test_an_uneven_area_keeps_to_one_material() -> None:
    image = streaked().astype(int)
    image[:, 120:] = 255 - image[:, 120:] // 2
    image = cv2.GaussianBlur(image.astype(np.uint8), (0, 0), 0.8)
    for seed in range(12):
        _, mask = create("procedural", on_object="off").synthesize(image, None, np.random.default_rng(seed), "uneven")
        left, right = mask[:, :116].sum(), mask[:, 124:].sum()
        assert min(left, right) < 0.05 * max(left, right), seed


def test_on_nearly_black_ground_the_texture_stays_within_bounds() -> None:
    rng = np.random.default_rng(5)
    level = 14 + cv2.GaussianBlur(rng.normal(0, 12, (200, 240)), (0, 0), 2)
    image = np.clip(level, 0, 255)[..., None].repeat(3, 2).astype(np.uint8)
    before = grain(image)
    for seed in range(12):
        made, mask = create("procedural", on_object="off").synthesize(
            image, None, np.random.default_rng(seed), "uneven"
        )
        inner = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
        assert grain(made)[inner].mean() < 2.6 * before[inner].mean()
        assert np.abs(made.astype(int) - image).mean(2)[mask > 0].mean() >= 3


def test_a_crack_in_a_given_mask_runs_from_end_to_end_and_branches() -> None:
    image, mask, forks, widths = streaked(), np.zeros((200, 240), np.uint8), 0, []
    cv2.ellipse(mask, (120, 100), (90, 30), 0, 0, 360, 1, -1)
    for seed in range(8):
        made, found = create("procedural").synthesize(image, mask, np.random.default_rng(seed), "crack")
        assert np.array_equal(made[found == 0], image[found == 0])
        assert not (found & (1 - mask)).any()
        x = np.nonzero(found)[1]
        assert x.max() - x.min() > 120
        assert found.sum() < 0.4 * mask.sum()
        columns = np.diff(np.pad(found, ((1, 1), (0, 0))).astype(int), axis=0)
        forks += bool(((columns == 1).sum(0) > 1).sum() > 6)
        thick = cv2.distanceTransform(found, cv2.DIST_L2, 5).max(0)[x.min() : x.max()]
        widths.append(thick.std() / thick.mean())
    assert forks >= 5
    assert np.median(widths) > 0.2


def test_pitting_in_a_given_mask_is_rough_and_reaches_its_outline_here_and_there() -> None:
    image, mask = np.full((200, 240, 3), 140, np.uint8), np.zeros((200, 240), np.uint8)
    cv2.ellipse(mask, (120, 100), (70, 40), 20, 0, 360, 1, -1)
    ring = mask - cv2.erode(mask, np.ones((3, 3), np.uint8))
    for seed in range(8):
        made, found = create("procedural").synthesize(image, mask, np.random.default_rng(seed), "spall")
        assert 0.5 * mask.sum() < found.sum() < 0.99 * mask.sum()
        assert 0.02 < found[ring > 0].mean() < 0.9
        inner = cv2.erode(found, np.ones((7, 7), np.uint8)) > 0
        assert made[..., 0][inner].std() > 8


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
