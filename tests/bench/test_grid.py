"""Cells of a grid: each done once, whoever does it."""

import json
import multiprocessing
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fast.bench import work
from fast.bench.grid import Cell, Grid, claimed
from fast.bench.ray_grid import RayGrid
from ldm.errors import UserError


def chain(place: Path) -> list[Cell]:
    """a, then b and c of it, then d of both."""
    a = Cell("fit", "a", {"x": 1}, place)
    b, c = (Cell("pairs", name, {"x": 2}, place, (a,)) for name in "bc")
    return [a, b, c, Cell("segment", "d", {}, place, (b, c))]


def test_a_grid_does_each_cell_after_what_it_needs_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    order: list[str] = []

    def work(cell: Cell) -> dict[str, str]:
        assert all(need.done for need in cell.needs)
        order.append(cell.name)
        return {"name": cell.name}

    assert Grid(chain(tmp_path)[::-1], work, say=lambda line: None, wait=lambda s: None).run() == {}
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order[0] == "a"
    assert order[-1] == "d"
    assert [cell.result() for cell in chain(tmp_path)] == [{"name": n} for n in "abcd"]
    Grid(chain(tmp_path), work, say=lambda line: None).run()
    assert len(order) == 4


def test_a_cell_s_folder_follows_from_its_key_and_what_it_needs(tmp_path: Path) -> None:
    one, other = (Cell("fit", "a", {"x": x}, tmp_path) for x in (1, 2))
    assert one.folder == Cell("fit", "a", {"x": 1}, tmp_path, use={"device": "cpu"}).folder
    assert one.folder != other.folder
    assert Cell("pairs", "p", {}, tmp_path, (one,)).folder != Cell("pairs", "p", {}, tmp_path, (other,)).folder
    assert one.folder.name.startswith("a-")


def test_a_failed_cell_leaves_the_others_and_what_needs_it_is_not_tried(tmp_path: Path) -> None:
    tried: list[str] = []

    def work(cell: Cell) -> dict[str, str]:
        tried.append(cell.name)
        if cell.name == "b":
            raise UserError("no masks; give some")
        return {}

    cells = chain(tmp_path)
    failed = Grid(cells, work, say=lambda line: None, wait=lambda s: pytest.fail("nothing to wait for")).run()
    assert tried == ["a", "b", "c"]
    assert failed == {cells[1].folder.name: "no masks; give some", cells[3].folder.name: "what it needs has failed"}
    assert [cell.done for cell in cells] == [True, False, True, False]


def test_a_cell_that_another_process_holds_is_waited_for_and_not_done_twice(tmp_path: Path) -> None:
    cells, done, waits = chain(tmp_path), list[str](), 0

    def work(cell: Cell) -> dict[str, str]:
        done.append(cell.name)
        return {}

    with claimed(cells[0]) as mine:
        assert mine
        with claimed(cells[0]) as again:
            assert not again

        def finish(seconds: float) -> None:
            nonlocal waits
            waits += 1
            cells[0].finish({"by": "the other"}, 1.0)

        assert Grid(cells, work, say=lambda line: None, wait=finish).run() == {}
    assert waits == 1
    assert done == ["b", "c", "d"]
    assert cells[0].result() == {"by": "the other"}


def _share(place: Path) -> None:
    def work(cell: Cell) -> dict[str, str]:
        with open(place / "done.txt", "a") as file:
            file.write(f"{cell.name}\n")
        return {}

    cells = [Cell("fit", f"c{i}", {"i": i}, place) for i in range(40)]
    Grid(cells, work, say=lambda line: None, wait=lambda s: None).run()


def test_several_processes_share_a_grid(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    crew = [context.Process(target=_share, args=(tmp_path,)) for _ in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert sorted((tmp_path / "done.txt").read_text().split()) == sorted(f"c{i}" for i in range(40))


def test_a_stopped_cell_is_done_again_and_its_manifest_says_what_it_was(tmp_path: Path) -> None:
    cell = Cell("segment", "x", {"seed": 3}, tmp_path)

    def stopped(cell: Cell) -> dict[str, str]:
        (cell.folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Grid([cell], stopped, say=lambda line: None).run()
    assert not cell.done
    Grid([cell], lambda cell: {"miou": 0.5}, say=lambda line: None).run()
    manifest = json.loads((cell.folder / "cell.json").read_text())
    assert manifest["key"] == {"seed": 3}
    assert manifest["result"] == {"miou": 0.5}
    assert manifest["digest"] == cell.digest
    assert cell.seconds == manifest["seconds"]


def test_a_damaged_manifest_names_itself(tmp_path: Path) -> None:
    cell = Cell("segment", "x", {}, tmp_path)
    cell.finish({}, 0.0)
    (cell.folder / "cell.json").write_text("{")
    with pytest.raises(UserError, match=r"cell\.json is damaged"):
        cell.result()


def test_a_cell_that_failed_is_tried_on_another_machine_only_where_one_has_room_for_it(tmp_path: Path) -> None:
    def machine(name: str, cores: float) -> dict[str, Any]:
        return {"Alive": True, "NodeID": name, "Resources": {"CPU": cores} if cores else {}}

    nodes = [machine("head", 0), machine("first", 4)]
    cell = Cell("pairs", "p", {}, tmp_path)
    grid = RayGrid([cell], lambda cell: {}, ray=SimpleNamespace(nodes=lambda: nodes))
    small, large = ({"num_cpus": cores, "num_gpus": 0} for cores in (1, 2))
    assert grid._elsewhere(cell, small) == {}
    grid._avoid[cell] = "first"
    assert grid._elsewhere(cell, small) == {}
    nodes.append(machine("second", 1))
    assert grid._elsewhere(cell, small) == {"label_selector": {"ray.io/node-id": "!first"}}
    assert grid._elsewhere(cell, large) == {}


def test_a_program_hears_interrupts_that_the_bench_s_own_shell_has_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probe.py").write_text("import signal\nprint(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(work.PROGRAMS, "probe", "probe")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work.run_program(tmp_path, "probe")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "log.txt").read_text().splitlines()[-1] == "False"
