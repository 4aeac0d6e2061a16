"""Files that are cut off are found before anything is begun, and most whole ones are not decoded for it."""

import errno
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fast.data import packed, whole
from fast.data.images import write_image
from fast.data.whole import broken_images, check_images, check_made
from fast.runtime import progress
from fast.synthesis.records import read_records
from ldm.errors import UserError


def picture(path: Path) -> Path:
    write_image(path, np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-80])
    return path


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "good.png"), tmp_path / "bad.png"
    check_images([good, good])
    bad.write_bytes(good.read_bytes()[:40])
    with pytest.raises(UserError, match=r"bad\.png"):
        check_images([good, bad])
    with pytest.raises(UserError, match=r"gone\.png"):
        check_images([tmp_path / "gone.png"])


def test_all_of_many_are_found_and_only_the_doubtful_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [picture(tmp_path / f"{i:02d}.png") for i in range(12)]
    cut(files[7]), cut(files[2])
    decoded, own = [], whole.read_image
    monkeypatch.setattr(whole, "AT_ONCE", 5)
    monkeypatch.setattr(whole, "read_image", lambda path: (decoded.append(path), own(path)))
    assert [path for path, _ in broken_images(reversed(files))] == [files[2], files[7]]
    assert sorted(decoded) == [files[2], files[7]]
    with pytest.raises(UserError) as told:
        check_made(files)
    said = str(told.value)
    assert said.startswith(f"{files[2]}: cannot read the image (")
    assert said.endswith("(and 1 more, 07.png the next); run the set's command again, which makes it anew")


def test_a_file_in_a_shard_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "a.png"), cut(picture(tmp_path / "b.png"))
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(good, "a.png")
        tar.add(bad, "b.png")
    shard = tmp_path / "set.tar"
    assert whole.looks_whole(shard / "a.png")
    with pytest.raises(UserError, match=r"set\.tar: b\.png .*; restore the tar file, or remove it and run"):
        check_made([shard / "a.png", shard / "b.png"])


def counted(monkeypatch: pytest.MonkeyPatch, pause: threading.Barrier | None = None) -> list[Path]:
    """The tar files whose headers are read from here on. With `pause` other threads may come while one reads."""
    read: list[Path] = []

    class Counted(packed.Members):
        def __init__(self, tar: Path):
            read.append(tar)
            if pause is not None:
                with suppress(threading.BrokenBarrierError):
                    pause.wait(0.2)
            super().__init__(tar)

    monkeypatch.setattr(packed, "Members", Counted)
    return read


def test_a_damaged_tar_file_is_read_once_and_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, read = [tmp_path / "one.tar", tmp_path / "two.tar"], counted(monkeypatch)
    for shard in shards:
        shard.write_bytes(b"none" * 500)
    with pytest.raises(UserError, match=r"one\.tar: 0\.png .* \(and 1 more, two\.tar the next\); restore the tar"):
        check_made(shard / f"{i}.png" for shard in shards for i in range(50))
    assert sorted(read) == shards


def test_threads_that_ask_for_one_tar_file_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(picture(tmp_path / "a.png"), "a.png")
    read = counted(monkeypatch, threading.Barrier(2))  # which a second reader would come to
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(whole.looks_whole, [tmp_path / "set.tar" / "a.png"] * 2))
    assert read == [tmp_path / "set.tar"]


def test_what_was_wrong_for_a_moment_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "set.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(picture(tmp_path / "a.png"), "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(packed.tarfile, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many")))
        with pytest.raises(UserError, match="too many"):
            check_made([shard / "a.png"])
    check_made([shard / "a.png"])


def test_the_remedy_is_that_of_what_is_wrong(tmp_path: Path) -> None:
    bad = cut(picture(tmp_path / "a; b.png"))
    with pytest.raises(UserError, match=r"/a; b\.png: cannot read .*; run the set's command again, which"):
        check_made([bad])
    with pytest.raises(UserError, match=r"gone\.png: .*; run the set's command again, which makes what is missing$"):
        check_made([tmp_path / "gone.png"])
    pointer = tmp_path / "pointer.png"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        check_made([pointer])


def test_pairs_of_auto_are_made_anew_by_the_bench(tmp_path: Path) -> None:
    bad = cut(picture(tmp_path / "auto" / "pairs" / "image" / "000000.png"))
    (tmp_path / "auto" / "choice.json").write_text("[]")
    with pytest.raises(
        UserError, match=r"; run scripts/bench\.py --auto with --out .*/auto again, which makes all pai"
    ):
        check_made([bad])
    bad.unlink()
    with pytest.raises(UserError, match=r"; run scripts/bench\.py --auto with --out .*/auto again"):
        check_made([bad])
    (bad.parents[1] / "manifest.jsonl").write_text("{")
    with pytest.raises(
        UserError, match=r"manifest\.jsonl is damaged .*; run scripts/bench\.py --auto with --out .*/auto"
    ):
        read_records(bad.parents[1])
    cut(picture(bad))
    (bad.parents[1] / "settings.json").write_text("{}")  # a run of its own beside the bench's files
    with pytest.raises(UserError, match=r"; run the set's command again, which makes it anew$"):
        check_made([bad])
    with pytest.raises(UserError, match="restore it or synthesize again"):
        read_records(bad.parents[1])


def test_a_long_look_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [picture(tmp_path / f"{i}.png") for i in range(3)]

    made: list[progress.Progress] = []
    own = progress.Progress.__init__

    def begun(self: progress.Progress, *args: object, **options: object) -> None:
        made.append(self)
        own(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(progress.Progress, "__init__", begun)
    assert list(broken_images(files)) == []
    assert [(p.total, p.done, p.what) for p in made] == [(3, 3, "looked at")]
    made[0].report()
    assert capsys.readouterr().out.startswith("looked at: 3 of 3 files, done in about 0 s")
