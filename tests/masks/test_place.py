"""Masks come to lie on the object: every place is counted, each fitting one is as likely, nothing is left outside."""

import numpy as np
import pytest

from fast.masks.place import overlaps, placed, share_inside
from ldm.errors import UserError


def region() -> np.ndarray:
    """An L of two bars, 4 px wide, in a picture of 14 x 20."""
    out = np.zeros((14, 20), np.uint8)
    out[2:12, 3:7] = 1
    out[8:12, 3:18] = 1
    return out


def hook() -> np.ndarray:
    return np.array([[1, 0, 0], [1, 1, 1]], np.uint8)


def test_overlaps_are_those_of_a_count_by_hand() -> None:
    part, ground = hook(), region()
    counts = overlaps(part, ground)
    assert counts.shape == (13, 18)
    for top in range(13):
        for left in range(18):
            assert counts[top, left] == (part & ground[top : top + 2, left : left + 3]).sum()


def test_every_fitting_place_is_found_and_no_other() -> None:
    mask, ground = np.zeros((14, 20), np.uint8), region()
    mask[0:2, 17:20] = hook()
    fitting = {(int(top), int(left)) for top, left in np.argwhere(overlaps(hook(), ground) == 4)}
    assert 30 < len(fitting) < 60
    seen = set()
    for seed in range(600):
        out = placed(mask, ground, np.random.default_rng(seed))
        rows, columns = np.nonzero(out)
        top, left = int(rows.min()), int(columns.min())
        assert (out[top : top + 2, left : left + 3] == hook()).all()
        assert out.sum() == 4
        seen.add((top, left))
    assert seen == fitting


def test_a_share_may_stay_outside_and_is_cut_off() -> None:
    ground, mask = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    ground[5:15, 5:15] = 1
    mask[0:10, 0:10] = 1
    places = {placed(mask, ground, np.random.default_rng(s), inside=0.8).tobytes() for s in range(200)}
    # By up to two rows or two columns, or by one of each, it may stick out: |dy| + |dx| <= 2 keeps 80 % or more.
    assert len(places) == 13
    for seed in range(20):
        out = placed(mask, ground, np.random.default_rng(seed), inside=0.8)
        assert share_inside(out, ground) == 1
        assert out.sum() >= 80


def test_what_does_not_fit_is_made_smaller() -> None:
    ground, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    ground[10:30, 10:30] = 1
    mask[3:33, 5:35] = 1
    out = placed(mask, ground, np.random.default_rng(0))
    rows, columns = np.nonzero(out)
    assert np.ptp(rows) == np.ptp(columns) == 18  # 30 x 0.8 x 0.8 = 19.2 px is the first size that fits
    assert share_inside(out, ground) == 1


def test_a_region_that_nothing_fits_into_cuts_the_mask() -> None:
    ground, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    ground[17:19] = 1
    mask[:, 10:14] = 1  # at 0.3 of its size still 12 px long
    out = placed(mask, ground, np.random.default_rng(0))
    assert out.any()
    assert not (out & (1 - ground)).any()
    dot = np.zeros((40, 40), np.uint8)
    dot[39, 0] = 1
    frame = np.zeros((40, 40), np.uint8)
    frame[[0, -1]] = frame[:, [0, -1]] = 1
    for shape in (mask, frame):
        assert (placed(shape, dot, np.random.default_rng(0)) == dot).all()


def test_nothing_to_place_or_nowhere_to_place_it() -> None:
    full, empty = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(UserError, match="region of the object to place is empty"):
        placed(full, empty, np.random.default_rng(0))
    with pytest.raises(UserError, match="the mask to place is empty"):
        placed(empty, full, np.random.default_rng(0))
    assert share_inside(empty, full) == 0
