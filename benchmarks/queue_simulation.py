"""How long pairs take on many workers that fail: a discrete simulation of the queue that `--runner ray` works with.

python -m benchmarks.queue_simulation --pairs 1000000 --workers 1 8 64 --seconds 0.5 --load 60 --fails_after 168

Workers load the model, take numbers from the queue itself (`fast.runtime.number_queue`), make one pair after another,
and die after times that are exponentially distributed; what a dead one held is given out again, and after `--back`
seconds another takes its place. The disk that all share is one server that writes one pair after another. With
`--shards N` a worker takes a shard of N pairs at a time, as in synthesis with `--shards`; it counts once it is whole.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fast.runtime.command import run_cli
from fast.runtime.number_queue import NumberQueue
from fast.runtime.options import Parser
from fast.runtime.tables import plain
from ldm.errors import UserError

Event = Literal["ready", "made", "dead"]
ANY = -1  # whichever life of a worker


@dataclass(frozen=True)
class Cluster:
    """Seconds throughout. `seconds`: a worker's for one pair, with a coefficient of variation `spread` (log-normal);
    `write`: the shared disk's for one pair; `load`: until a new worker makes pairs; `fails_after`: mean time until one
    dies, inf for never; `back`: from a death until the next begins to load; `ahead`: numbers that a worker takes at
    once. `killed`: (time, worker) of deaths that are given, in the place of drawn ones. `shard`: pairs that are taken
    together and lost together, one such shard at a time; None: pairs by themselves."""

    workers: int
    seconds: float
    spread: float = 0.2
    write: float = 0.0
    load: float = 0.0
    fails_after: float = np.inf
    back: float = 0.0
    ahead: int = 8
    killed: tuple[tuple[float, int], ...] = ()
    shard: int | None = None


@dataclass
class Outcome:
    """`seconds`: until the last pair was on the disk; `begun`: pairs that were begun, those that a death undid among
    them; `deaths`: of workers; `disk`: share of the time in which the disk wrote."""

    seconds: float = 0.0
    begun: int = 0
    deaths: int = 0
    disk: float = 0.0


@dataclass
class Simulation:
    """One run. Events lie in a heap by time; each worker's life has a number, so that what was planned for a dead one
    is passed over."""

    cluster: Cluster
    pairs: int
    seed: int = 0
    outcome: Outcome = field(default_factory=Outcome)

    def run(self) -> Outcome:
        """Until every pair is written."""
        cluster = self.cluster
        self._rng = np.random.default_rng(self.seed)
        size = cluster.shard or 1
        self._sizes = [min(size, self.pairs - start) for start in range(0, self.pairs, size)]  # of shards, or of pairs
        self._queue = NumberQueue(range(len(self._sizes)), cluster.workers)
        self._events: list[tuple[float, int, Event, int, int]] = []
        self._order = self._written = 0
        self._life = [0] * cluster.workers
        self._hands: list[deque[int]] = [deque() for _ in range(cluster.workers)]
        self._idle: set[int] = set()
        self._disk_free = busy = 0.0
        for worker in range(cluster.workers):
            self._at(cluster.load, "ready", worker)
            self._plan_death(0.0, worker)
        for time, worker in cluster.killed:
            heapq.heappush(self._events, (time, -1, "dead", worker, ANY))
        while self._written < self.pairs:
            now, _, event, worker, life = heapq.heappop(self._events)
            if life not in (ANY, self._life[worker]):
                continue
            if event == "dead":
                self._die(now, worker)
                continue
            if event == "made":
                number = self._hands[worker].popleft()
                self._queue.finish(worker, [number])
                writing = self._sizes[number] * cluster.write
                self._disk_free = max(now, self._disk_free) + writing
                busy += writing
                self._written += self._sizes[number]
                self.outcome.seconds = max(now, self._disk_free)
            self._next(now, worker)
        self.outcome.disk = busy / self.outcome.seconds
        return self.outcome

    def _at(self, time: float, event: Event, worker: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, event, worker, self._life[worker]))

    def _plan_death(self, now: float, worker: int) -> None:
        if np.isfinite(self.cluster.fails_after):
            self._at(now + self._rng.exponential(self.cluster.fails_after), "dead", worker)

    def _next(self, now: float, worker: int) -> None:
        """The worker begins its next pair or shard; a disk that is behind makes it wait."""
        hand = self._hands[worker]
        hand.extend([] if hand else self._queue.take(worker, 1 if self.cluster.shard else self.cluster.ahead))
        if not hand:
            self._idle.add(worker)
            return
        size = self._sizes[hand[0]]
        self.outcome.begun += size
        start = max(now, self._disk_free - 4 * self.cluster.write)  # as many pairs may wait to be written
        self._at(start + self._duration(size), "made", worker)

    def _duration(self, size: int) -> float:
        """Of so many pairs, one after another: their means add up, and their variances."""
        mean, spread = size * self.cluster.seconds, self.cluster.spread / np.sqrt(size)
        sigma = np.sqrt(np.log1p(spread**2))
        return float(mean * self._rng.lognormal(-(sigma**2) / 2, sigma)) if spread else mean

    def _die(self, now: float, worker: int) -> None:
        self.outcome.deaths += 1
        self._life[worker] += 1
        self._queue.lose(worker)
        self._hands[worker].clear()
        self._idle.discard(worker)
        self._at(now + self.cluster.back + self.cluster.load, "ready", worker)
        self._plan_death(now + self.cluster.back, worker)
        for other in sorted(self._idle):  # there is something to do again
            self._idle.discard(other)
            self._next(now, other)


def parser() -> argparse.ArgumentParser:
    # fmt: off
    p = Parser(prog="benchmarks/queue_simulation.py", allow_abbrev=False, description="Time on many workers that fail.")
    p.add_argument("--pairs", type=int, default=1_000_000, help="default 1000000")
    p.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64], help="default 1 8 64")
    p.add_argument("--seconds", type=float, required=True, help="of one worker for a pair")
    p.add_argument("--spread", type=float, default=0.2, help="standard deviation over mean of these (default 0.2)")
    p.add_argument("--write", type=float, default=0.0, help="seconds of the shared disk for a pair (default 0)")
    p.add_argument("--load", type=float, default=60.0, help="seconds until a worker makes pairs (default 60)")
    p.add_argument("--fails_after", type=float, default=np.inf, help="mean hours until a worker dies (default: never)")
    p.add_argument("--back", type=float, default=60.0, help="seconds until a dead one is replaced (default 60)")
    p.add_argument("--ahead", type=int, default=8, help="pairs that a worker takes at once (default 8)")
    p.add_argument("--shards", type=int, metavar="N", help="pairs of a shard, which a worker takes and loses whole")
    p.add_argument("--kill", type=float, nargs="*", default=[], help="seconds at which worker 0 is killed")
    p.add_argument("--seed", type=int, default=0)
    # fmt: on
    return p


def main(argv: list[str]) -> None:
    o = parser().parse_args(argv)
    if o.shards is not None and o.shards < 1:
        raise UserError(f"--shards {o.shards} must be at least 1")
    rows = []
    for workers in o.workers:
        killed = tuple((time, 0) for time in o.kill)
        cluster = Cluster(
            workers, o.seconds, o.spread, o.write, o.load, o.fails_after * 3600, o.back, o.ahead, killed,
            o.shards,
        )  # fmt: skip
        found = Simulation(cluster, o.pairs, o.seed).run()
        ideal = o.pairs * o.seconds / workers
        rows.append([
            str(workers), f"{found.seconds:.1f}", f"{o.pairs / found.seconds:.3g}", f"{ideal / found.seconds:.1%}",
            str(found.deaths), str(found.begun - o.pairs), f"{found.disk:.0%}",
        ])  # fmt: skip
    head = ["workers", "seconds", "pairs/s", "of ideal", "deaths", "pairs begun twice", "disk busy"]
    print(plain(head, rows, 0))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
