"""What the values of a mask file mean: each rule, and the files that are asked about."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fast.data.images import read_labels, read_mask, read_mask_as, resize_labels
from fast.data.reading import NAME
from ldm.errors import UserError

TRUE = np.zeros((40, 60), np.uint8)
TRUE[5:15, 10:30] = 1
TWO = np.zeros((40, 60), np.uint8)
TWO[5:15, 10:30] = 1
TWO[20:35, 30:50] = 2
SMOOTH = cv2.resize(TRUE * 255, (300, 200), interpolation=cv2.INTER_CUBIC)  # soft edges, overshoots cut


def saved(tmp_path: Path, values: np.ndarray | Image.Image, name: str = "m.png") -> Path:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(tmp_path / name)
    return tmp_path / name


def palette(values: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(values)
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def painted(values: np.ndarray, *colours: tuple[int, ...]) -> np.ndarray:
    return np.array(colours, np.uint8)[values]


BLACK, WHITE, RED, BLUE, VOID = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 200), (224, 224, 192)
RING = np.where(cv2.dilate(TRUE, np.ones((3, 3))) > TRUE, np.uint8(2), TRUE)

READ: dict[str, np.ndarray | Image.Image] = {
    **{f"two values 0 {v}": TRUE * np.uint8(v) for v in (1, 2, 38, 76, 100, 127, 128, 200, 254, 255)},
    **{f"two values 0 {v} of 16 bits": TRUE.astype(np.uint16) * v for v in (1, 255, 256, 4095, 32000, 65535)},
    "one bit": Image.fromarray(TRUE > 0),
    "no zero": np.where(TRUE, np.uint8(90), np.uint8(40)),
    "whole numbers as fractions": Image.fromarray(TRUE.astype(np.float32) * 7),
    "fractions": Image.fromarray(TRUE.astype(np.float32)),
    "signed": Image.fromarray(TRUE.astype(np.int32) * 300),
    "palette, defect first": palette(1 - TRUE, RED, BLACK),
    "palette, black first": palette(TRUE, BLACK, RED),
    "grey palette, white first": palette(1 - TRUE, WHITE, BLACK),
    "palette on white": palette(TRUE, WHITE, RED),
    "palette on grey": palette(TRUE, (120, 120, 120), (180, 120, 120)),
    "palette with void": palette(RING, BLACK, (128, 0, 0), VOID),
    "colours": painted(TRUE, BLACK, RED),
    "dark colours": painted(TRUE, BLACK, (0, 0, 60)),
    "colours on white": painted(TRUE, WHITE, (250, 240, 0)),
    "white on a layer": painted(TRUE, (*WHITE, 0), (*WHITE, 255)),
    "black on a layer": painted(TRUE, (*BLACK, 0), (*BLACK, 255)),
    "erased from black": painted(TRUE, (*BLACK, 255), (*BLACK, 0)),
    "black and white with alpha": painted(TRUE, (*BLACK, 255), (*WHITE, 255)),
}


@pytest.mark.parametrize("name", READ)
def test_one_defect_is_read_however_it_is_stored(tmp_path: Path, name: str) -> None:
    suffix = ".tif" if name in ("whole numbers as fractions", "fractions", "signed") else ".png"
    np.testing.assert_array_equal(read_mask(saved(tmp_path, READ[name], f"m{suffix}")), TRUE)


LABELS: dict[str, np.ndarray | Image.Image] = {
    "small": TWO,
    "instances": np.array([0, 5, 200], np.uint8)[TWO],
    "of 16 bits": np.array([0, 40, 1001], np.uint16)[TWO],
    "palette": palette(TWO, BLACK, (128, 0, 0), (0, 128, 0)),
    "palette of any order": palette(2 - TWO, RED, BLUE, BLACK),
    "colours": painted(TWO, BLACK, RED, BLUE),
    "colours on white": painted(TWO, WHITE, RED, BLUE),
}


@pytest.mark.parametrize("name", LABELS)
def test_every_label_is_a_defect(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_mask(saved(tmp_path, LABELS[name])), TWO > 0)


def test_thin_labels_that_cross_are_labels(tmp_path: Path) -> None:
    lines = np.zeros((60, 80), np.uint8)
    lines[30, 5:70] = 40
    lines[5:50, 30] = 200
    np.testing.assert_array_equal(read_mask(saved(tmp_path, lines)), lines > 0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_soft_edges_are_cut_at_half(tmp_path: Path, suffix: str) -> None:
    mask = read_mask(saved(tmp_path, SMOOTH, f"m{suffix}"))
    sure = np.abs(SMOOTH.astype(int) - 127) > 60
    np.testing.assert_array_equal(mask[sure], (SMOOTH > 127)[sure])
    colour = np.dstack([SMOOTH, SMOOTH // 8, SMOOTH // 8])
    mask = read_mask(saved(tmp_path, colour, f"c{suffix}"))
    np.testing.assert_array_equal(mask[sure], (SMOOTH > 127)[sure])


def test_a_lossy_drawing_on_white(tmp_path: Path) -> None:
    colour = np.where(SMOOTH[:, :, None] > 127, np.uint8([200, 0, 0]), np.uint8(255))
    mask = read_mask(saved(tmp_path, colour, "m.jpg"))
    assert ((SMOOTH > 127) != mask).mean() < 0.01


ASKED: dict[str, tuple[np.ndarray | Image.Image, str]] = {
    "ignore or defect": (np.array([0, 1, 255], np.uint8)[RING], "labels 0, 1, 255; is 255 a defect or ignored"),
    "ignore, no background": (np.array([1, 255], np.uint8)[TRUE], "values 1, 255 and no 0"),
    "ignore of 16 bits": (np.array([0, 3, 65535], np.uint16)[RING], "is 65535 a defect or ignored"),
    "two types, the second 255": (np.array([0, 128, 255], np.uint8)[TWO], "is 255 a defect or ignored"),
    "halves": (np.repeat(np.uint8([[40], [90]]), 20, axis=0).repeat(60, axis=1), "values 40, 90 and no 0"),
    "black, white, colour": (painted(TWO, BLACK, WHITE, RED), "is white a defect"),
    "colours without ground": (painted(np.minimum(np.arange(60) // 20, 2)[None].repeat(40, 0), RED, BLUE, VOID[::-1]),
                               "and no black"),
    "half transparent": (painted((np.arange(60) // 30)[None].repeat(40, 0), (*BLACK, 0), (*BLACK, 255)),
                         "drawn by transparency alone"),
    "negative": (Image.fromarray(TRUE.astype(np.int32) * 3 - (RING == 2)), "negative value -1"),
    "above one": (Image.fromarray(TRUE.astype(np.float32) * 1.5), "fractions above 1"),
    "not a number": (Image.fromarray(np.where(TRUE, np.nan, 0).astype(np.float32)), "values that are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_two_readings_are_asked_about(tmp_path: Path, name: str) -> None:
    values, message = ASKED[name]
    suffix = ".tif" if isinstance(values, Image.Image) else ".png"
    with pytest.raises(UserError, match=rf"m\{suffix}: .*{message}"):
        read_mask(saved(tmp_path, values, f"m{suffix}"))


def photograph(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shade = 60 + 120 * cv2.GaussianBlur(rng.random((40, 60, 3)), (0, 0), 6)
    return np.clip(shade + 6 * rng.standard_normal((40, 60, 3)), 0, 255).astype(np.uint8)


DARK: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda a: a,
    lambda a: a[:, :, 0],
    lambda a: a // 8,
    lambda a: a[:, :, 0] // 8,
    lambda a: np.where(TRUE[:, :, None] > 0, a, 0).astype(np.uint8) + a // 20,
    lambda a: a[:, :, 0].astype(np.uint16) * 16,
]


@pytest.mark.parametrize("change", range(len(DARK)))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_photographs_are_no_masks(tmp_path: Path, change: int, suffix: str) -> None:
    values = DARK[change](photograph(change))
    if suffix == ".jpg" and (
        values.dtype == np.uint16 or change == 4
    ):  # JPEG flattens the last one's ground and object
        suffix = ".tif"
    with pytest.raises(UserError, match=r"looks like a photograph|and no 0"):
        read_mask(saved(tmp_path, values, f"m{suffix}"))


def told(tmp_path: Path, text: str, values: np.ndarray | Image.Image, name: str = "m.png") -> np.ndarray:
    (tmp_path / NAME).write_text(text)
    (tmp_path / "a" / "b").mkdir(parents=True, exist_ok=True)
    return read_mask(saved(tmp_path / "a" / "b", values, name))


def test_what_is_told_is_obeyed(tmp_path: Path) -> None:
    ring = np.array([0, 1, 255], np.uint8)[RING]
    np.testing.assert_array_equal(told(tmp_path, '{"ignore": [255]}', ring), TRUE)
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": [1, 255]}', ring), RING > 0)
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": [0]}', 255 - TRUE * 255), TRUE)
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": [255]}', 255 - TRUE * 255), 1 - TRUE)
    soft = told(tmp_path, '{"mask_values": [0]}', 255 - SMOOTH)
    np.testing.assert_array_equal(soft, 255 - SMOOTH <= 127)
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": [2]}', TWO), TWO == 2)
    np.testing.assert_array_equal(
        told(tmp_path, '{"mask_values": ["#ff0000"]}', painted(TWO, BLACK, WHITE, RED)), TWO == 2
    )
    hole = painted(TRUE, (*BLACK, 255), (*RED, 0))
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": ["transparent"]}', hole), TRUE)
    over = painted(TRUE, (90, 80, 70, 255), (1, 2, 3, 0))
    np.testing.assert_array_equal(told(tmp_path, '{"mask_values": ["opaque"]}', over), 1 - TRUE)
    below = told(tmp_path, '{"ignore": [-1]}', Image.fromarray(TRUE.astype(np.int32) * 3 - (RING == 2)), "m.tif")
    np.testing.assert_array_equal(below, TRUE)


def test_ignored_pixels_are_told_apart_from_background(tmp_path: Path) -> None:
    labels = np.array([0, 1, 255], np.uint8)[RING]
    (tmp_path / NAME).write_text('{"ignore": [255]}')
    np.testing.assert_array_equal(read_labels(saved(tmp_path, labels)), labels)
    (tmp_path / NAME).write_text('{"ignore": [2], "mask_values": [1]}')  # indices of the palette
    indexed = saved(tmp_path, palette(RING, BLACK, RED, WHITE))
    np.testing.assert_array_equal(read_labels(indexed), labels)
    (tmp_path / NAME).unlink()
    np.testing.assert_array_equal(read_labels(saved(tmp_path, palette(RING, BLACK, RED, VOID))), labels)
    small = resize_labels(labels, (labels.shape[0] // 2, labels.shape[1] // 2))
    blocks = labels[: small.shape[0] * 2, : small.shape[1] * 2].reshape(small.shape[0], 2, small.shape[1], 2)
    anywhere = [(blocks == value).any(axis=(1, 3)) for value in (1, 255)]
    np.testing.assert_array_equal(small, np.where(anywhere[0], 1, np.where(anywhere[1], 255, 0)))


def test_a_grey_colour_that_is_told_means_the_grey_level(tmp_path: Path) -> None:
    black = told(tmp_path, '{"mask_values": ["#000000"]}', 255 - TRUE * 255)
    np.testing.assert_array_equal(black, TRUE)
    with pytest.raises(UserError, match="not the values told"):
        told(tmp_path, '{"mask_values": [1]}', painted(TRUE, BLACK, RED))


def test_pairs_inside_a_dataset_are_not_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"ignore": [255]}')
    (tmp_path / "pairs" / "mask").mkdir(parents=True)
    (tmp_path / "pairs" / "manifest.jsonl").touch()
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "pairs" / "mask", TRUE * 255)), TRUE)


def test_bad_readings_are_named(tmp_path: Path) -> None:
    for text, message in (
        ("{", "cannot be read"),
        ('{"values": [1]}', "'values' is unknown"),
        ('{"mask_values": ["white"]}', "mask_values: 'white' is no value"),
        ('{"mask_values": [1.5]}', "mask_values: '1.5' is no value"),
        ('{"ignore": ["transparent"]}', "ignore: 'transparent' is no value; use whole numbers, colours"),
        ('{"line_width": -1}', "line_width=-1"),
        ('{"bits": 40}', "bits=40"),
        ("[]", "not an object"),
    ):
        with pytest.raises(UserError, match=rf"reading\.json: .*{message}"):
            told(tmp_path, text, TRUE)


def test_the_decision_is_told_in_words(tmp_path: Path) -> None:
    reading = read_mask_as(saved(tmp_path, TRUE * 38))
    assert (reading.values, reading.taken) == ("0, 38", "38 is the defect")
    reading = read_mask_as(saved(tmp_path, palette(RING, BLACK, (128, 0, 0), VOID)))
    assert (reading.values, reading.taken) == (
        "#000000, #800000, #e0e0c0",
        "all but #000000 is defect, #e0e0c0 ignored",
    )
    reading = read_mask_as(saved(tmp_path, SMOOTH))
    assert reading.taken == "above 127 is defect"


def test_a_folder_holds_the_parts_of_one_mask(tmp_path: Path) -> None:
    (tmp_path / "000").mkdir()
    saved(tmp_path / "000", np.where(TWO == 1, np.uint8(250), np.uint8(0)), "000.png")
    saved(tmp_path / "000", np.where(TWO == 2, np.uint8(245), np.uint8(0)), "001.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "000"), TWO > 0)
    saved(tmp_path / "000", np.zeros((3, 3), np.uint8), "002.png")
    with pytest.raises(UserError, match="000: parts of different sizes"):
        read_mask(tmp_path / "000")
