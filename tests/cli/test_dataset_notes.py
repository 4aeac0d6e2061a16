"""Every command that leaves bad files of a dataset out says how many, which, and how to see what is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fast.cli import bench, bench_auto, few_defects, make_masks, segment
from fast.cli.dataset_notes import tell_left_out


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
    return segment.gather(segment.parser().parse_args(argv))


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


def test_several_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    tell_left_out("my parts", ["b.png", "a.png"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: of my parts 2 bad files are left out, b.png the first; scripts/prepare_data.py 'my ")
