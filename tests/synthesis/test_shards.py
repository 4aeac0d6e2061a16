"""Shards in the place of folders: the same pictures, whole or not there, by any number of processes, anywhere."""

import json
import os
import shutil
import signal
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as parquet
import pytest

from fast.synthesis.shard_form import shards_of
from fast.synthesis.shards import ShardFolder
from fast.synthesis.stores import Store
from ldm.errors import UserError
from support.synthesis import manifest, synthesize

COUNT, SIZE = 7, 3
NAMES = ["pairs-000000-000002", "pairs-000003-000005", "pairs-000006-000006"]


def arguments(root: Path, out: Any, *more: str) -> list[str]:
    return [
        *("--method", "cutpaste", "--data_root", str(root / "wood" / "train" / "good"), "--sample_name", str(out)),
        *("--count", str(COUNT), *more),
    ]


def sharded(root: Path, out: Any, *more: str) -> int:
    return synthesize(arguments(root, out, "--shards", str(SIZE), *more))


def tars(out: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(out)
    return {p.rsplit("/", 1)[-1]: fs.cat_file(p) for p in fs.ls(root, detail=False) if p.endswith(".tar")}


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def whole(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards, made at once. Read only."""
    out = tmp_path_factory.mktemp("shards") / "out"
    assert sharded(drawn_root, out) == 0
    return out


@pytest.fixture
def memory() -> Any:
    yield "memory://sets/part"
    fsspec.filesystem("memory").store.clear()


def test_a_shard_holds_what_the_folders_hold(whole: Path, drawn_root: Path, tmp_path: Path) -> None:
    assert synthesize(arguments(drawn_root, tmp_path / "folder")) == 0
    rows = {row["index"]: row for row in manifest(tmp_path / "folder")}
    found = tars(str(whole))
    assert sorted(found) == [f"{name}.tar" for name in NAMES]
    assert sorted(p.name for p in whole.iterdir() if p.suffix != ".tar" and p.suffix != ".parquet") == [
        "classes.json", *(f"{name}.jsonl" for name in NAMES), "settings.json",
    ]  # fmt: skip
    held = {name: data for tar in found.values() for name, data in members(tar).items()}
    assert len(held) == 3 * COUNT
    for i, row in rows.items():
        assert held[f"{i:06d}.image.png"] == (tmp_path / "folder" / row["image"]).read_bytes()
        assert held[f"{i:06d}.mask.png"] == (tmp_path / "folder" / row["mask"]).read_bytes()
        said = json.loads(held[f"{i:06d}.json"])
        assert (said["type"], said["label"]) == ("cutpaste", 0)
        own = {"image", "mask", "seconds"}
        assert {k: v for k, v in row.items() if k not in own} == {
            k: v for k, v in said["provenance"].items() if k not in {*own, "shard"}
        }
    lines = [json.loads(line) for name in NAMES for line in (whole / f"{name}.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(COUNT))
    assert lines[4]["shard"] == f"{NAMES[1]}.tar"
    assert json.loads((whole / "classes.json").read_text()) == {"0": "cutpaste"}


def test_two_processes_make_the_same_bytes_behind_a_url(
    whole: Path, drawn_root: Path, memory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert sharded(drawn_root, memory) == 0
    assert sorted(tars(memory)) == [f"{NAMES[1]}.tar"]
    monkeypatch.setenv("RANK", "0")
    assert sharded(drawn_root, memory) == 0
    assert tars(memory) == tars(str(whole))
    assert f"{COUNT} pairs in {memory}\n" in capsys.readouterr().out


def test_what_is_there_is_not_made_again(
    whole: Path, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written, own = tmp_path / "out", [], ShardFolder.write

    def write(self: ShardFolder, record: dict[str, Any], *pictures: Any) -> None:
        written.append(record["index"])
        own(self, record, *pictures)

    monkeypatch.setattr(ShardFolder, "write", write)
    assert sharded(drawn_root, out) == 0
    assert sorted(written) == list(range(COUNT))
    written.clear()
    assert sharded(drawn_root, out) == 0
    assert written == []
    (out / f"{NAMES[0]}.tar").unlink()
    (out / f"{NAMES[2]}.jsonl").unlink()  # killed between the shard and its records
    assert sharded(drawn_root, out) == 0
    assert sorted(written) == [0, 1, 2, 6]
    assert tars(str(out)) == tars(str(whole))


def test_a_signal_leaves_whole_shards_and_the_run_goes_on(
    whole: Path, drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, own = tmp_path / "out", ShardFolder._finish

    def finish(self: ShardFolder, filling: Any) -> None:
        own(self, filling)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "_finish", finish)
        assert sharded(drawn_root, out, "--batch_size", "1", "--count", "30") == 2
    assert 1 <= len(tars(str(out))) < 10
    pairs = sum(len(members(tar)) // 3 for tar in tars(str(out)).values())
    assert f"interrupted: {pairs} of 30 pairs are made; the same command goes on" in capsys.readouterr().err
    assert not [p for p in out.iterdir() if p.name.endswith(".part")]
    assert sharded(drawn_root, out, "--count", "30") == 0
    assert len(tars(str(out))) == 10
    for name in NAMES[:2]:
        assert tars(str(out))[f"{name}.tar"] == tars(str(whole))[f"{name}.tar"]


def test_a_larger_count_keeps_the_full_shards_and_replaces_the_last(
    whole: Path, drawn_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert sharded(drawn_root, out) == 0
    assert sharded(drawn_root, out, "--count", "8") == 0
    found, before = tars(str(out)), tars(str(whole))
    assert sorted(found) == [f"{NAMES[0]}.tar", f"{NAMES[1]}.tar", "pairs-000006-000007.tar"]
    assert [found[f"{name}.tar"] for name in NAMES[:2]] == [before[f"{name}.tar"] for name in NAMES[:2]]
    assert not (out / f"{NAMES[2]}.jsonl").exists()


def test_a_smaller_count_leaves_the_set_as_it_is(
    whole: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for count in (4, 2, 6):  # of a shard the first pair alone, of the first shard two, all full ones
        assert sharded(drawn_root, out, "--count", str(count)) == 0
        assert f"{COUNT} pairs in {out}\nnote: {count} were asked for" in capsys.readouterr().out
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    folder = ShardFolder(str(tmp_path / "other"), {"types": ["wood/hole"]}, SIZE)
    for shard in shards_of([range(8)], SIZE):
        for suffix in (".tar", ".jsonl"):
            folder.store.write(shard.name + suffix, b"")
    assert [folder.share([range(4)], rank, 2) for rank in (0, 1)] == [[0, 1, 2], [3]]
    assert folder.missing() == []
    assert folder.done() == set(range(8))


def test_shards_of_groups() -> None:
    found = shards_of([range(5), range(1_000_000, 1_000_003)], 3)
    assert [s.name for s in found] == [
        "pairs-000000-000002", "pairs-000003-000004", "pairs-1000000-1000001", "pairs-1000002-1000002",
    ]  # fmt: skip
    assert shards_of([range(0)], 3) == []


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "out"))
    store.write("a.tar", b"old")

    def broken(path: str, data: bytes, **_: Any) -> None:
        Path(path).write_bytes(data[:2])
        raise OSError("no space left on device")

    monkeypatch.setattr(store._fs, "pipe_file", broken)
    with pytest.raises(UserError, match="no space left on device"):
        store.write("a.tar", b"new bytes")
    assert store.names() == {"a.tar"}
    assert store.read("a.tar") == b"old"


def test_the_table_holds_every_record(whole: Path, drawn_root: Path, tmp_path: Path) -> None:
    table = parquet.read_table(whole / "manifest.parquet")
    assert table.column("index").to_pylist() == list(range(COUNT))
    assert parquet.ParquetFile(whole / "manifest.parquet").num_row_groups == len(NAMES)
    lines = [json.loads(line) for name in NAMES for line in (whole / f"{name}.jsonl").read_text().splitlines()]
    assert [json.loads(text) for text in table.column("record").to_pylist()] == lines
    assert table.column("defect_pixels").to_pylist() == [line["defect_pixels"] for line in lines]


@pytest.mark.cluster
def test_s3(whole: Path, drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of its own on this machine in the place of Amazon's. Elsewhere `memory://` stands for all stores."""
    import moto.server as server_of
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        assert sharded(drawn_root, "s3://bucket/sets/part") == 0
        store = Store("s3://bucket/sets/part")
        store.remove(f"{NAMES[1]}.tar")
        assert sharded(drawn_root, "s3://bucket/sets/part") == 0
        assert {f"{n}.tar": store.read(f"{n}.tar") for n in NAMES} == tars(str(whole))
        assert synthesize(arguments(drawn_root, "s3://nobucket/x", "--shards", "3")) == 2
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_what_cannot_be_is_refused(
    whole: Path, drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for argv, says in (
        (arguments(drawn_root, "memory://x"), "is a URL, which takes shards; add --shards 1000, say"),
        (
            arguments(drawn_root, "memory://x", "--shards", "3", "--runner", "ray"),
            "is the memory of one process, and --runner ray has several",
        ),
        (arguments(drawn_root, tmp_path / "o", "--shards", "0"), "--shards 0 must be at least 1"),
        (arguments(drawn_root, tmp_path / "o", "--shards", "3", "--extend"), "--extend changes pairs that are made"),
        (arguments(drawn_root, tmp_path / "o", "--count", "1000001"), "is more than a set holds"),
        (arguments(drawn_root, tmp_path / "other", "--shards", "3"), "holds other files"),
        (arguments(drawn_root, whole, "--shards", "4"), "holds another run (differs in shards)"),
        (arguments(drawn_root, whole, "--shards", "3", "--seed", "1"), "holds another run (differs in seed)"),
        (arguments(drawn_root, whole / f"{NAMES[0]}.tar", "--shards", "3"), "is a file; give a folder"),
        (arguments(drawn_root, "nowhere://x/y", "--shards", "3"), "nowhere"),
    ):
        assert synthesize(argv) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()
    assert np.all([p.name in ("other",) for p in tmp_path.iterdir()])


def test_a_refused_picture_leaves_nothing(drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "normals").mkdir()
    (tmp_path / "normals" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nIEND no picture")
    argv = ["--method", "cutpaste", "--data_root", str(tmp_path / "normals"), "--sample_name", str(tmp_path / "out")]
    assert synthesize([*argv, "--count", "2", "--shards", "2"]) == 2
    assert "a.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".tar", ".jsonl"])
def test_a_complete_set_that_was_damaged_since_is_not_called_done(
    whole: Path, drawn_root: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "set"
    shutil.copytree(whole, place)
    file = place / f"{NAMES[1]}{suffix}"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if suffix == ".tar" else b"".join(data.splitlines(keepends=True)[1:]))
    assert sharded(drawn_root, str(place)) == 2
    error = capsys.readouterr().err
    assert f"{file.name} is damaged" in error
    assert error.endswith("or remove it and run the set's command again, which makes that shard anew\n")
    file.unlink()
    assert sharded(drawn_root, str(place)) == 0
    assert tars(str(place)) == tars(str(whole))
