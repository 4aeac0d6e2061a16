"""The simulated queue against times worked out by hand."""

import numpy as np
import pytest

from benchmarks.queue_simulation import Cluster, Simulation


def test_nobody_dies_and_nothing_varies() -> None:
    assert Simulation(Cluster(1, 2.0, spread=0, load=10), 20).run().seconds == 50
    found = Simulation(Cluster(4, 2.0, spread=0, load=10, ahead=1), 20).run()
    assert (found.seconds, found.begun, found.deaths) == (20, 20, 0)


def test_a_disk_that_is_slower_than_the_workers_decides() -> None:
    found = Simulation(Cluster(8, 1.0, spread=0, write=3.0), 100).run()
    assert found.seconds == pytest.approx(1 + 300)  # the first pair, then one write after another
    assert found.disk == pytest.approx(300 / 301)


def test_a_worker_is_killed() -> None:
    """Two workers, loaded at 2 s, of one second a pair; ten pairs, one taken at a time. Both end pairs at 3 and 4; at
    4.5 the first dies, and is back and loaded at 7.5. The other ends its pairs at 5, 6, 7 and 8, the first one at 8.5,
    and the other the last at 9."""
    cluster = Cluster(2, 1.0, spread=0, back=1.0, load=2.0, ahead=1, killed=((4.5, 0),))
    found = Simulation(cluster, 10).run()
    assert (found.seconds, found.begun, found.deaths) == (9, 11, 1)


def test_a_shard_is_taken_and_lost_whole() -> None:
    """Two workers, loaded at 2 s, of one second a pair; ten pairs in shards of 4, 4 and 2. The first dies at 4.5, in
    the third pair of its shard, which the other makes from 6 to 10; back at 7.5, the first one makes the last two."""
    assert Simulation(Cluster(1, 2.0, spread=0, load=10, shard=4), 20).run().seconds == 50
    found = Simulation(Cluster(2, 1.0, spread=0, back=1.0, load=2.0, shard=4, killed=((4.5, 0),)), 10).run()
    assert (found.seconds, found.begun, found.deaths) == (10, 14, 1)  # four were begun twice
    written = Simulation(Cluster(1, 1.0, spread=0, write=0.5, shard=4), 10).run()
    assert written.seconds == pytest.approx(10 + 1)  # the last shard, of two pairs, is written when all are made


def test_deaths_cost_what_is_lost_between_them() -> None:
    """A life of mean m (exponential) that begins with `load` seconds of loading makes pairs for m exp(-load / m)
    seconds; the deaths among them, a share of exp(-load / m) of all, undo half a pair each."""
    cluster = Cluster(1, 1.0, spread=0, fails_after=100, back=5.0, load=15.0, ahead=1)
    found = [Simulation(cluster, 4000, seed).run() for seed in range(4)]
    share = np.exp(-15 / 100)
    rate = (100 - 0.5) * share / (100 + 5)
    assert np.mean([4000 / f.seconds for f in found]) == pytest.approx(rate, rel=0.03)
    lost, deaths = sum(f.begun - 4000 for f in found), sum(f.deaths for f in found)
    assert lost / deaths == pytest.approx(share, rel=0.1)
