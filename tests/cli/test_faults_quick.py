"""Damaged files of every kind are one line; a set and a training that are killed go on to the same bytes."""

import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT as PROJECT
from support.synthesis import leftovers, synthesize, whole_set
from support.training import FIRST_STAGE, assert_same_run, door, recipe


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
NAN = np.full((64, 64), np.nan, np.float32)
DAMAGED = {
    "zero bytes.png": b"",
    "cut.png": encoded(NOISE)[:3000],
    "cut.jpg": encoded(NOISE, "JPEG")[:1500],
    "cut.tif": encoded(NOISE, "TIFF")[:4000],
    "cut.webp": encoded(NOISE, "WEBP")[:900],
    "cut.bmp": encoded(NOISE, "BMP")[:5000],
    "cut.gif": encoded(NOISE[:, :, 0], "GIF")[:200],
    "text.png": b"this is text\n" * 9,
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "no size.png": header(0, 0),
    "too large.png": header(60000, 60000),
    "larger still.png": header(2**31 - 1, 2**31 - 1),
    "no numbers.tif": encoded(NAN, "TIFF"),
    "new\nline.png": b"no picture",
    "\x1b[31mred.png": b"no picture",
    os.fsdecode(b"\xc8\xb1\xcf\xdd.png"): b"no picture",
}


def refused(argv: list[object], out: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with 2 and writes nothing."""
    assert synthesize([str(a) for a in argv]) == 2
    line = capfd.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert not out.exists()
    return line


@pytest.mark.parametrize("name", DAMAGED, ids=repr)
def test_a_damaged_file_is_one_line(
    name: str, drawn_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / name).write_bytes(DAMAGED[name])
    flags: list[object] = ["--count", "1", "--sample_name", out]
    refused(["--method", "draem", "--data_root", folder, *flags], out, capfd)
    normals = drawn_root / "wood" / "train" / "good"
    refused(["--method", "cutpaste", "--data_root", normals, "--mask_path", folder, *flags], out, capfd)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.png")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [Path.mkdir, dangling, circle, os.mkfifo])
def test_what_is_no_file_is_one_line(
    make: Callable[[Path], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    make(folder / "x.png")
    refused(["--method", "draem", "--data_root", folder, "--count", "1", "--sample_name", out], out, capfd)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--size", "1000000000"), ("--sample_name", "a\0b"), ("--count", "1e9")],
)
def test_absurd_flags_are_one_line(
    flag: str, value: str, drawn_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    normals, out = drawn_root / "wood" / "train" / "good", tmp_path / "out"
    given = ["--method", "cutpaste", "--data_root", normals, "--count", "1", "--sample_name", out]
    refused([*given, flag, value], out, capfd)


def test_a_training_names_a_folder_that_its_config_cannot_hold(
    drawn_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, FIRST_STAGE, drawn_root)
    for name, code in ((b"\xc8\xb1\xcf\xdd", 2), ("\U0001f4f7 ü".encode(), 0)):
        folder = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        os.symlink(drawn_root, folder)
        assert door("-b", path, "--mvtec_path", folder, "-l", tmp_path, "-n", "run") == code
        assert ("give a symbolic link to it" in capfd.readouterr().err) == (code == 2)


# kills


def stopped(command: list[str], sent: signal.Signals, reached: Callable[[str], bool]) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a signal when a line of its output says so."""
    argv = [sys.executable, "-u", *command]
    with subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if reached(line):
                process.send_signal(sent)
                break
        process.stdout.read()
        error = process.stderr.read()
    return process.returncode, error


SENT = pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 2)], ids=["KILL", "TERM"])


def training(folder: Path, data: Path, name: str) -> list[str]:
    path = recipe(folder, FIRST_STAGE, data, steps=12, cache=False, crop=32, use="both")
    return [str(a) for a in ("-b", path, "-t", "-l", folder, "-n", name)]


@pytest.fixture(scope="module")
def whole(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `training` that nothing stopped. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    assert door(*training(folder, drawn_root, "whole")) == 0
    return folder / "whole"


@SENT
def test_a_stopped_training_goes_on_to_the_same_bytes(
    sent: signal.Signals, code: int, drawn_root: Path, whole: Path, tmp_path: Path
) -> None:
    got, error = stopped(
        ["main.py", *training(tmp_path, drawn_root, "run")], sent, lambda line: line.startswith("step 5/12")
    )
    assert got == code, error
    assert ("go on with -t -r" in error) == (code == 2)
    assert door("-r", tmp_path / "run", "-t") == 0
    assert_same_run(whole, tmp_path / "run", 12)
    assert not list(tmp_path.rglob("*.part"))


@SENT
def test_a_stopped_set_goes_on_to_the_same_bytes(
    sent: signal.Signals, code: int, drawn_root: Path, tmp_path: Path
) -> None:
    def argv(out: Path, count: int) -> list[str]:
        wood = drawn_root / "wood" / "train" / "good"
        return ["--method", "cutpaste", "--data_root", str(wood), "--count", str(count), "--sample_name", str(out)]

    out, whole = tmp_path / "out", tmp_path / "whole"
    # Its first line comes before its first pair, of which it would make thousands.
    got, error = stopped(["generate_with_mask.py", *argv(out, 5000)], sent, lambda line: "normals" in line)
    assert got == code, error
    made = [int(p.stem) for p in (out / "image").glob("*.png")]
    count = max(made, default=0) + 3
    assert synthesize(argv(out, count)) == 0
    assert synthesize(argv(whole, count)) == 0
    assert whole_set(out) == whole_set(whole)
    assert leftovers(out) == []
