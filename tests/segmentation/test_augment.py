"""Classical augmentation: image and mask move together, hairlines stay, nothing is lost out of sight."""

from dataclasses import replace

import numpy as np
import pytest

from fast.data.transforms import AUGMENT, AUGMENTATIONS, Classical
from fast.segmentation.data import Views, from_arrays
from ldm.errors import UserError

STILL = Classical(angle=0, right_angles=False, scale=(1, 1), shift=0, contrast=0, brightness=0)


def marked(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A dark image, bright exactly where its mask is."""
    image, mask = np.full((side, side, 3), 40, np.uint8), np.zeros((side, side), np.uint8)
    mask[20:34, 10:40] = 1
    image[mask > 0] = 200
    return image, mask


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_mask_moves_with_the_image(name: str) -> None:
    view = replace(AUGMENTATIONS[name], contrast=0, brightness=0)
    seen = []
    for seed in range(12):
        image, mask = view(*marked(), np.random.default_rng(seed))
        bright = image[..., 0] > 120
        assert image.shape == (64, 64, 3)
        assert set(np.unique(mask)) <= {0, 1}
        union = (bright | (mask > 0)).sum()
        assert (bright & (mask > 0)).sum() / union > 0.85
        seen.append(mask.tobytes())
    assert len(set(seen)) == 12


def test_without_any_change_it_is_the_same() -> None:
    image, mask = STILL(*marked(), np.random.default_rng(0))
    np.testing.assert_array_equal(image, marked()[0])
    np.testing.assert_array_equal(mask, marked()[1])


def test_a_known_shift() -> None:
    class Half:
        def uniform(self, low: float, high: float, size: int | None = None) -> object:
            return np.full(size, high) if size else 0.0

    moved = replace(STILL, shift=0.125)._warped(*marked(), Half())  # type: ignore[arg-type]
    np.testing.assert_array_equal(moved[1][28:42, 18:48], 1)
    assert moved[1].sum() == marked()[1].sum()


def test_a_line_of_one_pixel_stays_whole() -> None:
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    mask[32, 12:52] = 1
    for seed in range(20):
        _, turned = replace(STILL, angle=180)(image, mask, np.random.default_rng(seed))
        assert turned.sum() >= 38


def test_a_defect_shifted_out_of_sight_stays() -> None:
    image, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.uint8)
    mask[0, 0] = 1
    view = replace(STILL, shift=0.5)
    assert all(view(image, mask, np.random.default_rng(seed))[1].any() for seed in range(20))


def test_views_know_every_name_and_no_other() -> None:
    views = Views(from_arrays(*([m] for m in marked())), 48)
    for name in AUGMENT:
        image, mask = views.draw(0, np.random.default_rng(1), name)
        assert image.shape == (48, 48, 3)
        assert mask.any()
    with pytest.raises(UserError, match="augment=all is unknown"):
        views.draw(0, np.random.default_rng(1), "all")
