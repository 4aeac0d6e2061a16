"""The page without a browser: what its parts answer, whom it serves, and which files it hands out."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from fast.cli import studio as command
from fast.data.images import write_image
from fast.review.decisions import Review
from fast.runtime.command import run_cli
from fast.studio.make_tab import painted
from fast.studio.review_tab import ALL, ReviewTab
from fast.studio.said import guarded, line, wrong
from fast.studio.workbench import Workbench
from ldm.errors import UserError
from support.studio import studio
from support.synthesis import synthesize

NASTY = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def pairs(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studio") / "out"
    argv = ["--method", "procedural", "--data_root", str(drawn_root / "wood/train/good"), "--sample_name", str(out)]
    assert synthesize([*argv, "--anomaly_name", "scratch,hole", "--count", "3"]) == 0
    return out


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_is_said_is_escaped() -> None:
    assert line("<b>") == '<div class="said">&lt;b&gt;</div>'
    assert "<img" not in wrong(NASTY)

    def work(value: str) -> tuple[str, int]:
        raise UserError(f"{value}: no picture")

    told, rest = guarded(work, 2)(NASTY)
    assert "&lt;img src=x onerror=alert(1)&gt;.png: no picture" in told
    assert "__type__" in rest  # the other part of the page stays as it is


def test_a_mask_is_what_was_painted_on_the_layers() -> None:
    layer = np.zeros((10, 20, 4), np.uint8)
    assert painted(None, (10, 20)) is None
    assert painted({"layers": [layer, None]}, (10, 20)) is None
    layer[2, 3] = (255, 45, 110, 255)
    other = np.zeros_like(layer)
    other[5, 6] = (255, 45, 110, 200)
    found = painted({"layers": [layer, other]}, (20, 40))
    assert found is not None
    assert np.argwhere(found).tolist() == [[r, c] for r in (4, 5) for c in (6, 7)] + [
        [r, c] for r in (10, 11) for c in (12, 13)
    ]


def test_the_page_serves_its_own_pictures_and_no_other_file(drawn_root: Path, pairs: Path, tmp_path: Path) -> None:
    bench = Workbench(str(drawn_root / "wood/train/good"))
    with studio(bench, pairs, tmp_path / "kept") as url:
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}config") as answer:
            config = json.loads(answer.read())
        assert config["analytics_enabled"] is False
        assert not config.get("run_history")
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        assert "fonts.googleapis.com" not in page
        for secret in (pairs / "manifest.jsonl", drawn_root / "drawn.json", Path("/etc/passwd"), Path(__file__)):
            assert get(f"{url}gradio_api/file={secret}") == 403, secret
        assert get(f"{url}gradio_api/file={pairs / 'image'}/../manifest.jsonl") in (403, 404)
    assert not (tmp_path / "kept").exists()  # nobody kept anything


def test_decisions_go_to_disk_at_once_and_are_shown(drawn_root: Path, pairs: Path, tmp_path: Path) -> None:
    import gradio as gr

    asked: list[Path] = []
    with gr.Blocks():
        tab = ReviewTab({"run": pairs, "kept": tmp_path / "kept"}, lambda p: asked.append(p) or 1)
    filters = ("run", ALL, ALL, "number", False, 1)
    told, grid, _, _ = tab.show(*filters)
    assert "3 of 3 pairs shown: 0 accepted" in told
    assert grid.count("<figure") == 3
    told, grid, _, _ = tab._decider("rejected")({"chosen": [0, 2, 77]}, " not visible ", *filters)
    assert "2 rejected" in told
    assert grid.count("card rejected") == 2
    assert {i: d.reason for i, d in Review(pairs).decisions().items()} == {0: "not visible", 2: "not visible"}
    assert "1 of 3" in tab.show("run", ALL, "undecided", "number", False, 1)[0]
    assert "Taken back: 2 decisions" in tab._undo(*filters)[0]
    assert Review(pairs).decisions() == {}
    with pytest.raises(UserError, match="no decision to take back"):
        tab._undo(*filters)
    with pytest.raises(UserError, match="choose pairs first"):
        tab._decider("accepted")({"chosen": [], "focus": None}, None, *filters)
    assert "1 pair made anew" in tab._again(*filters)[0]
    assert asked == [pairs]
    assert "holds no pair yet" in tab.show("kept", ALL, ALL, "number", False, 1)[0]


def test_an_export_is_a_name_beside_the_folder_and_no_path(pairs: Path) -> None:
    import gradio as gr

    with gr.Blocks():
        tab = ReviewTab({"run": pairs}, lambda p: 0)
    tab._decider("accepted")({"chosen": [1]}, None, "run", ALL, ALL, "number", False, 1)
    for name in ("../x", "/tmp/x", "", ".hidden", "a/b"):
        with pytest.raises(UserError, match="is no name for a folder"):
            tab._export("run", name)
    with pytest.raises(UserError, match="none of those that the page was started with"):
        tab._export("/etc", "x")
    assert "1 accepted pairs exported" in tab._export("run", "good ones")
    assert sorted(p.name for p in (pairs.parent / "good ones/image").iterdir()) == ["000001.png"]
    Review(pairs).undo()


def test_bad_input_ends_in_one_line(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    normals = str(drawn_root / "wood/train/good")
    for argv, says in (
        (["--data_root", str(tmp_path / "none")], "is not a folder"),
        (["--data_root", normals, "--pairs", str(tmp_path)], "has no manifest.jsonl"),
        (["--data_root", normals, "--port", "99999"], "--port 99999 is none"),
        (["--data_root", normals, "--pt_path", str(tmp_path)], "no fast-<step>"),
    ):
        assert run_cli(command.main, argv) == 2
        assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from socket import socket

    with socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        argv = ["--data_root", str(drawn_root / "wood/train/good"), "--port", str(s.getsockname()[1])]
        assert run_cli(command.main, [*argv, "--kept", str(tmp_path / "kept")]) == 2
    assert "cannot be opened" in capsys.readouterr().err


def test_a_normal_image_may_be_called_anything(drawn_root: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "normal" / NASTY, np.zeros((32, 32, 3), np.uint8))
    assert Workbench(str(tmp_path / "normal")).names == [NASTY]
