"""Samples as training sees them: the same bytes for the same seed, whatever was read before."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fast.data.images import write_image, write_mask
from fast.data.index import Sample
from fast.data.samples import Pictures, SampleImages, read_sample
from fast.data.transforms import Augment, Window
from fast.segmentation.data import Views, from_samples
from ldm.errors import UserError


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two defects and a normal whose every pixel tells where it lies: row, column and number of the image."""
    found = []
    for number, (height, width) in enumerate([(90, 120), (64, 64), (40, 70)]):
        rows, columns = np.mgrid[:height, :width]
        image = np.stack([rows, columns, np.full_like(rows, number)], -1).astype(np.uint8)
        write_image(tmp_path / f"{number}.png", image)
        mask = np.zeros((height, width), np.uint8)
        mask[height // 3 : height // 2, width // 4 : width // 3] = 1
        defect = number != 1
        if defect:
            write_mask(tmp_path / f"{number}_mask.png", mask)
        path = tmp_path / f"{number}_mask.png" if defect else None
        found.append(Sample(tmp_path / f"{number}.png", path, "c", "x" if defect else "good", str(number)))
    return found


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]


def test_views_by_seed_stay_what_they_were(samples: list[Sample]) -> None:
    """Checkpoints of a training that began before go on with the same windows; nothing is resized here, so that the
    bytes are those of any machine."""
    pictures = Pictures(samples, ["c/x"], 48, Augment(flips=True), native=True)
    of_training = [a for i in range(3) for seed in range(6) for a in pictures.view(i, seed)]
    views = Views(from_samples(samples), 48, native=True)
    of_segmenters = [a for i in range(3) for s in range(6) for a in views.draw(i, np.random.default_rng(s), "none")]
    assert digest(*of_training) == "2ed57355fa201b83"
    assert digest(*of_segmenters) == "53a2970c47000d2d"


def test_a_view_depends_on_its_seed_alone(samples: list[Sample]) -> None:
    one = Pictures(samples, ["c/x"], 32, Augment(flips=True, zoom=0.7), crop=16)
    other = Pictures(samples, ["c/x"], 32, Augment(flips=True, zoom=0.7), crop=16)
    for seed in range(9):
        one.view(0, seed + 100)
        for mine, theirs in zip(one.view(2, seed), other.view(2, seed), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_window_shows_where_it_lies_and_moves_the_mask_along(samples: list[Sample]) -> None:
    image, mask = read_sample(samples[0])
    for seed in range(20):
        window, own = Window(24)(image, mask, np.random.default_rng(seed))
        top, left = int(window[0, 0, 0]), int(window[0, 0, 1])
        np.testing.assert_array_equal(window, image[top : top + 24, left : left + 24])
        np.testing.assert_array_equal(own, mask[top : top + 24, left : left + 24])
        assert own.any()


def test_what_does_not_fit_into_memory_is_read_again(samples: list[Sample]) -> None:
    for memory in (0, 16 * 16 * 4, 1 << 20):
        images = SampleImages(samples, 16, memory)
        twice = [images.plain(i) for i in (0, 2, 0, 2)]
        np.testing.assert_array_equal(twice[0][0], twice[2][0])
        np.testing.assert_array_equal(twice[1][1], twice[3][1])
        assert [a is b for a, b in zip(twice[:2], twice[2:], strict=True)] == [memory >= 1024, memory > 2048]


def test_an_image_and_a_mask_that_do_not_fit(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="do not fit"):
        read_sample(Sample(samples[0].image, samples[2].mask, "c", "x", ""))
