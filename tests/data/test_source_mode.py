"""Grey in, grey out; 16 bits in, 16 bits out; and how deep values are read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fast.data.depth import read_with_mode
from fast.data.images import read_image, resize_image, write_bytes, write_image
from fast.data.source_mode import keep_grey, like_source
from ldm.errors import UserError

RNG = np.random.default_rng(0)
PLACE = np.zeros((40, 60), bool)
PLACE[10:20, 15:40] = True


def edited(normal: np.ndarray) -> np.ndarray:
    made = normal.copy()
    made[PLACE] = RNG.integers(0, 256, (int(PLACE.sum()), 3), dtype=np.uint8)
    return made


def stored(path: Path, made: np.ndarray, source: Path | None) -> np.ndarray:
    """Store a picture as a synthesis does; returns what it is said to read as."""
    found = like_source(made, source)
    if found.array.dtype == np.uint8:
        write_image(path, found.array)
    else:
        write_bytes(path, found.png())
    return found.seen


def test_twelve_bits_in_sixteen_use_the_grey_levels(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 4095, 60).astype(np.uint16), (40, 1))
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    image, mode = read_with_mode(tmp_path / "a.tif")
    assert mode.name == "grey, 12 bit in 16"
    assert np.abs(image[0, :, 0] - ramp[0].astype(float) * 255 / 4095).max() <= 0.5
    (tmp_path / "reading.json").write_text('{"bits": 16}')  # a dark picture of a 16-bit camera
    assert read_image(tmp_path / "a.tif").max() == 16
    (tmp_path / "reading.json").write_text('{"bits": 10}')
    with pytest.raises(UserError, match=r"a\.tif: holds the value 4095, above the 10 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("high", "name"), [(255, "8"), (1000, "10"), (16383, "14"), (40000, "16")])
def test_the_depth_is_the_least_that_holds_the_values(tmp_path: Path, high: int, name: str) -> None:
    values = np.array([[0, high // 2, high]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([values, values // 2, values]))
    mode = read_with_mode(tmp_path / "a.png")[1]
    assert mode.name == ("colour, 16 bit" if name == "16" else f"colour, {name} bit in 16")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("shift", [0, 4])
def test_grey_pictures_come_back_grey_in_their_depth(tmp_path: Path, bits: int, shift: int) -> None:
    dtype, shift = (np.uint8, 0) if bits == 8 else (np.uint16, shift if bits == 12 else 0)
    values = (RNG.integers(20, 2**bits, (40, 60)) << shift).astype(dtype)
    Image.fromarray(values).save(tmp_path / "n.png")
    normal = read_image(tmp_path / "n.png")
    made = edited(normal)
    array = like_source(made, tmp_path / "n.png").array
    assert (array.dtype, array.shape) == (dtype, (40, 60))
    np.testing.assert_array_equal(array[~PLACE], values[~PLACE])
    shown = stored(tmp_path / "p.png", made, tmp_path / "n.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), shown)
    luminance = cv2.cvtColor(made, cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(shown, np.repeat(luminance[:, :, None], 3, axis=2))
    assert Image.open(tmp_path / "p.png").mode == ("L" if bits == 8 else "I;16")
    if shift:  # values of a camera that uses the upper bits stay multiples of 16
        assert not (array % 16).any()
    elif bits > 10:  # the finest steps occur inside as they do outside
        assert len(np.unique(array[PLACE] % 16)) == 16


def test_the_depth_survives_a_defect_on_the_brightest_pixel(tmp_path: Path) -> None:
    values = RNG.integers(0, 900, (40, 60)).astype(np.uint16)
    values[PLACE] = 4000
    Image.fromarray(values).save(tmp_path / "n.png")
    made = read_image(tmp_path / "n.png")
    made[PLACE] = 3
    stored(tmp_path / "p.png", made, tmp_path / "n.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), made)


def test_colour_and_resized_pictures(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (80, 120, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "n.png"), deep[:, :, ::-1])
    normal = resize_image(read_image(tmp_path / "n.png"), (40, 60))
    made = edited(normal)
    np.testing.assert_array_equal(stored(tmp_path / "p.png", made, tmp_path / "n.png"), made)
    deeper = cv2.imread(str(tmp_path / "p.png"), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert deeper.dtype == np.uint16
    assert np.abs(deeper[~PLACE].astype(int) - resize_image(deep, (40, 60))[~PLACE]).max() <= 257
    write_image(tmp_path / "c.jpg", RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    plain = read_image(tmp_path / "c.jpg")
    made = edited(plain)
    np.testing.assert_array_equal(stored(tmp_path / "q.png", made, tmp_path / "c.jpg"), made)


def test_three_equal_channels_are_grey(tmp_path: Path) -> None:
    grey = np.repeat(RNG.integers(0, 256, (40, 60, 1), dtype=np.uint8), 3, axis=2)
    write_image(tmp_path / "n.png", grey)
    array = like_source(edited(grey), tmp_path / "n.png").array
    assert array.shape == (40, 60, 3)
    assert (array == array[:, :, :1]).all()
    np.testing.assert_array_equal(keep_grey(edited(grey), grey)[~PLACE], grey[~PLACE])
    colour = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    made = edited(colour)
    assert keep_grey(made, colour) is made
    assert stored(tmp_path / "q.png", made, None) is made
