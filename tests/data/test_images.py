import errno
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fast.data import images
from fast.data.decode import decode, image_size, may_be_deep
from fast.data.images import (
    is_image,
    list_images,
    read_image,
    read_mask,
    resize_image,
    resize_mask,
    write_image,
    write_mask,
)
from ldm.errors import UserError

COLOUR = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_formats_read_back(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", Image.fromarray(COLOUR), **options)
    np.testing.assert_array_equal(read_image(path), COLOUR)


def test_jpeg_of_one_colour(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("RGB", (16, 8), (200, 100, 50)), quality=95)
    image = read_image(path)
    assert image.shape == (8, 16, 3)
    np.testing.assert_allclose(image.astype(int), np.broadcast_to([200, 100, 50], image.shape), atol=2)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_alpha_palette_and_bilevel(tmp_path: Path, suffix: str) -> None:
    grey = save(tmp_path / f"grey{suffix}", Image.fromarray(GREY))
    np.testing.assert_array_equal(read_image(grey), np.stack([GREY] * 3, axis=2))
    rgba = save(tmp_path / f"rgba{suffix}", Image.fromarray(np.dstack([COLOUR, GREY])))
    np.testing.assert_array_equal(read_image(rgba), COLOUR)
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    palette.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 255])
    expected = [[[10, 20, 30], [200, 0, 0]], [[0, 0, 255], [200, 0, 0]]]
    np.testing.assert_array_equal(read_image(save(tmp_path / f"p{suffix}", palette)), expected)
    bits = save(tmp_path / f"bits{suffix}", Image.fromarray(GREY > 99))
    np.testing.assert_array_equal(read_image(bits)[:, :, 1], (GREY > 99) * 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_use_the_full_range(tmp_path: Path, suffix: str) -> None:
    deep = np.array([[0, 128, 129, 257], [32896, 65280, 65406, 65535]], np.uint16)
    expected = [[0, 0, 1, 1], [128, 254, 254, 255]]  # round(v / 257), by hand
    image = read_image(save(tmp_path / f"grey{suffix}", Image.fromarray(deep)))
    np.testing.assert_array_equal(image[:, :, 0], expected)
    colour = tmp_path / f"colour{suffix}"
    cv2.imwrite(str(colour), np.dstack([deep, deep * 0, deep[::-1]]))  # blue, green, red
    np.testing.assert_array_equal(read_image(colour)[:, :, 2], expected)
    np.testing.assert_array_equal(read_image(colour)[:, :, 0], expected[::-1])


def test_float_and_wide_integers_have_a_range_or_are_refused(tmp_path: Path) -> None:
    unit = save(tmp_path / "unit.tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))
    np.testing.assert_array_equal(read_image(unit)[0, :, 0], [0, 128, 255])
    wide = save(tmp_path / "wide.tif", Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(UserError, match=r"wide\.tif.*70000.*8 or 16 bits"):
        read_image(wide)


# EXIF: what the stored first row and first column show of the upright picture.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_images_and_masks(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a{suffix}", Image.fromarray(COLOUR), exif=exif)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](COLOUR))
    assert image_size(path) == read_image(path).shape[:2]
    grey = np.repeat(GREY[:, :, None], 3, axis=2)
    mask = save(tmp_path / f"m{suffix}", Image.fromarray(GREY), exif=exif)
    np.testing.assert_array_equal(read_mask(mask), UPRIGHT[orientation](grey)[:, :, 0] > 127)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_sixteen_bit_colour(tmp_path: Path, orientation: int) -> None:
    # No library at hand writes this file: header, pixels, three times 16 bits, then a directory of nine tags.
    pixels = (COLOUR.astype("<u2") * 257).tobytes()  # v * 257: the high byte alone is v, too
    bits = 8 + len(pixels)
    short, long = 3, 4
    tags = [(256, long, 1, 5), (257, long, 1, 7), (258, short, 3, bits), (259, short, 1, 1), (262, short, 1, 2)]
    tags += [(273, long, 1, 8), (274, short, 1, orientation), (277, short, 1, 3), (279, long, 1, len(pixels))]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = struct.pack("<2sHI", b"II", 42, bits + 6) + pixels + struct.pack("<HHH", 16, 16, 16)
    path = tmp_path / "deep.tif"
    path.write_bytes(data + struct.pack("<H", len(tags)) + directory + bytes(4))
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](COLOUR))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.9])
def test_truncated_files_name_themselves(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    write_image(path, np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=f"cut{suffix}: .*remove the file"):
            read(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png.*No such file.*check the path"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"text\.png"):
        read_image(tmp_path / "text.png")
    with pytest.raises(UserError, match="cannot list"):
        list_images(tmp_path / "nowhere")


def mask_of(tmp_path: Path, values, **options) -> list:
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
    mask = read_mask(save(tmp_path / "mask.png", image, **options))
    assert mask.dtype == np.uint8
    return mask.tolist()


def test_masks_of_every_kind(tmp_path: Path) -> None:
    u8, u16 = np.uint8, np.uint16
    assert mask_of(tmp_path, np.array([[0, 127, 128, 255]], u8)) == [[0, 0, 1, 1]]  # antialiased
    assert mask_of(tmp_path, np.array([[0, 1, 0, 1]], u8)) == [[0, 1, 0, 1]]
    assert mask_of(tmp_path, np.array([[0, 1, 5, 31]], u8)) == [[0, 1, 1, 1]]  # VisA's labels
    assert mask_of(tmp_path, np.array([[False, True]])) == [[0, 1]]
    assert mask_of(tmp_path, np.array([[0, 1, 2]], u16)) == [[0, 1, 1]]
    assert mask_of(tmp_path, np.array([[0, 255, 100]], u16)) == [[0, 1, 0]]
    assert mask_of(tmp_path, np.array([[0, 32639, 32640, 65535]], u16)) == [[0, 0, 1, 1]]
    assert mask_of(tmp_path, np.zeros((1, 2), u8)) == [[0, 0]]
    red = np.array([[[0, 0, 0], [255, 0, 0], [90, 90, 90]]], u8)
    assert mask_of(tmp_path, red) == [[0, 1, 0]]
    painted = np.array([[[255, 255, 255, 0], [255, 255, 255, 255]]], u8)  # white paint on a transparent layer
    assert mask_of(tmp_path, painted) == [[0, 1]]


def test_palette_masks(tmp_path: Path) -> None:
    indices = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    indices.putpalette([0, 0, 0, 128, 0, 0, 0, 60, 0])
    assert mask_of(tmp_path, indices) == [[0, 1, 1]]
    swapped = Image.fromarray(np.array([[0, 1]], np.uint8))
    swapped.putpalette([255, 255, 255, 0, 0, 0])  # a grey palette that begins with white
    assert mask_of(tmp_path, swapped) == [[1, 0]]


def test_resize_mask_loses_no_defect() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        height, width = (int(n) for n in rng.integers(1, 30, 2))
        rows, columns = (int(rng.integers(1, n + 1)) for n in (height, width))
        mask = (rng.random((height, width)) < 0.05).astype(np.uint8)
        expected = np.zeros((rows, columns), np.uint8)
        for y, x in zip(*np.nonzero(mask), strict=True):
            for i in range(rows):
                for j in range(columns):  # open intervals overlap, in whole numbers
                    tall = i * height < (y + 1) * rows and y * rows < (i + 1) * height
                    wide = j * width < (x + 1) * columns and x * columns < (j + 1) * width
                    expected[i, j] |= tall and wide
        small = resize_mask(mask, (rows, columns))
        assert small.dtype == np.uint8
        np.testing.assert_array_equal(small, expected)


def test_resize_mask_grows_by_nearest_and_may_do_both() -> None:
    mask = np.array([[0, 1], [1, 0]])
    np.testing.assert_array_equal(resize_mask(mask, 4), np.kron(mask, np.ones((2, 2), int)))
    assert resize_mask(np.array([[0, 0, 0, 7]]), (2, 2)).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match="positive"):
        resize_mask(mask, 0)


def test_resize_image_averages_areas() -> None:
    image = np.array([[0, 100, 200], [0, 100, 200]], np.uint8)
    # Two columns out of three: (0 + 100 / 2) / 1.5 and (100 / 2 + 200) / 1.5.
    assert resize_image(image, (1, 2)).tolist() == [[33, 167]]
    flat = np.full((6, 4, 3), 77, np.uint8)
    for size in (3, (12, 2), (5, 9), (6, 4)):
        out = resize_image(flat, size)
        assert out.shape == ((size, size, 3) if isinstance(size, int) else (*size, 3))
        assert (out == 77).all()
    assert resize_image(flat, (6, 4)) is not flat


def test_list_images_sorts_naturally(tmp_path: Path) -> None:
    for name in ("a10.png", "a2.PNG", "._a1.png", "b.txt", "a1.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a1.jpg", "a2.PNG", "a10.png"]
    assert is_image("x.TIFF")
    assert not is_image("x.csv")


def test_write_reads_back_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    write_image(path, COLOUR)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    write_mask(tmp_path / "new" / "m.png", GREY > 100)
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "m.png"), GREY > 100)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "new" / "m.png")))) == {0, 255}
    assert sorted(os.listdir(tmp_path / "new")) == ["a.png", "m.png"]
    with pytest.raises(UserError, match=r"m\.jpg.*\.png"):
        write_mask(tmp_path / "m.jpg", GREY)
    with pytest.raises(UserError, match=r"a\.gif.*use one of"):
        write_image(tmp_path / "a.gif", COLOUR)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_image(path, COLOUR)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images.os, "replace", full)
    with pytest.raises(UserError, match=r"a\.png: cannot write \(No space left on device\)"):
        write_image(path, COLOUR[::-1])
    assert os.listdir(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_image(path), COLOUR)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "jpg", "bmp"])
def test_depth_is_seen_by_the_first_bytes(tmp_path: Path, kind: str, channels: int) -> None:
    suffix = "ppm" if (kind, channels) == ("pgm", 3) else kind
    shape = (40, 30) if channels == 1 else (40, 30, 3)
    noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    shallow, deep = tmp_path / f"8.{suffix}", tmp_path / f"16.{suffix}"
    assert cv2.imwrite(str(shallow), noise)
    assert not may_be_deep(shallow)
    if kind in ("png", "tif", "pgm"):
        assert cv2.imwrite(str(deep), noise.astype(np.uint16) * 200)
        assert decode(deep).values.dtype == np.uint16
        assert may_be_deep(deep)
    assert not may_be_deep(tmp_path / "gone.png")
