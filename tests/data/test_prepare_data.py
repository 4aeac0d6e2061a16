import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast.cli import prepare_data
from fast.data.images import read_mask, write_image, write_mask
from fast.data.split import Split
from fast.data.whole import check_images
from fast.runtime.command import run_cli
from fast.synthesis.sources import find_normals
from ldm.errors import UserError
from support.paths import ROOT

SCRIPT = ROOT / "scripts" / "prepare_data.py"


def main(argv: list[str]) -> int:
    return run_cli(prepare_data.main, argv)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "bottle"
    write_image(root / "train" / "good" / "0.png", np.ones((6, 4, 3), np.uint8))
    for kind in ("crack", "hole"):
        for index in range(4):
            write_image(root / "test" / kind / f"{index}.png", np.full((6, 4 + index, 3), len(kind), np.uint8))
            mask = np.zeros((6, 4 + index), np.uint8)
            mask[2, 2] = (kind, index) != ("crack", 3)
            write_mask(root / "ground_truth" / kind / f"{index}_mask.png", mask)
    return root


def test_as_a_command(dataset: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(dataset)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1:6] == [
        "category | type  | images | masks ok | width x height | groups | train | test",
        "---------+-------+--------+----------+----------------+--------+-------+-----",
        "bottle   | good  |      1 |        - |          4 x 6 |      1 |     - |    -",
        "bottle   | crack |      4 |        3 |        4-7 x 6 |      4 |     1 |    2",
        "bottle   | hole  |      4 |        4 |        4-7 x 6 |      4 |     1 |    3",
    ]
    assert lines[6].startswith("ground_truth/crack/3_mask.png: empty mask")
    split = Split.load(tmp_path / "split.json")
    assert lines[7:9] == [
        "note: masks: 7 with values 0, 255: 255 is the defect",
        "note: pictures of bottle: 9 grey, 8 bit",
    ]
    assert lines[9:] == [
        "1 problem, see above: what is bad is left out of the split, of training and of the bench",
        f"split {split.hash}",
        "2 train, 5 test -> split.json",
    ]
    assert split.excluded == ["test/crack/3.png"]


