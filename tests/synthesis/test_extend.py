"""Sets whose files move or grow: a pair depends on content and settings, and what is made stays."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import PairImages
from ldm.errors import UserError
from support.paths import ROOT
from support.synthesis import manifest, synthesize


def flags(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["--method", "cutpaste", "--data_root", str(folder), "--sample_name", str(out), "--count", "12"]
    return [*given, *more]


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for kind in ("image", "mask") for p in (out / kind).iterdir()}


@pytest.fixture
def normals(drawn_root: Path, tmp_path: Path) -> Path:
    """Six normal images of two materials."""
    folder = tmp_path / "normals"
    folder.mkdir()
    for material in ("wood", "leather"):
        for file in (drawn_root / material / "train/good").iterdir():
            shutil.copy(file, folder / f"{material}-{file.name}")
    return folder


def test_pairs_without_a_removed_normal_are_byte_equal(normals: Path, tmp_path: Path) -> None:
    assert synthesize(flags(normals, tmp_path / "all")) == 0
    gone = manifest(tmp_path / "all")[3]["normal_source"]
    Path(gone).unlink()
    assert synthesize(flags(normals, tmp_path / "less")) == 0
    before, after = files(tmp_path / "all"), files(tmp_path / "less")
    used = {row["index"] for row in manifest(tmp_path / "all") if row["normal_source"] == gone}
    assert 0 < len(used) < 6
    changed = {int(Path(name).stem) for name in before if before[name] != after[name]}
    assert changed == used


def test_a_set_grows_with_its_normals(normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.png"
    shutil.move(next(iter(sorted(normals.iterdir()))), kept)
    out = tmp_path / "out"
    assert synthesize(flags(normals, out)) == 0
    before = files(out)
    shutil.move(kept, normals / "new.png")
    assert synthesize(flags(normals, out, "--count", "40")) == 2
    assert "differs in normals); give a new folder, or add --extend" in capsys.readouterr().err
    assert synthesize(flags(normals, out, "--count", "40", "--extend")) == 0
    after = files(out)
    assert {k: after[k] for k in before} == before
    assert len(manifest(out)) == 40
    assert any(Path(row["normal_source"]).name == "new.png" for row in manifest(out)[12:])
    assert synthesize(flags(normals, out, "--count", "41")) == 0  # the grown set is now the run
    (normals / "new.png").unlink()
    capsys.readouterr()
    assert synthesize(flags(normals, out, "--count", "42", "--extend")) == 2
    assert "give the same settings to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "now", "fits"),
    [
        ({"normals": ["a"]}, {"normals": ["a", "b"]}, True),
        ({"normals": ["a", "a"]}, {"normals": ["a", "b"]}, False),
        ({"masks": ["a"], "normals": ["n"]}, {"masks": ["b", "a"], "normals": ["n"]}, True),
        ({"normals": ["a"], "seed": 0}, {"normals": ["a", "b"], "seed": 1}, False),
        ({"normals": "a"}, {"normals": ["a"]}, False),
    ],
)
def test_what_may_grow(tmp_path: Path, before: dict[str, Any], now: dict[str, Any], fits: bool) -> None:
    import numpy as np

    picture = np.zeros((8, 8, 3), np.uint8)
    output = OutputFolder(tmp_path, before)
    output.write({"index": 0}, PairImages(picture, picture, picture[..., 0]))
    output.close()
    if fits:
        OutputFolder(tmp_path, now, extend=True).close()
        OutputFolder(tmp_path, now).close()
    else:
        with pytest.raises(UserError, match="holds another run"):
            OutputFolder(tmp_path, now, extend=True)


def test_the_place_of_a_folder_decides_nothing(normals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped weights serve any words, and know some of these folders' names."""
    made = []
    for place in ("leather/x1", "zzzq/x2"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copytree(normals, folder / "normal")
        (folder / "masks/scratch").mkdir(parents=True)
        import numpy as np

        from fast.data.images import write_mask

        mask = np.zeros((64, 64), np.uint8)
        mask[20:24, 10:40] = 1
        write_mask(folder / "masks/scratch/0.png", mask)
        monkeypatch.chdir(folder)
        argv = ["--data_root", "normal", "--mask_path", "masks", "--pt_path", str(ROOT / "models/mini"), "--steps", "1"]
        argv += ["--sample_name", "out", "--count", "2", "--size", "64", "--region", "full", "--device", "cpu"]
        assert synthesize(argv) == 0
        made.append(files(folder / "out"))
        # Moved with its input, a set goes on.
        moved = tmp_path / f"moved-{place.split('/')[0]}"
        os.rename(folder, moved)
        monkeypatch.chdir(moved)
        argv[argv.index("--count") + 1] = "3"
        assert synthesize(argv) == 0
    assert made[0] == made[1]


def test_a_damaged_file_of_a_finished_set_is_found_and_its_pair_made_again(
    normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert synthesize(flags(normals, out)) == 0
    before, rows = files(out), manifest(out)
    image, mask = out / "image" / "000003.png", out / "mask" / "000007.png"
    image.write_bytes(image.read_bytes()[:-60])
    mask.write_bytes(b"")
    kept = (out / "image" / "000004.png").stat().st_mtime_ns
    capsys.readouterr()
    assert synthesize(flags(normals, out)) == 0
    said = capsys.readouterr().out
    assert f"{image} and 1 more cut off or no image: what they belong to is made again\n" in said
    assert files(out) == before
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in manifest(out)] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows
    ]
    assert (out / "image" / "000004.png").stat().st_mtime_ns == kept
    assert synthesize(flags(normals, out)) == 0
    assert "made again" not in capsys.readouterr().out


def test_a_damaged_file_among_the_rejected_is_found_too(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "out", {})
    picture, mask = np.full((8, 8, 3), 90, np.uint8), np.eye(8, dtype=np.uint8)
    for index in range(3):
        output.write({"index": index, "mask_asked": "x"}, PairImages(picture, picture, mask, asked=mask))
    output.gather()
    output.sort([{**row, **({"rejected": "worst"} if row["index"] == 1 else {})} for row in output.rows()])
    paths = [tmp_path / "out" / "rejected" / "triptych" / "000001.png", tmp_path / "out" / "mask_asked" / "000002.png"]
    for path in paths:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert output.drop_damaged([0]) == []
    assert sorted(output.drop_damaged(range(9))) == sorted(paths)
    assert output.done() == {0}
    output.close()


def test_fewer_than_are_there_is_told(normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert synthesize(flags(normals, out)) == 0
    assert "note" not in capsys.readouterr().out
    assert synthesize(flags(normals, out, "--count", "5")) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"12 pairs in {out}\nnote: 5 were asked for; the others were there before, and stay\n")
    assert len(manifest(out)) == 12
