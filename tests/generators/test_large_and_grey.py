"""Pictures of any size and arrays of any kind, for the methods that take whole pictures."""

from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fast.generators.large
import fast.generators.maker
from fast.generators import create
from fast.generators.large import PER_PIXEL, MemoryBudget, bytes_of, in_windows, is_large
from fast.generators.maker import GeneratorMaker
from fast.synthesis.pair import Pair
from fast.synthesis.triptych import panel
from ldm.errors import UserError

PIXEL_METHODS = ("cutpaste", "draem", "glass")


def grain(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(128, 20, (height, width))
    return np.repeat(np.clip(noise, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast.generators.large, "LARGE", 100 * 100)
    for name, value in (("SIDE", 64), ("MARGIN", 8), ("LEAST", 16)):
        monkeypatch.setattr(fast.generators.large, name, value)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("name", PIXEL_METHODS)
def test_a_large_picture_is_changed_in_one_window(name: str) -> None:
    image = grain(150, 230)
    assert is_large(image)
    assert not is_large(image[:100, :100])
    before = image.copy()
    made, mask = in_windows(create(name).synthesize, image, None, np.random.default_rng(1))
    assert made.shape == before.shape
    assert mask.any()
    assert (made[mask == 0] == before[mask == 0]).all()
    assert (made != before).any()
    rows, columns = np.nonzero(mask)
    assert max(np.ptp(rows), np.ptp(columns)) < 64
    again = in_windows(create(name).synthesize, before.copy(), None, np.random.default_rng(1))
    assert (again[0] == made).all()
    assert (again[1] == mask).all()


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("name", PIXEL_METHODS)
def test_a_given_mask_is_filled_window_by_window(name: str) -> None:
    image, mask = grain(150, 230), np.zeros((150, 230), np.uint8)
    mask[3:9, 4:20] = 1
    mask[70:145, 100:220] = 255  # larger than a window
    before, seen = image.copy(), []

    def make(part: np.ndarray, own: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        seen.append(part.shape)
        return create(name).synthesize(part, own, rng)

    made, found = in_windows(make, image, mask, np.random.default_rng(0))
    assert (found == (mask != 0)).all()
    assert (made[mask == 0] == before[mask == 0]).all()
    assert (made[mask != 0] != before[mask != 0]).any(axis=1).mean() > 0.5
    assert max(max(shape) for shape in seen) <= 64


@pytest.mark.usefixtures("small_windows")
def test_the_maker_takes_the_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(grain(150, 230)).save(tmp_path / "n.png")
    maker = GeneratorMaker(create("draem"), ["/draem"])
    (made,) = maker.make(iter([Pair(0, tmp_path / "n.png", None, 0, 7)]), 1)
    assert (made.image[made.mask == 0] == grain(150, 230)[made.mask == 0]).all()
    assert (made.normal == grain(150, 230)).all()


def test_a_budget_lets_one_through_and_makes_others_wait() -> None:
    budget, order = MemoryBudget(100), []

    def second() -> None:
        with budget.take(30):
            order.append("second")

    with budget.take(1000):
        waiting = Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]
    with budget.take(60), budget.take(40):
        pass


@pytest.mark.parametrize(("available", "limit"), [(1001, 500), (None, None)])
def test_half_of_what_there_is_may_be_used(
    available: int | None, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast.generators.large, "available_bytes", lambda device: available)
    assert MemoryBudget().limit == limit


def test_bytes_by_the_header(tmp_path: Path) -> None:
    Image.fromarray(grain(10, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert bytes_of(tmp_path / "a.png") == 200 * PER_PIXEL
    assert bytes_of(tmp_path / "b.png") == bytes_of(tmp_path / "absent.png") == 0


def test_a_panel_of_a_large_mask_loses_no_pixel() -> None:
    mask = np.zeros((5000, 3001), np.uint8)
    mask[4999, 3000] = mask[0, 0] = mask[2501, 17] = 1
    shown = panel(mask)
    assert max(shown.shape) == 1024
    assert shown[0, 0] == shown[-1, -1] == 1
    assert 3 <= shown.sum() <= 12


@pytest.mark.parametrize("name", PIXEL_METHODS)
def test_grey_in_grey_out(name: str) -> None:
    grey, mask = grain(64, 64)[..., 0], np.zeros((64, 64), bool)
    mask[10:30, 10:30] = True
    made, found = create(name).synthesize(grey, mask, np.random.default_rng(0))
    assert made.shape == grey.shape
    assert made.dtype == np.uint8
    assert (found == mask).all()
    assert (made[~mask] == grey[~mask]).all()
    assert (made[mask] != grey[mask]).any()
    own, _ = create(name).synthesize(grey, None, np.random.default_rng(0))
    assert own.shape == grey.shape


@pytest.mark.parametrize(
    ("image", "mask", "rng", "message"),
    [
        (np.zeros((8, 8, 3)), None, 0, "image of type float64: pixels must be uint8"),
        (np.zeros((8, 8, 3), np.uint16), None, 0, "image of type uint16"),
        ([[1]], None, 0, "image of type list"),
        (np.zeros((8, 8, 4), np.uint8), None, 0, r"image of shape \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), None, 0, "image of shape"),
        (np.zeros(8, np.uint8), None, 0, "image of shape"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3)), 0, "mask of shape"),
        (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), np.nan), 0, "mask holds NaN"),
        (np.zeros((8, 8, 3), np.uint8), None, 0, "rng of type int"),
    ],
)
@pytest.mark.parametrize("name", PIXEL_METHODS)
def test_other_arrays_are_refused_in_one_line(name: str, image: Any, mask: Any, rng: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(name).synthesize(image, mask, rng)