def test_bad_files_are_an_error_if_that_is_asked(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    assert main([str(dataset), "--out", str(out), "--strict"]) == 2
    said = capsys.readouterr()
    assert "ground_truth/crack/3_mask.png: empty mask" in said.out
    assert said.err.startswith(f"error: {dataset}: 1 problem, see above; with --strict no split is written")
    assert said.err.count("\n") == 1
    assert not out.exists()
    (dataset / "ground_truth/crack/3_mask.png").unlink()
    (dataset / "test/crack/3.png").unlink()
    assert main([str(dataset), "--out", str(out), "--strict"]) == 0
    assert out.is_file()


def test_bad_and_missing_normal_images_are_told(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "train/good/1.png").write_bytes(b"no picture")
    argv = [str(dataset), "--out", str(tmp_path / "s.json"), "--force"]
    stops, needs = "note: synthesis stops at", "note: there is no normal image to synthesize from"
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert f"{stops} 1 normal image that cannot be read, train/good/1.png; restore or remove" in said
    assert needs not in said
    with pytest.raises(UserError, match=r"train/good/1\.png"):  # as synthesis does
        check_images([source.path for source in find_normals(str(dataset))])
    (dataset / "train/good/0.png").write_bytes(b"no picture")
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert f"{stops} 2 normal images that cannot be read, train/good/0.png the first; restore or remove" in said
    assert needs in said
    for name in ("0.png", "1.png"):
        (dataset / "train/good" / name).unlink()
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert stops not in said
    assert needs in said


def test_a_folder_is_no_split_file(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for force in ([], ["--force"]):
        assert main([str(dataset), "--out", str(tmp_path), *force]) == 2
        said = capsys.readouterr()
        assert f"--out {tmp_path} is a folder; name the split's file, as in --out {tmp_path / 'split.json'}" in said.err
        assert not said.out


def test_never_overwrites_another_split(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.json"
    command = [str(dataset), "--out", str(out)]
    assert main(command) == 0
    before = out.read_text()
    assert main(command) == 0
    assert "already there" in capsys.readouterr().out
    assert main([*command, "--fraction", "0.6"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "--force" in error
    assert out.read_text() == before
    assert main([*command, "--fraction", "0.6", "--force"]) == 0
    assert Split.load(out).fraction == 0.6
    out.write_text("junk")
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err


def test_what_values_mean_is_asked_told_and_kept(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(dataset), "--anomaly", "hole", "--out", str(tmp_path / "s.json")]
    for path in (dataset / "ground_truth" / "hole").iterdir():
        mask = np.full((6, 4 + int(path.name[0])), 255, np.uint8)
        mask[1:5, 1:4], mask[2, 2] = 0, 1  # a border to be ignored, one defect pixel
        write_image(path, mask)
    assert main(command) == 2
    assert "is 255 a defect or ignored? say prepare_data.py --ignore 255, or --mask_values 1,255" in (
        capsys.readouterr().err
    )
    assert main([*command, "--ignore", "255"]) == 0
    out = capsys.readouterr().out
    assert f"{dataset / 'reading.json'}: ignore=(255,)" in out
    assert "note: masks: 4 with values 0, 1, 255: 1 is the defect, 255 ignored" in out
    assert main(command) == 0  # remembered
    assert all(read_mask(p).sum() == 1 for p in (dataset / "ground_truth" / "hole").iterdir())
    assert main([*command, "--mask_values", "white"]) == 2
    assert capsys.readouterr().err.startswith("error: mask_values: 'white' is no value; use whole numbers")


@pytest.mark.parametrize(
    "flags", [["--parts_apart"], ["--bits", "12"], ["--ignore", "200"], ["--mask_values", "255"], ["--line_width", "3"]]
)
def test_no_answer_is_kept_where_the_split_is_refused(
    flags: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    assert main([str(dataset), "--out", str(out), "--seed", "1"]) == 0
    before = out.read_bytes()
    for more, told in (
        ([], "holds another split"),
        (["--strict"], "with --strict no split is written"),
        (["--fraction", "3"], "fraction=3.0 must lie between 0 and 1"),
    ):
        assert main([str(dataset), "--out", str(out), *flags, *more]) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(dataset), "--out", str(tmp_path / "file" / "s.json"), *flags]) == 2
    assert not (dataset / "reading.json").exists()
    assert out.read_bytes() == before
    assert main([str(dataset), "--out", str(out), "--seed", "1", *flags]) == 0  # the split stands there
    (name,) = json.loads((dataset / "reading.json").read_text())
    assert f"--{name}" == flags[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bottle", "file", "s.json"]


def test_answers_that_leave_no_defect_are_not_kept(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "reading.json").write_text('{"bits": 12}')
    out = ["--out", str(tmp_path / "s.json")]
    assert main([str(dataset), *out, "--mask_values", "7"]) == 2
    said = capsys.readouterr().err
    assert "no usable defect" in said
    assert said.endswith("; nothing is kept of --mask_values: answer all that is asked at once\n")
    assert (dataset / "reading.json").read_text() == '{"bits": 12}'


def test_how_normal_images_alone_are_read_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "normal/0.png", np.ones((6, 4, 3), np.uint8))
    out = tmp_path / "s.json"
    assert main([str(tmp_path / "normal"), "--out", str(out), "--bits", "12"]) == 0
    assert f"{tmp_path / 'normal' / 'reading.json'}: bits=12" in capsys.readouterr().out
    assert not out.exists()


def test_the_answer_about_turned_images_is_kept(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for image in (dataset / "test").glob("*/*.png"):
        Image.open(image).save(image, exif=exif)
    out = str(tmp_path / "s.json")
    assert main([str(dataset), "--out", out]) == 2
    assert "say so with prepare_data.py --masks_upright" in capsys.readouterr().err
    assert not Path(out).exists()
    assert main([str(dataset), "--out", out, "--masks_upright"]) == 0
    assert json.loads((dataset / "reading.json").read_text()) == {"masks_upright": True}
    assert main([str(dataset), "--out", out]) == 0
    assert "read as drawn on the upright images" in capsys.readouterr().out


@pytest.mark.parametrize("flag", [["--masks_upright"], ["--bits", "12"], ["--mask_values", "1"], ["--ignore", "255"]])
def test_what_a_dataset_is_asked_is_not_asked_of_an_import(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--import", "coco", "--out", str(tmp_path / "new"), *flag]) == 2
    assert f"{flag[0]} is of a dataset's own masks, pictures and parts; give it once" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_inverted_masks_are_turned_over_by_their_value(dataset: Path, tmp_path: Path) -> None:
    for path in (dataset / "ground_truth" / "hole").iterdir():
        mask = np.full((6, 4 + int(path.name[0])), 255, np.uint8)
        mask[2, 2] = 0
        write_image(path, mask)
    command = [str(dataset), "--anomaly", "hole", "--out", str(tmp_path / "s.json")]
    assert main(command) == 2
    assert not (tmp_path / "s.json").exists()
    assert main([*command, "--mask_values", "0"]) == 0
    assert all(read_mask(p).sum() == 1 for p in (dataset / "ground_truth" / "hole").iterdir())


def test_one_type_only(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.json"
    assert main([str(dataset), "--anomaly", "hole", "--layout", "mvtec", "--out", str(out)]) == 0
    assert "crack" not in capsys.readouterr().out
    assert {name.split("/")[1] for name in Split.load(out).train + Split.load(out).test} == {"hole"}


def test_errors_are_one_line(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s.json"
    assert main([str(tmp_path / "none"), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: no such folder; give the dataset's folder\n"
    assert main([str(dataset / "train" / "good"), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert "good" in captured.out  # the table still shows what is there
    assert "no usable defect" in captured.err
    assert not out.exists()


def test_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_data, "run", interrupt)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"
