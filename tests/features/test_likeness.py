"""Made defects beside real ones: alike, unlike, and where nothing can be said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fast.data.images import read_image, write_image
from fast.data.index import Sample
from fast.features.efficientnet import WEIGHTS
from fast.features.likeness import LOOKED_AT, MOVED, TRIES, Likeness
from fast.features.nearest import Defect, RealDefects, describe
from fast.features.store import FeatureStore
from fast.segmentation.data import SegmentationSample
from ldm.errors import UserError
from ldm.hashing import file_hash

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


def written(folder: Path, count: int, group: str = "", first: int = 0) -> list[Sample]:
    samples = []
    for number in range(first, first + count):
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
    assert MOVED <= mover.pictures < TRIES
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


def test_moved_ones_stand_on_other_parts(tmp_path: Path) -> None:
    """A defect on its own ground would be nearer to what it is."""
    samples = [*written(tmp_path / "a", 2, group="a"), *written(tmp_path / "b", 2, group="b", first=2)]
    asked: list[tuple[bytes, Path]] = []

    def move(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Path]:
        source = samples[int(rng.integers(4))]
        same = any((image == read_image(s.image)).all() for s in samples if s.group == source.group)
        asked.append((b"same" if same else b"other", source.image))
        return *marked(30, bright=same), source.image  # far from all real ones where it stands on its own part

    likeness = Likeness(samples, move)
    near = likeness.distance("plate/spot", *marked(30))
    assert {where for where, _ in asked} == {b"same", b"other"}
    assert sum(where == b"other" for where, _ in asked) == MOVED
    assert near is not None
    assert 0.8 < near < 1.25


def test_copies_of_real_ones_make_no_unit_of_nothing(tmp_path: Path) -> None:
    one, two = written(tmp_path, 1) * 2
    samples = [one, replace(two, group="other")]
    likeness = Likeness(samples, lambda image, kind, rng: (*marked(0), one.image))
    assert likeness.distance("plate/spot", *marked(0)) == pytest.approx(0, abs=1e-3)
    assert likeness.distance("plate/spot", *marked(30, bright=True)) > 1000  # type: ignore[operator]


def test_what_decides_is_said(tmp_path: Path) -> None:
    samples = written(tmp_path, 3)
    said = Likeness(samples, Mover(samples)).settings()
    assert said == Likeness(samples, Mover(samples)).settings()
    assert said["encoder"] == file_hash(WEIGHTS)
    other = [replace(s, group="one part") for s in samples]
    assert said["parts"] != Likeness(other, Mover(other)).settings()["parts"]


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
