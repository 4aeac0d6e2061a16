"""Pairs and a grid by the workers of a Ray cluster on this machine: the same files as by one process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fast.bench.grid import Cell
from fast.bench.ray_grid import RayGrid
from fast.cli import pairs
from fast.runtime.command import run_cli
from support.paths import ROOT
from support.synthesis import arguments, leftovers, whole_set

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two cores."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield f"ray://{found.address}"
    found.shutdown()


def test_two_workers_make_the_same_set_and_go_on_with_it(
    cluster: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(pairs.main, arguments(drawn_root, tiny_artifact, tmp_path / "one", "--count", "7")) == 0
    out, runner = tmp_path / "out", ("--runner", cluster, "--workers", "2")
    assert run_cli(pairs.main, arguments(drawn_root, tiny_artifact, out, "--count", "3", *runner)) == 0
    times = {p: p.stat().st_mtime_ns for p in (out / "image").iterdir()}
    assert run_cli(pairs.main, arguments(drawn_root, tiny_artifact, out, "--count", "7", *runner)) == 0
    assert whole_set(out) == whole_set(tmp_path / "one")
    assert leftovers(out) == []
    assert len(times) == 3
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())
    assert capsys.readouterr().out.endswith(f"7 pairs in {out}\n")


def test_bad_input_is_one_line_and_leaves_nothing(
    cluster: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(drawn_root, tiny_artifact, tmp_path / "out", "--runner", cluster, "--data_root", str(tmp_path))
    assert run_cli(pairs.main, line) == 2
    told = capsys.readouterr().err
    assert "holds no normal image" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def once(cell: Cell) -> dict[str, Any]:
    """Dies, or fails, the first time."""
    mark = cell.folder / "tried"
    if cell.key["how"] and not mark.exists():
        mark.touch()
        if cell.key["how"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("a full GPU")
    if cell.name == "never":
        raise ValueError("always")
    assert all(need.done for need in cell.needs)
    return {"name": cell.name}


def test_a_grid_s_cells_outlive_their_workers(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fast.runtime.on_ray import joined

    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))  # workers import this module, for `once`
    first = Cell("fit", "first", {"how": "die"}, tmp_path)
    after = [Cell("pairs", f"after{how}", {"how": how}, tmp_path, (first,)) for how in ("", "fail", "die")]
    never = Cell("fit", "never", {"how": "fail"}, tmp_path)
    cells, said = [first, *after, never, Cell("segment", "last", {"how": ""}, tmp_path, (never,))], list[str]()
    with joined(cluster.removeprefix("ray://")) as ray:
        failed = RayGrid(cells, once, said.append, ray=ray, device="cpu").run()
    assert [cell.result()["name"] for cell in cells[:4]] == ["first", "after", "afterfail", "afterdie"]
    assert {name.rpartition("-")[0] for name in failed} == {"never", "last"}
    assert sum("is done again" in line for line in said) == 2
    assert "always" in failed[never.folder.name]
