"""Stopped in every way and started again: the same set, nothing lost, nothing half-written."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast.synthesis.output
from fast.data import source_mode
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import PairImages
from ldm.errors import UserError
from support.paths import ROOT
from support.synthesis import arguments, leftovers, manifest, synthesize, whole_set

HANGS = 900  # seconds: far above what a busy machine takes


@pytest.fixture(scope="module")
def reference(drawn_root: Path, tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, out)) == 0
    return out


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_pairs_ends_in_one_line_and_the_run_goes_on(
    reference: Path,
    drawn_root: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sent: signal.Signals,
) -> None:
    out, own, written = tmp_path / "out", OutputFolder.write, []

    def write(self: OutputFolder, record: dict[str, Any], *pictures: np.ndarray) -> None:
        if len(written) == 1:
            os.kill(os.getpid(), sent)
        own(self, record, *pictures)
        written.append(record["index"])

    handler = signal.getsignal(sent)
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write", write)
        assert synthesize(arguments(drawn_root, tiny_artifact, out, "--batch_size", "1")) == 2
    assert signal.getsignal(sent) is handler
    error = capsys.readouterr().err
    assert error == f"error: interrupted: {len(written)} of 5 pairs are made; the same command goes on\n"
    assert 2 <= len(written) < 5
    assert [row["index"] for row in manifest(out)] == sorted(written)
    assert leftovers(out) == []
    assert synthesize(arguments(drawn_root, tiny_artifact, out)) == 0
    assert whole_set(out) == whole_set(reference)


@contextlib.contextmanager
def started(root: Path, artifact: Path, out: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The program, which does not outlive a test that fails."""
    argv = [sys.executable, "generate_with_mask.py", *arguments(root, artifact, out, "--count", "500", *more)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], found: Any) -> None:
    """Until `found()`; the process must not end before."""
    deadline = time.monotonic() + HANGS
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.005)


def goes_on_to_the_same_set(root: Path, artifact: Path, out: Path, fresh: Path, steps: str) -> None:
    """Continue `out` for a few pairs more and compare with an unbroken run of that many."""
    made = [int(p.stem) for p in (out / "image").glob("*.png")] if (out / "image").is_dir() else []
    more = ("--steps", steps, "--count", str(max(made, default=0) + 2))
    assert synthesize(arguments(root, artifact, out, *more)) == 0
    assert synthesize(arguments(root, artifact, fresh, *more)) == 0
    assert whole_set(out) == whole_set(fresh)
    assert leftovers(out) == []


def test_ctrl_c_while_threads_sample(drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(drawn_root, tiny_artifact, out, "--steps", "20") as process:
        wait_for(process, lambda: len(list(out.glob(".records/*.json"))) > 0)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=HANGS)
    assert process.returncode == 2
    count = len(manifest(out))
    assert count < 500
    assert error == f"error: interrupted: {count} of 500 pairs are made; the same command goes on\n"
    assert leftovers(out) == []
    goes_on_to_the_same_set(drawn_root, tiny_artifact, out, tmp_path / "fresh", "20")


