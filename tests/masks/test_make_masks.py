"""The door that writes masks: folders by type, the same command again, bad input in one line."""

from pathlib import Path

import numpy as np
import pytest

from fast.cli import make_masks
from fast.data.images import list_images, read_image, read_mask, resize_mask, write_image, write_mask
from fast.data.layouts import open_dataset
from fast.data.split import make_split
from fast.runtime.command import run_cli


def main(argv: list[str]) -> int:
    return run_cli(make_masks.main, argv)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_given_masks_are_written_as_they_are_in_folders_by_type(drawn_root: Path, tmp_path: Path) -> None:
    masks = drawn_root / "leather" / "ground_truth"
    command = ["--source", "given", "--masks", str(masks), "--data_root", str(drawn_root / "leather")]
    assert main([*command, "--count", "12", "--out", str(tmp_path / "out")]) == 0
    made = [p for p in contents(tmp_path / "out") if p.endswith(".png")]
    assert len(made) == 12
    for kind in ("crack", "hole", "scratch", "stain"):
        real = {read_mask(p).tobytes() for p in list_images(masks / kind)}
        written = list_images(tmp_path / "out" / kind)
        assert len(written) == 3
        assert {read_mask(p).tobytes() for p in written} == real


def test_the_same_command_goes_on_and_another_is_refused(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--source", "mixed", "--data_root", str(drawn_root), "--on_object", "auto", "--out", str(out)]
    assert main([*command, "--count", "4"]) == 0
    first = contents(out)
    assert [p for p in first if p.endswith(".png")] == [f"{i:06d}.png" for i in range(4)]
    (out / "000002.png").unlink()
    sheet = tmp_path / "sheet.png"
    assert main([*command, "--count", "6", "--preview", str(sheet)]) == 0
    assert "6 masks, 3 of them new" in capsys.readouterr().out
    again = contents(out)
    assert {name: again[name] for name in first} == first
    assert read_image(sheet).shape == (8 + 256 + 18 + 8, 8 + 6 * (256 + 8), 3)
    assert main([*command, "--count", "4", "--seed", "1"]) == 2
    assert "holds other masks (differ in seed)" in capsys.readouterr().err
    assert contents(out) == again


def test_the_object_is_looked_for_untold_and_a_surface_is_said_to_be_one(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        image = np.random.default_rng(i).normal(190, 3, (96, 96, 3))
        image[30:80, 20:70] -= 140
        write_image(tmp_path / "plates" / f"{i}.png", np.clip(image, 0, 255).astype(np.uint8))
    command = ["--source", "blob", "--count", "4"]
    assert main([*command, "--data_root", str(tmp_path / "plates"), "--out", str(tmp_path / "a")]) == 0
    assert "no ground" not in capsys.readouterr().out
    for path in list_images(tmp_path / "a"):
        mask = read_mask(path)
        assert mask.any()
        assert not mask[:29].any()
    assert main([*command, "--data_root", str(drawn_root / "leather"), "--out", str(tmp_path / "b")]) == 0
    assert "there everything is the object" in capsys.readouterr().out
    assert '"on_object": "off"' not in (tmp_path / "b" / "masks.json").read_text()


def test_augmented_masks_of_a_dataset_and_sizes(drawn_root: Path, tmp_path: Path) -> None:
    command = ["--source", "augmented", "--masks", str(drawn_root), "--size", "40", "--count", "24"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["crack", "hole", "scratch", "stain"]
    made = [read_mask(p) for p in sorted((tmp_path / "out").rglob("*.png"))]
    assert len(made) == 24
    assert all(m.shape == (40, 40) and m.any() for m in made)
    real = {resize_mask(read_mask(p), 40).tobytes() for p in drawn_root.rglob("ground_truth/*/*.png")}
    assert sum(m.tobytes() in real for m in made) < 3


def test_masks_of_pictures_held_out_are_not_used(drawn_root: Path, tmp_path: Path) -> None:
    index = open_dataset(drawn_root)
    train, test = make_split(index).apply(index)
    real = [{read_mask(s.mask).tobytes() for s in side if s.mask} for side in (train, test)]
    for split, seen in (("third", real[0]), ("all", real[0] | real[1])):
        command = ["--source", "given", "--masks", str(drawn_root), "--split", split, "--size", "64"]
        assert main([*command, "--count", str(len(index.defects)), "--out", str(tmp_path / split)]) == 0
        assert {read_mask(p).tobytes() for p in (tmp_path / split).rglob("*.png")} == seen


def test_a_split_keeps_masks_of_a_folder_aside_too(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = open_dataset(drawn_root / "leather")
    make_split(index).save(tmp_path / "s.json")
    train, test = make_split(index).apply(index)
    cracks = [{read_mask(s.mask).tobytes() for s in side if s.mask and s.anomaly == "crack"} for side in (train, test)]
    folder = drawn_root / "leather/ground_truth/crack"
    command = ["--source", "given", "--masks", str(folder), "--size", "64", "--count", "3"]
    for split, seen in ((str(tmp_path / "s.json"), cracks[0]), ("third", cracks[0]), ("all", cracks[0] | cracks[1])):
        out = tmp_path / Path(split).stem
        assert main([*command, "--split", split, "--out", str(out)]) == 0
        assert {read_mask(p).tobytes() for p in out.rglob("*.png")} == seen
        told = f"note: {len(cracks[1])} of 3 masks in {folder} are of defects that are tested on"
        assert (told in capsys.readouterr().out) is (split != "all")
    assert main([*command, "--out", str(tmp_path / "untold")]) == 0
    assert f"{folder} holds the masks of {drawn_root / 'leather'}" in capsys.readouterr().out
    assert {read_mask(p).tobytes() for p in (tmp_path / "untold").rglob("*.png")} == cracks[0] | cracks[1]


def test_bad_input_is_one_line(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, taken = tmp_path / "out", tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    file, no = tmp_path / "file.png", str(tmp_path / "no")
    write_image(file, np.zeros((4, 4, 3), np.uint8))
    alone = tmp_path / "alone"
    write_mask(alone / "0.png", np.eye(16, dtype=np.uint8))
    normals = ["--data_root", str(drawn_root)]
    for given, said in [
        (["--out", str(out)], "neither --data_root nor --size"),
        (["--out", str(out), "--size", "4"], "--size is 4"),
        (["--out", str(out), "--size", "64", "--count", "0"], "--count is 0"),
        (["--out", str(out), "--size", "64", "--seed", "-1"], "--seed is -1"),
        (["--out", str(out), "--size", "64", "--on_object", "auto"], "--on_object auto needs --data_root"),
        (["--out", str(out), "--source", "given", *normals], "--source given needs --masks"),
        (["--out", str(out), "--source", "star", *normals], "invalid choice: 'star'"),
        (["--out", str(out), "--on_object", "bright", *normals], "rule 'bright' is unknown"),
        (["--out", str(out), "--on_object", str(tmp_path / "no.png"), *normals], "no such region file"),
        (["--out", str(out), "--source", "given", "--masks", no, *normals], f"error: --masks {no} is not a folder"),
        (
            ["--out", str(out), "--source", "given", "--masks", str(drawn_root), "--split", "no.json", *normals],
            "no.json",
        ),
        (["--out", str(out), "--data_root", str(tmp_path / "no")], "is not a folder"),
        (["--out", str(out), "--source", "crack", "--masks", no, *normals], "--masks is for --source given and aug"),
        (["--out", str(out), "--source", "perlin", "--split", "third", *normals], "--split is for --source given"),
        (
            ["--out", str(out), "--source", "given", "--masks", str(alone), "--split", "third", *normals],
            "none's folder of masks",
        ),
        (["--out", str(out), "--preview", str(tmp_path / "p.xyz"), *normals], "cannot write '.xyz'"),
        (["--out", str(out), "--preview", str(out / "sheet.png"), *normals], "would pass for a mask"),
        (["--out", str(taken), *normals], "holds other files"),
        (["--out", str(file), *normals], "is a file"),
    ]:
        assert main(given) == 2, given
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not out.exists()
    assert [p.name for p in taken.iterdir()] == ["notes.txt"]
