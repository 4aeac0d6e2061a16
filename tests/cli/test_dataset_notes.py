"""Every command that leaves bad files of a dataset out says how many, which, and how to see what is wrong."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast.cli import bench, bench_auto, few_defects, make_masks, segment, segment_data
from fast.cli.dataset_notes import tell_leak, tell_left_out
from fast.cli.synthesis_notes import tell_sources
from fast.data.layouts import open_dataset
from fast.data.module import DefectData
from fast.data.split import make_split
from fast.synthesis.sources import NormalSource, Sources


def with_a_bad_file(drawn_root: Path, tmp_path: Path) -> Path:
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    defects = sorted((root / "leather" / "test").glob("[!g]*/*.png"))
    defects[0].write_bytes(b"no picture")
    return root


def masks(root: Path, out: Path) -> object:
    argv = ["--source", "given", "--masks", str(root), "--split", "all", "--size", "32", "--count", "1"]
    return make_masks.run(make_masks.parser().parse_args([*argv, "--out", str(out)]))


def few(root: Path, out: Path) -> object:
    return few_defects.opened(few_defects.parser().parse_args(["--dataset", str(root), "--out", str(out)]))


def auto(root: Path, out: Path) -> object:
    argv = ["--dataset", str(root), "--auto", "--category", "leather", "--out", str(out)]
    return bench_auto.opened(bench.parser().parse_args(argv))


def network(root: Path, out: Path) -> object:
    argv = ["--train", str(root), "--test", str(root), "--out", str(out / "r.json")]
    return segment_data.gather(segment.parser().parse_args(argv))


def sweep(root: Path, out: Path) -> object:
    return bench.main(["--dataset", str(root), "--category", "leather", "--plan", "--out", str(out)])


@pytest.mark.parametrize("command", [masks, few, auto, network, sweep])
def test_bad_files_are_told(
    command: Callable[[Path, Path], object], drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(drawn_root, tmp_path / "good")
    assert "left out" not in capsys.readouterr().out
    root = with_a_bad_file(drawn_root, tmp_path)
    (bad,) = (p for p in (root / "leather" / "test").rglob("*.png") if p.read_bytes() == b"no picture")
    command(root, tmp_path / "bad")
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    name = bad.relative_to(root).as_posix()
    assert said == [
        f"note: of {root} 1 bad file is left out, {name}; scripts/prepare_data.py {root} lists what is wrong"
    ]


def as_deep(root: Path, first: str) -> Path:
    """The category with 16-bit images of 12 bits, but the one whose name within it is `first`: of 10."""
    for file in sorted((root / "leather").rglob("*.png")):
        if "ground_truth" not in file.parts:
            values = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 4
            values[0, 0] = 1023 if file.relative_to(root / "leather").as_posix() == first else 4095
            Image.fromarray(values).save(file)
    shutil.rmtree(root / "wood")
    return root


@pytest.mark.parametrize("command", [masks, few, auto, network, sweep])
def test_doubts_are_told(
    command: Callable[[Path, Path], object], drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    first = sorted(p for p in (root / "leather" / "test").glob("[!g]*/*.png"))[0]
    as_deep(root, first.relative_to(root / "leather").as_posix())
    command(root, tmp_path / "out")
    said = [line for line in capsys.readouterr().out.splitlines() if "--bits" in line]
    assert len(said) == len(set(said)) == 1
    assert said[0].startswith(
        f"note: in {root} 16-bit pictures of leather are by their values 1 of 10 bits (leather/test/"
    )
    assert said[0].endswith("say its depth with prepare_data.py --bits 12, or brightness differs")


def test_training_tells_doubts(drawn_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    as_deep(root, "train/good/000.png")
    assert not [line for line in DefectData(str(root), use="defects").describe() if "--bits" in line]
    (line,) = [line for line in DefectData(str(root), use="both").describe() if "--bits" in line]
    assert line.startswith("  note: 16-bit pictures of leather are by their values")


def test_synthesis_tells_that_depths_of_normal_images_differ(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    normals = [NormalSource(path) for path in sorted((root / "leather" / "train").rglob("*.png"))]
    tell_sources(Sources(normals, [], ["leather/hole"], [0]))
    assert "--bits" not in capsys.readouterr().out
    as_deep(root, normals[1].path.relative_to(root / "leather").as_posix())
    tell_sources(Sources(normals, [], ["leather/hole"], [0]))
    told = f"note: by their values normal images are of 10 bits ({normals[1].path}) and 12 bits ({normals[0].path}); "
    assert told in capsys.readouterr().out


def test_depths_are_looked_for_among_other_images_and_all_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two 16-bit images, of 12 and 16 bits, among many of 8 bits, a file that is broken and one that is gone."""
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    paths = [tmp_path / f"{i:03d}.{('png', 'jpg', 'bmp')[i % 3]}" for i in range(120)]
    for path in paths:
        Image.fromarray(grey).save(path)
    paths[0].write_bytes(b"no picture")
    paths[1].unlink()
    sources = Sources([NormalSource(p) for p in paths], [], ["/hole"], [0])
    tell_sources(sources)
    assert "--bits" not in capsys.readouterr().out
    for path, top in ((paths[90], 4000), (paths[117], 65000)):
        Image.fromarray(grey.astype(np.uint16) * (top // 63)).save(path)
    tell_sources(sources)
    told = f"note: by their values normal images are of 12 bits ({paths[90]}) and 16 bits ({paths[117]}); if one camera"
    assert told in capsys.readouterr().out
    for path in paths[:90]:  # more than are decoded, those that differ at the end
        Image.fromarray(grey.astype(np.uint16) * 1000).save(path.with_suffix(".png"))
    many = [NormalSource(p.with_suffix(".png")) for p in paths[:90]] + [NormalSource(paths[90])] * 5
    tell_sources(Sources(many, [], ["/hole"], [0]))
    assert f"are of 12 bits ({paths[90]}) and 16 bits (" in capsys.readouterr().out


@pytest.mark.parametrize("command", [masks, few, auto, network, sweep])
def test_masks_that_fit_with_and_without_a_turn_are_told(
    command: Callable[[Path, Path], object], drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    exif = Image.Exif()
    exif[0x0112] = 6
    images = sorted((root / "leather" / "test").glob("[!g]*/*.png"))[:1]
    for image in images:
        Image.open(image).save(image, exif=exif)
    command(root, tmp_path / "out")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert said.startswith(f"note: of {root} 1 bad file is left out, leather/ground_truth/")


def test_several_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    tell_left_out("my parts", ["b.png", "a.png"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: of my parts 2 bad files are left out, b.png the first; scripts/prepare_data.py 'my ")


@pytest.fixture
def leaking(drawn_root: Path, tmp_path: Path) -> Path:
    """The drawn set where a picture to test on is that of a defect to train on, saved anew under a name of its own."""
    root = tmp_path / "set"
    shutil.copytree(drawn_root, root)
    shutil.rmtree(root / "wood")
    train, test = make_split(open_dataset(root)).apply(open_dataset(root))
    save_anew(train[0].image, test[0].image)
    return root


def save_anew(image: Path, target: Path, level: int = 1) -> None:
    """The same pixels in other bytes: copies of a file are one part without a word of anybody."""
    Image.open(image).save(target, compress_level=level)
    assert image.read_bytes() != target.read_bytes()


def inside(root: Path, out: Path) -> object:
    argv = ["--dataset", str(root), "--out", str(out), "--nested", "2"]
    return few_defects.opened(few_defects.parser().parse_args(argv))


@pytest.mark.parametrize("command", [few, auto, network, sweep])
def test_parts_that_are_trained_and_tested_on_are_told(
    command: Callable[[Path, Path], object], leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = make_split(open_dataset(leaking)).apply(open_dataset(leaking))
    command(leaking, tmp_path / "out")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "trained on, too" in line]
    assert said.startswith(
        f"note: in {leaking} 1 of {len(test)} pictures to test on shows a part that is trained on, too"
    )
    for sample in (train[0], test[0]):
        assert sample.image.relative_to(leaking).as_posix() in said
    assert said.endswith(f"--parts_apart says that they differ (of scripts/prepare_data.py {leaking})")


def test_parts_that_splits_inside_may_divide_are_told(
    leaking: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside(leaking, tmp_path / "out")  # the copy lies on the test side, of which nothing is looked at
    assert "look like" not in (said := capsys.readouterr().out)
    assert "trained on, too" not in said
    train, _ = make_split(open_dataset(leaking)).apply(open_dataset(leaking))
    save_anew(train[0].image, train[1].image, level=2)
    for command in (inside, auto):
        command(leaking, tmp_path / "out")
        (said,) = [line for line in capsys.readouterr().out.splitlines() if "look like" in line]
        assert said.startswith(f"note: in {leaking} 2 parts look like another of them (")


def test_another_set_to_train_on_is_not_tested(
    leaking: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--train",
        str(leaking),
        "--test",
        str(drawn_root),
        "--category",
        "leather",
        "--out",
        str(tmp_path / "r.json"),
    ]
    segment_data.gather(segment.parser().parse_args(argv))
    assert "trained on, too" not in capsys.readouterr().out


def test_a_part_on_both_sides_of_a_split_file_is_told(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = make_split(open_dataset(drawn_root)).apply(open_dataset(drawn_root))
    tell_leak(drawn_root, train, test)
    assert not capsys.readouterr().out
    tell_leak(drawn_root, [replace(train[0], group=test[0].group), *train[1:]], test)
    said = capsys.readouterr().out
    assert f"1 of {len(test)} pictures to test on shows a part" in said
    assert "is listed as a part of" in said
    assert said.endswith(f"; make a new split with scripts/prepare_data.py {drawn_root}\n")
