"""Windows around defects: whose pixels are whose, where the windows lie, what they cost, and cutting and pasting."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fast.windows.regions import Region, cut, paste, plan, share_of, view, whole

Box = tuple[int, int, int, int]  # top, left, bottom, right, the ends excluded
RULES = {"stride": 16, "margin": 12, "least": 48}


def random_mask(seed: int) -> np.ndarray:
    """Blobs, lines and specks in a picture whose sides are 64..300, most of them no multiple of any stride."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(64, 301, 2).tolist()
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 6)):
        (y, y2), (x, x2) = rng.integers(0, height, 2).tolist(), rng.integers(0, width, 2).tolist()
        if rng.random() < 0.7:
            cv2.circle(mask, (x, y), int(rng.integers(0, 12)), 1, -1)
        else:
            cv2.line(mask, (x, y), ((x + x2) // 2, (y + y2) // 2), 1)
    specks = int(rng.integers(1, 8))
    mask[rng.integers(0, height, specks), rng.integers(0, width, specks)] = 1
    return mask * int(rng.choice([1, 255]))


def with_boxes(shape: tuple[int, int], *boxes: Box) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def box_of(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def axis_window(first: int, last: int, length: int, stride: int, margin: int, least: int) -> tuple[int, int]:
    """Start and side of a window along one axis, by trying the starts one after another."""
    low, high = max(first - margin, 0), min(last + margin, length)
    side = stride
    while side < least or side < high - low:
        side += stride
    if side >= length:
        side = stride
        while side < length:
            side += stride
        return 0, side
    fitting = [s for s in range(length - side + 1) if s <= low and high <= s + side]
    return min(fitting, key=lambda s: (abs(2 * s + side - first - last), s)), side


def expected_window(box: Box, shape: tuple[int, ...], rules: dict[str, int]) -> Box:
    """Top, left, height, width."""
    top, height = axis_window(box[0], box[2], shape[0], **rules)
    left, width = axis_window(box[1], box[3], shape[1], **rules)
    return top, left, height, width


def expected_cost(box: Box, shape: tuple[int, ...], rules: dict[str, int]) -> int:
    _, _, height, width = expected_window(box, shape, rules)
    return height * width


def area(regions: list[Region]) -> int:
    return sum(r.height * r.width for r in regions)


def placed(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """The region's mask at its place in the picture; nothing of it may lie beyond."""
    height, width = min(region.height, shape[0] - region.top), min(region.width, shape[1] - region.left)
    assert region.mask[height:].sum() == region.mask[:, width:].sum() == 0
    full = np.zeros(shape, np.uint8)
    full[region.top : region.top + height, region.left : region.left + width] = region.mask[:height, :width]
    return full


def check(mask: np.ndarray, **rules: int) -> list[Region]:
    """Everything that holds for every plan."""
    before = mask.copy()
    regions = plan(mask, **rules)
    assert (mask == before).all()
    assert mask.dtype == before.dtype
    masks = [placed(r, mask.shape) for r in regions]
    assert (sum(masks) == (mask != 0)).all(), "a pixel is lost, invented or made twice"
    _, labels = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
    owned = [set(np.unique(labels[m == 1]).tolist()) for m in masks]
    assert all(owned)
    assert sum(len(o) for o in owned) == labels.max(), "a component is split"

    one = whole(mask, stride=rules["stride"])
    if len(regions) == 1 and (regions[0].height, regions[0].width) == (one.height, one.width):
        assert (regions[0].top, regions[0].left) == (0, 0)
        assert (regions[0].mask == one.mask).all()
    else:
        assert area(regions) < area([one])
        boxes = [box_of(m) for m in masks]
        for region, box in zip(regions, boxes, strict=True):
            assert (region.top, region.left, region.height, region.width) == expected_window(box, mask.shape, rules)
            assert region.mask.shape == (region.height, region.width)
            assert region.mask.dtype == np.uint8
        for a, b in itertools.combinations(boxes, 2):
            apart = expected_cost(a, mask.shape, rules) + expected_cost(b, mask.shape, rules)
            assert expected_cost(around(a, b), mask.shape, rules) > apart, "two windows should have been one"
    places = [(r.top, r.left) for r in regions]
    assert places == sorted(places)
    return regions


@pytest.mark.parametrize("seed", range(60))
def test_every_defect_pixel_belongs_to_one_window_that_lies_where_it_should(seed: int) -> None:
    mask = random_mask(seed)
    check(mask, **RULES)
    check(mask, stride=8, margin=0, least=1)
    check(mask, stride=64, margin=5, least=100)


def test_the_random_masks_lead_to_plans_of_many_kinds() -> None:
    counts = [len(plan(random_mask(seed), **RULES)) for seed in range(60)]
    assert min(counts) == 1
    assert max(counts) >= 5


def test_a_large_picture_with_rings_in_rings() -> None:
    """Components inside another's bounding box, and inside its window, are still their own."""
    mask = np.zeros((3000, 2000), bool)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(100, 2900, 12).tolist(), rng.integers(100, 1900, 12).tolist(), strict=True):
        mask |= cv2.circle(np.zeros(mask.shape, np.uint8), (x, y), 40, 1, 1).astype(bool)
        mask[y - 1 : y + 2, x] = True
    regions = check(mask, stride=64, margin=32, least=128)
    assert len(regions) > 3


def test_what_another_window_makes_is_zero_in_this_one() -> None:
    """The bar's end lies in the window around the speck, but one window for both would cost more."""
    mask = with_boxes((400, 400), (100, 10, 104, 300), (160, 320, 161, 321))
    first, second = check(mask, stride=16, margin=60, least=16)
    seen = cut(mask, second)
    assert (first.mask.sum(), second.mask.sum()) == (4 * 290, 1)
    assert seen.sum() > 1
    assert seen[second.mask == 1].sum() == 1


@pytest.mark.parametrize("vertical", ["top", "middle", "bottom"])
@pytest.mark.parametrize("horizontal", ["left", "middle", "right"])
def test_windows_shift_into_the_picture_and_keep_their_margin(vertical: str, horizontal: str) -> None:
    height, width = 213, 187
    row = {"top": 0, "middle": 101, "bottom": height - 5}[vertical]
    column = {"left": 0, "middle": 90, "right": width - 7}[horizontal]
    mask = with_boxes((height, width), (row, column, row + 5, column + 7))
    (region,) = check(mask, **RULES)
    assert (region.height, region.width) == (48, 48)
    assert 0 <= region.top <= height - 48
    assert 0 <= region.left <= width - 48
    assert region.top <= max(row - 12, 0)
    assert region.left <= max(column - 12, 0)
    assert region.top + 48 >= min(row + 5 + 12, height)
    assert region.left + 48 >= min(column + 7 + 12, width)
    if vertical == "middle":
        assert region.top == (2 * row + 5 - 48) // 2
    if horizontal == "middle":
        assert region.left == (2 * column + 7 - 48) // 2


@pytest.mark.parametrize(
    ("extent", "margin", "least", "side"),
    [(1, 0, 1, 16), (16, 0, 1, 16), (17, 0, 1, 32), (16, 8, 1, 32), (17, 8, 1, 48), (1, 0, 33, 48), (40, 12, 48, 64)],
)
def test_the_smallest_multiple_of_the_stride_that_holds_defect_and_margin(
    extent: int, margin: int, least: int, side: int
) -> None:
    mask = with_boxes((200, 210), (90, 71, 90 + extent, 71 + extent))
    (region,) = check(mask, stride=16, margin=margin, least=least)
    assert (region.height, region.width) == (side, side)


def test_one_pixel() -> None:
    mask = with_boxes((500, 700), (123, 321, 124, 322))
    (region,) = check(mask, **RULES)
    assert (region.top, region.left, region.height, region.width) == (123 - 24, 321 - 24, 48, 48)
    assert np.argwhere(region.mask).tolist() == [[24, 24]]


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (64, 65), (65, 300), (300, 40), (1, 1), (1, 500), (7, 9)])
def test_a_mask_of_the_whole_picture_is_the_whole(shape: tuple[int, int]) -> None:
    (region,) = check(np.ones(shape, np.uint8), stride=64, margin=10, least=64)
    assert (region.height, region.width) == (-(-shape[0] // 64) * 64, -(-shape[1] // 64) * 64)
    assert region.mask[: shape[0], : shape[1]].all()
    assert region.mask.sum() == shape[0] * shape[1]


@pytest.mark.parametrize("side", [1, 30, 64, 65, 99])
def test_a_picture_smaller_than_the_least_window_is_taken_whole(side: int) -> None:
    (region,) = check(
        with_boxes((side, side), (side // 2, side // 3, side // 2 + 1, side // 3 + 1)), **RULES | {"least": 100}
    )
    assert (region.top, region.left) == (0, 0)
    assert region.height == region.width == -(-side // 16) * 16


def test_a_narrow_picture_has_windows_as_narrow() -> None:
    for shape, size in (((40, 500), (48, 112)), ((500, 40), (112, 48))):
        (region,) = check(with_boxes(shape, (20, 20, 22, 22)), **RULES | {"least": 100})
        assert (region.height, region.width) == size


def test_a_side_of_one_pixel_more_than_a_window() -> None:
    """64 is the whole side; of 65 a window of 64 is enough, and it shifts to where the defect is."""
    rules = {"stride": 64, "margin": 4, "least": 64}
    (region,) = check(with_boxes((64, 400), (60, 200, 63, 203)), **rules)
    assert (region.top, region.height, region.width) == (0, 64, 64)
    (region,) = check(with_boxes((65, 400), (60, 200, 63, 203)), **rules)
    assert (region.top, region.height, region.width) == (1, 64, 64)
    (region,) = check(with_boxes((65, 400), (0, 200, 65, 203)), **rules)
    assert (region.top, region.height, region.width) == (0, 128, 64)


def test_far_defects_have_a_window_each_and_near_ones_share_one() -> None:
    far = with_boxes((400, 400), (40, 40, 44, 44), (300, 320, 304, 324))
    assert [r.mask.sum() for r in check(far, **RULES)] == [16, 16]
    near = with_boxes((400, 400), (40, 40, 44, 44), (40, 60, 44, 64))
    assert [r.mask.sum() for r in check(near, **RULES)] == [32]
    # The joint window is exactly two windows long: no dearer, and one is better than two. A pixel more, and it is.
    equal = with_boxes((400, 400), (100, 40, 104, 44), (100, 108, 104, 112))
    assert [(r.height, r.width) for r in check(equal, **RULES)] == [(48, 96)]
    dearer = with_boxes((400, 400), (100, 40, 104, 44), (100, 109, 104, 113))
    assert [(r.height, r.width) for r in check(dearer, **RULES)] == [(48, 48), (48, 48)]


def test_specks_that_are_neighbours_but_too_far_apart_for_one_window() -> None:
    """96 x 96 each, 144 x 144 together."""
    mask = with_boxes((400, 400), (128, 128, 129, 129), (191, 191, 192, 192))
    assert len(check(mask, stride=16, margin=40, least=16)) == 2


def test_two_long_lines_side_by_side_share_a_window_and_crossing_them_does_not() -> None:
    parallel = with_boxes((600, 600), (20, 50, 580, 52), (20, 80, 580, 82))
    assert len(check(parallel, **RULES)) == 1
    corner = with_boxes((600, 600), (20, 50, 580, 52), (20, 90, 22, 580))
    assert len(check(corner, **RULES)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_merging_never_raises_the_cost(seed: int) -> None:
    """Blobs farther apart than what counts as one component, against a window for each of them."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((300, 280), np.uint8)
    for y, x in itertools.product(range(0, 300, 28), range(0, 280, 28)):
        if rng.random() < rng.choice([0.05, 0.3]):
            mask[y + 2 : y + 2 + rng.integers(1, 10), x + 2 : x + 2 + rng.integers(1, 10)] = 1
    mask[3, 3] = 1
    for rules in (RULES, {"stride": 8, "margin": 2, "least": 8}, {"stride": 32, "margin": 20, "least": 32}):
        count, labels = cv2.connectedComponents(mask, connectivity=8)
        apart = sum(expected_cost(box_of(labels == k), mask.shape, rules) for k in range(1, count))
        assert area(check(mask, **rules)) <= min(apart, area([whole(mask, stride=rules["stride"])]))


@pytest.mark.parametrize(("side", "specks"), [(4000, 20_000), (4000, 300)])
def test_salt_costs_no_more_than_the_picture(side: int, specks: int) -> None:
    rng = np.random.default_rng(2)
    mask = np.zeros((side, side), np.uint8)
    mask[rng.integers(0, side, specks), rng.integers(0, side, specks)] = 255
    regions = plan(mask, stride=64, margin=32, least=128)
    total = np.zeros(mask.shape, np.uint8)
    for r in regions:
        total[r.top : r.top + r.height, r.left : r.left + r.width] += r.mask[: side - r.top, : side - r.left]
    assert (total == (mask != 0)).all()
    assert area(regions) <= area([whole(mask, stride=64)])
    if specks < 1000:
        assert 50 < len(regions) < specks


def test_an_empty_mask_is_refused() -> None:
    for mask in (np.zeros((70, 90), np.uint8), np.zeros((70, 90), bool), np.zeros((0, 5), np.uint8)):
        with pytest.raises(ValueError, match="no defect"):
            plan(mask, **RULES)
        with pytest.raises(ValueError, match="no defect"):
            whole(mask, stride=16)


def test_a_plan_depends_on_nothing_but_the_defect_pixels() -> None:
    mask = random_mask(7) != 0
    transposed = np.ascontiguousarray(mask.T).T  # the same pixels, columns first in memory
    wide = np.repeat(mask, 2, axis=1)[:, ::2]
    wanted = plan(mask, **RULES)
    assert len(wanted) > 1
    for same in (mask, mask.astype(np.uint8) * 255, mask.astype(np.int32) * -3, transposed, wide):
        found = plan(same, **RULES)
        for a, b in zip(found, wanted, strict=True):
            assert (a.top, a.left, a.height, a.width) == (b.top, b.left, b.height, b.width)
            assert (a.mask == b.mask).all()


def test_whole_is_a_copy_of_the_mask() -> None:
    mask = np.ones((64, 128), np.uint8)
    region = whole(mask, stride=64)
    region.mask[:] = 0
    assert mask.all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1, 3), (1, 40), (40, 1, 3), (33, 20, 1)])
def test_a_cut_is_mirrored_beyond_the_picture(shape: tuple[int, ...]) -> None:
    """Against the mirror's rule, pixel by pixel: 0 1 2 | 2 1 0 | 0 1 2 ..."""
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    region = whole(np.ones(shape[:2], np.uint8), stride=16)
    found = cut(image, region)
    assert found.shape == (region.height, region.width, *shape[2:])
    for y, x in np.ndindex(found.shape[:2]):
        row, column = (min(i % (2 * n), 2 * n - 1 - i % (2 * n)) for i, n in zip((y, x), shape, strict=False))
        assert (found[y, x] == image[row, column]).all()


def test_a_cut_inside_the_picture_is_a_copy_of_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    region = Region(13, 21, 32, 48, np.zeros((32, 48), np.uint8))
    found = cut(image, region)
    assert (found == image[13:45, 21:69]).all()
    found[:] = 0
    assert image[13:45, 21:69].any()


@pytest.mark.parametrize("seed", range(10))
def test_pasting_all_windows_changes_the_defect_and_nothing_else(seed: int) -> None:
    mask = random_mask(seed)
    rng = np.random.default_rng(seed)
    picture, made = (rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8) for _ in range(2))
    for stride in (16, 64):
        canvas, grey = picture.copy(), picture[..., 0].copy()
        for region in plan(mask, stride=stride, margin=12, least=48):
            paste(canvas, cut(made, region), region)
            paste(grey, cut(made[..., 0], region), region)
        assert (canvas[mask == 0] == picture[mask == 0]).all()
        assert (canvas[mask != 0] == made[mask != 0]).all()
        assert (grey == canvas[..., 0]).all()


@pytest.mark.parametrize("seed", range(10))
def test_where_whole_windows_overlap_a_pixel_is_that_of_the_nearer_defect(seed: int) -> None:
    mask = random_mask(seed)
    regions = plan(mask, **RULES)
    nearest = np.full(mask.shape, np.inf)
    owner = np.full(mask.shape, -1)
    for number, region in enumerate(regions):
        y, x = (axis.ravel() for axis in np.indices((region.height, region.width)))
        rows, columns = np.nonzero(region.mask)
        far = np.hypot(y[:, None] - rows, x[:, None] - columns).min(1).reshape(region.mask.shape)
        window = np.s_[region.top : region.top + region.height, region.left : region.left + region.width]
        far = far[: mask.shape[0] - region.top, : mask.shape[1] - region.left]
        closer = far < nearest[window] - 1e-4
        nearest[window][closer], owner[window][closer] = far[closer], number
    for order in (range(len(regions)), reversed(range(len(regions)))):
        canvas = np.full(mask.shape, -1)
        for number in order:
            region = replace(regions[number], mask=share_of(regions, number))
            paste(canvas, np.full(region.mask.shape, number), region)
        assert (canvas == owner).all()


def test_the_overlaps_of_the_random_masks_are_many() -> None:
    plans = [plan(random_mask(seed), **RULES) for seed in range(10)]
    assert sum(not share_of(regions, k).all() for regions in plans for k in range(len(regions))) >= 5


def test_the_view_is_the_bounding_box_of_the_windows_inside_the_picture() -> None:
    empty = np.zeros((1, 1), np.uint8)
    regions = [Region(30, 50, 64, 64, empty), Region(10, 90, 64, 128, empty)]
    assert view(regions, (300, 400, 3)) == (slice(10, 94), slice(50, 218))
    assert view(regions[:1], (300, 400)) == (slice(30, 94), slice(50, 114))
    mask = np.ones((65, 70), np.uint8)
    assert view([whole(mask, stride=64)], mask.shape) == (slice(0, 65), slice(0, 70))
