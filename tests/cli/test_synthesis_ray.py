"""Pairs and a grid by the workers of a Ray cluster on this machine: the same files as by one process."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fast.bench.grid import Cell
from fast.bench.ray_grid import RayGrid
from fast.cli import bench, pairs
from fast.cli.synthesis_ray import Crew
from fast.runtime.command import run_cli
from fast.runtime.signals import interruptible
from fast.synthesis.options import SynthesisOptions
from support.paths import ROOT
from support.synthesis import arguments, leftovers, whole_set, whole_shards

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # whatever tokens this machine has from other clusters
        from ray.cluster_utils import Cluster

        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        yield f"ray://{found.address}"
        found.shutdown()


# Read by every Python that starts with it on its path; kills the first worker that is about to complete a file.
KILLS = """
import os, signal, sys
if any("default_worker.py" in part for part in sys.orig_argv):
    replace = os.replace
    def killed(source, target, **how):
        if str(target).endswith("{ending}") and not os.path.exists("{mark}"):
            open("{mark}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **how)
    os.replace = killed
"""


@pytest.fixture
def kill_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Has the first worker killed that is about to complete a file of this name. Returns what is there afterwards."""

    def prepare(ending: str) -> Path:
        place, mark = tmp_path / "path", tmp_path / "killed"
        place.mkdir()
        (place / "sitecustomize.py").write_text(KILLS.format(ending=ending, mark=mark))
        monkeypatch.setenv("PYTHONPATH", str(place))
        return mark

    return prepare


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


def test_a_killed_worker_s_pairs_are_made_by_another(
    cluster: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    kill_at: Callable[[str], Path],
) -> None:  # fmt: skip
    assert run_cli(pairs.main, arguments(drawn_root, tiny_artifact, tmp_path / "one", "--count", "6")) == 0
    mark, out = kill_at("image/000003.png"), tmp_path / "out"
    line = arguments(drawn_root, tiny_artifact, out, "--count", "6", "--runner", cluster, "--workers", "2")
    assert run_cli(pairs.main, line) == 0
    assert mark.exists()
    assert "died; its pairs are given out again" in capsys.readouterr().out
    assert whole_set(out) == whole_set(tmp_path / "one")


def in_shards(root: Path, out: Path, *more: str) -> list[str]:
    line = ["--method", "procedural", "--data_root", str(root / "wood" / "train" / "good"), "--material", "wood"]
    return [*line, "--anomaly_name", "scratch", "--sample_name", str(out), "--count", "12", "--shards", "3", *more]


def test_a_killed_worker_s_shard_is_made_by_another_and_the_set_goes_on_anywhere(
    cluster: str, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    kill_at: Callable[[str], Path],
) -> None:  # fmt: skip
    one, out, runner = tmp_path / "one", tmp_path / "out", ("--runner", cluster, "--workers", "2")
    assert run_cli(pairs.main, in_shards(drawn_root, one)) == 0
    assert run_cli(pairs.main, in_shards(drawn_root, out, "--count", "3")) == 0  # one process begins
    mark = kill_at("pairs-000006-000008.tar")
    assert run_cli(pairs.main, in_shards(drawn_root, out, *runner)) == 0
    assert mark.exists()
    said = capsys.readouterr().out
    assert "died; its pairs are given out again" in said
    assert said.endswith(f"12 pairs in {out}\n")
    assert whole_shards(out) == whole_shards(one)
    times = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    (out / "pairs-000003-000005.jsonl").unlink()
    assert run_cli(pairs.main, in_shards(drawn_root, out)) == 0  # and one process goes on
    assert whole_shards(out) == whole_shards(one)
    again = {p.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert again == {"pairs-000003-000005.tar"}


class Actor:
    """In the place of a worker: counts those that are started."""

    started = 0

    def options(self, **how: Any) -> "Actor":
        return self

    def remote(self, *about: Any) -> Any:
        Actor.started += 1
        return SimpleNamespace(prepare=SimpleNamespace(remote=object))


def test_a_worker_that_ray_ends_for_its_memory_is_replaced() -> None:
    from ray import exceptions

    node = {"Alive": True, "NodeID": "a", "Resources": {"CPU": 2.0}}
    ray = SimpleNamespace(exceptions=exceptions, nodes=lambda: [node], remote=lambda kind: Actor())
    crew = Crew(ray, SynthesisOptions(method="procedural", sample_name="out", workers=2))
    for error in (exceptions.OutOfMemoryError("full"), exceptions.NodeDiedError("gone")):
        crew._replace(min(crew.actors), error)
    assert (Actor.started, sorted(crew.actors)) == (4, [3, 4])
    with pytest.raises(ValueError, match="a bug"):
        crew._replace(3, ValueError("a bug"))


PROTOCOL = """
name: tiny
title: Tiny
categories: [leather]
metrics: [mIoU, Acc]
pairs: {per_type: 2, size: 64}
segmentation: {networks: [mini], seeds: [0, 1], steps: 2, batch_size: 2, size: 64}
pictures: false
entries:
  - {label: no synthesis}
  - {label: fails, method: draem, real: none, options: [method.variant=nonsense]}
"""


def test_a_grid_with_a_killed_worker_and_a_cell_that_fails(
    cluster: str, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kill_at: Callable[[str], Path]
) -> None:
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    line = ["--protocol", str(tmp_path / "tiny.yaml"), "--dataset", str(drawn_root), "--out"]
    assert run_cli(bench.main, [*line, str(tmp_path / "one")]) == 2
    mark = kill_at("cell.json")
    capsys.readouterr()
    assert run_cli(bench.main, [*line, str(tmp_path / "out"), "--runner", cluster, "--workers", "2"]) == 2
    said = capsys.readouterr()
    assert mark.exists()
    assert "a worker died: " in said.out
    assert "it is tried once more" in said.out
    assert "3 of 5 cells failed, the first, draem-" in said.err
    one, out = ((tmp_path / name / "tiny-leather" / "table.csv").read_bytes() for name in ("one", "out"))
    assert out == one


def test_a_command_on_a_cluster_keeps_its_own_answer_to_sigterm(cluster: str) -> None:
    from fast.runtime.on_ray import joined

    with interruptible():
        own = signal.getsignal(signal.SIGTERM)
        with joined(cluster.removeprefix("ray://")):
            assert signal.getsignal(signal.SIGTERM) is own


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
