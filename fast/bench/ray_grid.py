"""A grid's cells as tasks of a Ray cluster."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fast.bench.grid import POLL, Cell, Grid, claimed
from fast.generators import FREE
from fast.runtime.on_ray import Machines, cause_of, go_to, machines, wants_gpu

TRIES = 2  # of a cell that fails, the second on another machine where there is one
LOSSES = 3  # workers that a cell may cost
WITHOUT_GPU = ("pictures",)  # kinds of cells that no GPU makes faster
BUSY = "busy"


def do(cell: Cell, work: Callable[[Cell], dict[str, Any]], folder: str) -> tuple[str, str]:
    """Do a cell in a worker. Returns (the machine's identity, nothing, `BUSY` where another process does it, or why it
    failed)."""
    import ray

    machine = str(ray.get_runtime_context().get_node_id())
    go_to(folder)
    with claimed(cell) as mine:
        if not mine:
            return machine, BUSY
        if cell.done:
            return machine, ""
        start = time.perf_counter()
        try:
            cell.finish(work(cell), time.perf_counter() - start)
        except Exception as error:
            return machine, Grid._why(cell, error)
    return machine, ""


def need_of(cell: Cell, found: Machines, on_gpu: bool) -> dict[str, Any]:
    """What of the cluster a cell takes: a GPU and its share of the cores for networks, else one core."""
    free = cell.kind == "pairs" and cell.key.get("method") in FREE
    if on_gpu and cell.kind not in WITHOUT_GPU and not free:
        return found.share(found.gpus, True)[1]
    return {"num_gpus": 0, "num_cpus": 1}


@dataclass
class RayGrid(Grid):
    """As `Grid`, by the workers of a cluster, all cells at once that have what they need. `ray`: the module, connected;
    `most`: cells at a time, None for as many as there is room for; `device`: of the networks."""

    ray: Any = None
    most: int | None = None
    device: str = "auto"
    _tries: Counter[Cell] = field(default_factory=Counter)
    _losses: Counter[Cell] = field(default_factory=Counter)
    _avoid: dict[Cell, str] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """As `Grid.run`. A cell whose worker died is done again, one that failed is tried once more elsewhere."""
        failed: dict[str, str] = {}
        found = machines(self.ray)
        on_gpu = wants_gpu(self.device, found)
        task, running = self.ray.remote(do), dict[Any, Cell]()
        while True:
            for cell in self._open(failed, set(running.values())):
                if self.most is not None and len(running) >= self.most:
                    break
                need = need_of(cell, found, on_gpu)
                future = task.options(**need, **self._elsewhere(cell, need), max_retries=0).remote(
                    cell, self.work, os.getcwd()
                )
                running[future] = cell
                self.say(f"[{sum(c.done for c in self.cells)}/{len(self.cells)}] {cell.kind} {cell.folder.name}")
            if not running:
                return failed
            (future,), _ = self.ray.wait(list(running))
            self._ended(future, running.pop(future), failed)

    def _open(self, failed: dict[str, str], running: set[Cell]) -> list[Cell]:
        """Cells that can be begun."""
        waiting = [c for c in self.cells if not c.done and not self._hopeless(c, failed) and c not in running]
        return [c for c in waiting if all(need.done for need in c.needs)]

    def _elsewhere(self, cell: Cell, need: dict[str, Any]) -> dict[str, Any]:
        """Away from the machine where the cell has failed, if another one has what it needs: a head often offers no
        core, and a task for it alone would wait for ever."""
        if cell not in self._avoid:
            return {}
        least = {"CPU": need["num_cpus"], "GPU": need["num_gpus"]}
        fit = [
            node["NodeID"]
            for node in self.ray.nodes()
            if node["Alive"] and all(node["Resources"].get(name, 0) >= amount for name, amount in least.items())
        ]
        if all(name == self._avoid[cell] for name in fit):
            return {}
        return {"label_selector": {"ray.io/node-id": f"!{self._avoid[cell]}"}}

    def _ended(self, future: Any, cell: Cell, failed: dict[str, str]) -> None:
        name, errors = cell.folder.name, self.ray.exceptions
        try:
            machine, why = self.ray.get(future)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            self._losses[cell] += 1
            if self._losses[cell] == LOSSES:
                failed[name] = f"its worker died {LOSSES} times ({' '.join(str(error).split())[:160]})"
            self.say(f"a worker died: {name}" + (" is given up" if name in failed else " is done again"))
            return
        except errors.RayTaskError as error:
            raise cause_of(error) from None
        if why == BUSY:  # what a killed worker has started, or another bench
            self.wait(POLL)
        elif why:
            self._tries[cell] += 1
            self._avoid[cell] = machine
            if self._tries[cell] == TRIES:
                failed[name] = why
            self.say(f"failed: {name}: {why}" + ("" if name in failed else "; it is tried once more"))
