"""The example in `examples/` runs as a script and as a notebook, which are the same, and shows pictures inline."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT

SCRIPT, NOTEBOOK = ROOT / "examples/first_pairs.py", ROOT / "examples/first_pairs.ipynb"
SMALL = "COUNT, STEPS, SIZE = 10, 3, 64"


def small(text: str) -> str:
    """The same for ten small pairs and three steps."""
    assert text.count("COUNT, STEPS, SIZE = 120, 150, 256") == 1
    return text.replace("COUNT, STEPS, SIZE = 120, 150, 256", SMALL)


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    return found


def in_script() -> list[str]:
    """The cells of the script, those of text as text."""
    found = []
    for part in re.split(r"(?m)^# %%", SCRIPT.read_text())[1:]:
        head, _, body = part.partition("\n")
        lines = body.strip("\n").splitlines()
        found.append("\n".join(re.sub("^# ?", "", line) for line in lines) if head.strip() else "\n".join(lines))
    return found


@pytest.fixture
def place(drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(drawn_root / "wood/train/good", tmp_path / "parts/normal")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_notebook_is_the_script_and_holds_no_results() -> None:
    assert ["".join(cell["source"]) for cell in cells()] == in_script()
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells() if "outputs" in cell)


def shown(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: the value of its last expression is what it shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs_and_shows_pictures_inline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    code = [small("".join(c["source"])) if n == 1 else "".join(c["source"]) for n, c in enumerate(cells())]
    results = [shown(text, names) for text, c in zip(code, cells(), strict=True) if c["cell_type"] == "code"]
    pages = [r._repr_html_() for r in results if hasattr(r, "_repr_html_")]
    assert [page.count("<img") for page in pages] == [10, 2, 4]  # pairs, one of them twice, two answers twice
    assert "<p>10 pairs</p>" in pages[0]
    assert "miou" in capsys.readouterr().out
    assert len(names["test"].answered(names["network"], 64).masks) == 2


def test_the_script_runs(place: Path) -> None:
    (place / "examples").mkdir()
    copy = place / "examples/first_pairs.py"
    copy.write_text(small(SCRIPT.read_text()))
    run = subprocess.run(
        [sys.executable, str(copy)], capture_output=True, text=True, cwd=place,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "10 pairs in samples/first" in run.stdout
    assert re.search(r"'miou': 0\.\d+", run.stdout)


def test_without_its_folder_the_script_says_so_in_one_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert "parts/normal" in run.stderr
    assert run.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_names_are_text_where_a_notebook_shows_a_pair(tmp_path: Path) -> None:
    import numpy as np

    from fast.data.images import write_image, write_mask
    from fast.segmentation.data import SegmentationSample
    from fast.segmentation.shown import Pairs

    name = "<img src=x onerror=alert(1)>"
    mask = np.zeros((40, 50), np.uint8)
    mask[5:9, 5:9] = 1
    write_image(tmp_path / f"{name}.png", np.zeros((40, 50, 3), np.uint8))
    write_mask(tmp_path / "mask.png", mask)
    pair = SegmentationSample(tmp_path / f"{name}.png", tmp_path / "mask.png", "a/<script>")
    for page in (pair._repr_html_(), Pairs([pair, pair])[:1]._repr_html_()):
        assert "<script>" not in page
        assert "<img src=x" not in page
