"""Shards as jobs of a cluster's workers, without a cluster: the same set as one process makes, whoever dies."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fast.cli.synthesis_fill import output_of
from fast.cli.synthesis_options import parse_synthesis
from fast.cli.synthesis_ray import _work
from fast.cli.synthesis_worker import Worker
from fast.runtime.number_queue import LotQueue
from fast.synthesis.shards import ShardFolder
from support.synthesis import synthesize, whole_shards


class Actor:
    """A queue as workers see it."""

    def __init__(self, queue: LotQueue):
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._queue, name))


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    normals = root / "wood" / "train" / "good"
    line = ["--method", "cutpaste", "--data_root", str(normals), "--sample_name", str(out), "--batch_size", "1"]
    return [*line, "--count", "11", "--shards", "3", *more]


def test_a_dead_worker_s_shard_is_made_by_another(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # which a worker sets
    monkeypatch.chdir(tmp_path)
    one, out = tmp_path / "one", tmp_path / "out"
    assert synthesize(arguments(drawn_root, one)) == 0
    assert synthesize(arguments(drawn_root, out, "--count", "3")) == 0  # one process began
    options = parse_synthesis(arguments(drawn_root, out))[0]
    first, second = (Worker(options, rank, str(tmp_path), 1) for rank in (1, 2))
    settings, _ = first.prepare()
    assert second.prepare()[0] == settings
    output = output_of(options, settings, 0)
    assert isinstance(output, ShardFolder)
    numbers, done = output.share([range(11), range(1_000_000, 1_000_000)], 0, 1), output.done()
    kind, given_out = _work(output, [n for n in numbers if n not in done])
    assert (kind, given_out) == (LotQueue, [3, 6, 9])
    queue = LotQueue(given_out, 2)
    write = ShardFolder.write

    def killed(self: ShardFolder, record: dict[str, Any], *pictures: Any) -> None:
        if record["index"] == 7:  # of the second shard that it takes
            raise MemoryError
        write(self, record, *pictures)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "write", killed)
        with pytest.raises(MemoryError):
            first.run(Actor(queue))
    (out / ".pairs-000006-000008.tar.77.part").write_bytes(b"begun")
    assert [shard.numbers for shard in output.missing()] == [range(6, 9), range(9, 11)]
    assert queue.lose(1) == []
    assert queue.state() == (3, 2, 0)
    second.run(Actor(queue))
    assert queue.state() == (8, 0, 0)
    assert output.gather() == 11
    assert whole_shards(out) == whole_shards(one)
