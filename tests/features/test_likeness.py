"""Made defects beside real ones: alike, unlike, and where nothing can be said."""

from pathlib import Path

import numpy as np
import pytest

from fast.data.images import write_image
from fast.data.index import Sample
from fast.features.likeness import LOOKED_AT, MOVED, Likeness
from fast.features.nearest import Defect, RealDefects, describe
from fast.features.store import FeatureStore
from fast.segmentation.data import SegmentationSample
from ldm.errors import UserError

SIDE = 96


def marked(seed: int, bright: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A grey surface with a dark round spot somewhere, or a bright thin line, and its mask."""
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.normal(130, 4, (SIDE, SIDE, 1)), 3, axis=2)
    row, column = rng.integers(30, SIDE - 30, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.hypot(y - row, x - column) <= rng.uniform(6, 9)
    if bright:
        mask = (abs(y - row) <= 1) & (abs(x - column) <= 25)
    image[mask] += 90 if bright else -70
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask.astype(np.uint8)


def written(folder: Path, count: int, group: str = "") -> list[Sample]:
    samples = []
    for number in range(count):
        image, mask = marked(number)
        files = folder / f"{number}.png", folder / f"{number}_mask.png"
        write_image(files[0], image)
        write_image(files[1], mask * 255)
        samples.append(Sample(*files, "plate", "spot", group or str(number)))
    return samples


class Mover:
    """Sets the spot of one of the samples, and nothing of it but its grey level, somewhere into any picture."""

    def __init__(self, samples: list[Sample]):
        self.samples, self.pictures = samples, 0

    def __call__(self, image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Path]:
        assert kind == "plate/spot"
        self.pictures += 1
        return *marked(int(rng.integers(100, 10_000))), self.samples[int(rng.integers(len(self.samples)))].image


def test_another_spot_is_near_and_a_line_is_far(tmp_path: Path) -> None:
    samples = written(tmp_path, 6)
    mover = Mover(samples)
    likeness = Likeness(samples, mover)
    assert mover.pictures == 0  # before anybody asks nothing is read
    spots = [likeness.distance("plate/spot", *marked(seed)) for seed in range(20, 40)]
    lines = [likeness.distance("plate/spot", *marked(seed, bright=True)) for seed in range(20, 26)]
    assert mover.pictures == MOVED
    assert float(np.median([d for d in spots if d is not None])) == pytest.approx(
        1, abs=0.25
    )  # moved as the unit's are
    assert min(d for d in lines if d is not None) > 1.5 * max(d for d in spots if d is not None)
    assert likeness.distance("plate/line", *marked(20)) is None


def test_the_unit_leaves_the_moved_one_s_own_part_out(tmp_path: Path) -> None:
    """Every moved defect comes from one part and is made very much like it: that tells nothing of other parts."""
    samples, store = written(tmp_path, 4), FeatureStore()
    read = [SegmentationSample(s.image, s.mask).read() for s in samples]
    described = [describe(store, *one) for one in read]
    real = RealDefects(
        [Defect("plate/spot", s.image.name, s.group, d) for s, d in zip(samples, described, strict=True)]
    )
    far = real.distance("plate/spot", described[2], without="2")
    asked = real.distance("plate/spot", describe(store, *marked(30)))
    assert far is not None
    assert asked is not None
    likeness = Likeness(samples, lambda image, kind, rng: (*read[2], samples[2].image))
    assert likeness.distance("plate/spot", *marked(30)) == pytest.approx(asked[0] / far[0], rel=1e-6)


def test_nothing_is_said_where_real_ones_tell_no_distance(tmp_path: Path) -> None:
    def nowhere(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Path]:
        raise UserError("no place")

    for real in ([], written(tmp_path, 1), written(tmp_path, 3, group="one part")):
        assert Likeness(real, Mover(real)).distance("plate/spot", *marked(20)) is None
    assert Likeness(written(tmp_path, 3), nowhere).distance("plate/spot", *marked(20)) is None


def test_of_many_real_ones_some_from_everywhere_are_looked_at(tmp_path: Path) -> None:
    (one,) = written(tmp_path, 1)
    many = [Sample(tmp_path / f"{n}.png", one.mask, "plate", "spot", str(n)) for n in range(3 * LOOKED_AT)]
    assert Likeness(many, Mover(many)).real["plate/spot"] == many[::3]