def test_a_second_start_is_refused_and_a_kill_loses_nothing(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with started(drawn_root, tiny_artifact, out) as process:
        wait_for(process, lambda: len(list(out.glob("*/*.png"))) >= 8)
        assert synthesize(arguments(drawn_root, tiny_artifact, out)) == 2
        error = f"error: --sample_name {out} is being filled by another process; wait for it\n"
        assert capsys.readouterr().err == error
    goes_on_to_the_same_set(drawn_root, tiny_artifact, out, tmp_path / "fresh", "3")


# the folder by itself


class Killed(BaseException):
    """Ends a run where it stands, cleaning nothing up."""


def pair(index: int) -> tuple[dict[str, Any], PairImages]:
    rng = np.random.default_rng(index)
    image, normal = (rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(2))
    images = PairImages(normal, image, rng.integers(0, 2, (8, 8), dtype=np.uint8))
    return {"index": index, "seconds": 0.1}, images


def fill(out: Path, count: int, settings: dict[str, Any] | None = None) -> OutputFolder:
    output = OutputFolder(out, settings or {"seed": 0})
    try:
        done = output.done()
        for i in range(count):
            if i not in done:
                output.write(*pair(i))
        output.gather()
    finally:
        output.close()
    return output


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`dying(n)`: the process dies in place of its n-th rename, and its cleaning up is not done either."""

    def arm(at: int) -> pytest.MonkeyPatch:
        left, replace = iter(range(at)), os.replace

        def mortal(src: Path, dst: Path) -> None:
            if next(left, None) is None:
                raise Killed
            replace(src, dst)

        patch = pytest.MonkeyPatch()
        patch.setattr(os, "replace", mortal)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        return patch

    return arm


def test_killed_at_any_rename_the_set_is_the_same(tmp_path: Path, dying: Any) -> None:
    fill(tmp_path / "whole", 3)
    for moment in range(1 + 3 * 4 + 1):  # settings, four files a pair, the manifest
        out = tmp_path / f"killed{moment}"
        patch = dying(moment)
        with pytest.raises(Killed):
            fill(out, 3)
        patch.undo()
        complete = OutputFolder(out, {"seed": 0})
        assert complete.done() == set(range(max(0, moment - 1) // 4))
        complete.close()
        fill(out, 3)
        assert whole_set(out) == whole_set(tmp_path / "whole")
        assert leftovers(out) == []


def test_pictures_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(tmp_path / "whole", 4)
    for kind in ("image", "mask", "triptych"):
        fill(out, 4)
        (out / kind / "000002.png").unlink()
        output = OutputFolder(out, {"seed": 0})
        assert output.done() == {0, 1, 3}
        assert output.gather() == 3
        output.close()
        assert [row["index"] for row in manifest(out)] == [0, 1, 3]
    fill(out, 4)
    assert whole_set(out) == whole_set(tmp_path / "whole")


def test_a_manifest_that_was_removed_means_all_are_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, 2)
    before = whole_set(out)
    (out / "manifest.jsonl").unlink()
    fill(out, 2)
    assert whole_set(out) == before


def test_settings_may_change_only_while_there_is_no_pair(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, 0, {"seed": 0, "steps": 10})
    fill(out, 1, {"seed": 1, "steps": 10})
    assert json.loads((out / "settings.json").read_text())["seed"] == 1
    with pytest.raises(UserError, match=r"holds another run \(differs in seed, size\)"):
        OutputFolder(out, {"seed": 0, "steps": 10, "size": 64})
    assert json.loads((out / "settings.json").read_text())["seed"] == 1


def test_two_ranks_fill_one_folder_and_one_rank_cannot_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    zero, one = OutputFolder(out, {}, rank=0), OutputFolder(out, {}, rank=1)
    with pytest.raises(UserError, match="being filled by another process"):
        OutputFolder(out, {}, rank=1)
    zero.write(*pair(0))
    assert zero.gather() == 1  # removes the records' folder
    one.write(*pair(1))
    assert one.done() == {0, 1}
    assert one.gather() == 2
    one.close()
    OutputFolder(out, {}, rank=1).close()
    zero.close()


@pytest.mark.parametrize("damage", ["{", "3\n", '{"no": "index"}\n'])
def test_a_damaged_manifest_is_told(tmp_path: Path, damage: str) -> None:
    fill(tmp_path / "out", 1)
    (tmp_path / "out" / "manifest.jsonl").write_text(damage)
    with pytest.raises(UserError, match="is damaged"):
        fill(tmp_path / "out", 2)


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "out", 1)
    (tmp_path / "out" / "settings.json").write_text("[1, 2")
    with pytest.raises(UserError, match=r"settings\.json is damaged"):
        fill(tmp_path / "out", 2)


def test_the_record_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    module = fast.synthesis.output
    own = module.write_bytes
    monkeypatch.setattr(module, "write_bytes", lambda p, d: order.append(Path(p).parent.name) or own(p, d))
    for writer in (module, source_mode):
        monkeypatch.setattr(writer, "write_image", lambda p, a: order.append(Path(p).parent.name))
    monkeypatch.setattr(module, "write_mask", lambda p, a: order.append(Path(p).parent.name))
    output = OutputFolder(tmp_path / "out", {})
    output.write(*pair(0))
    assert order == ["out", "image", "mask", "triptych", ".records"]
