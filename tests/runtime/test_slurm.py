"""A job array of Slurm: its script, and its jobs run one by one in the place of a cluster's."""

import os
import pickle
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fast.cli import bench, pairs
from fast.runtime.command import run_cli
from fast.runtime.on_slurm import Part
from support.paths import ROOT
from support.synthesis import whole_set, whole_shards

pytestmark = pytest.mark.cluster

SBATCH = """#!/bin/sh
cp "$1" "{script}"
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done
exec "$@"
"""


PROTOCOL = """
name: tiny
title: Tiny
categories: [leather]
pairs: {per_type: 3, size: 64}
segmentation: {networks: [mini], seeds: [0], steps: 1, batch_size: 2, size: 64}
pictures: false
entries:
  - {label: CutPaste, method: cutpaste, real: none}
"""
SAVES = """
import os
try:
    with open("begun", "w") as file:
        file.write(str(os.getpid()))
    while True:
        os.read(os.pipe()[0], 1)
except KeyboardInterrupt:
    open("saved", "w").write("all")
    raise
"""


def argv(drawn_root: Path, out: Path) -> list[str]:
    normals = drawn_root / "wood" / "train" / "good"
    return [
        *("--method", "procedural", "--data_root", str(normals), "--anomaly_name", "scratch", "--material", "wood"),
        *("--sample_name", str(out), "--count", "5"),
    ]


def test_a_dry_run_prints_the_script_and_does_nothing(
    drawn_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--runner", "slurm", "--workers", "3", "--dry_run"]
    flags += ["--slurm", "partition=gpu", "--slurm", "time=1-0", "--slurm", "gpus_per_node=1", "--slurm", "nice=5"]
    flags += ["--slurm", "cpus_per_task=8", "--slurm", "exclusive"]
    assert run_cli(pairs.main, [*argv(drawn_root, tmp_path / "out"), *flags]) == 0
    script = capsys.readouterr().out
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
    assert options["array"] == "0-2%3"
    assert (options["partition"], options["time"], options["gpus-per-node"]) == ("gpu", "1440", "1")
    assert (options["nice"], options["job-name"]) == ("5", "fast-pairs")
    assert "#SBATCH --exclusive\n" in script
    assert "submitit.core._submit" in script.splitlines()[-1]
    # srun of Slurm 22.05 takes one core where it is not told how many.
    assert options["cpus-per-task"] == "8"
    assert "--cpus-per-task=8" in script.splitlines()[-1]
    # Each job reads its part with the project's modules, whatever folder the command was given in.
    assert f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}\n" in script
    assert f"RANK from 0: python -m fast.cli.pairs --method procedural --data_root {drawn_root}" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert not (tmp_path / "out").exists()


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stand-ins for Slurm's programs. Runs job number n of the array that was submitted last, from another folder."""
    programs, script, elsewhere = tmp_path / "bin", tmp_path / "job.sh", tmp_path / "elsewhere"
    programs.mkdir()
    elsewhere.mkdir()
    for name, text in (("sbatch", SBATCH.replace("{script}", str(script))), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    job = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    job |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}

    def run(number: int) -> None:
        env = {**os.environ, **job, "SLURM_ARRAY_TASK_ID": str(number)}
        env.pop("PYTHONPATH", None)
        done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, cwd=elsewhere)
        assert done.returncode == 0, done.stderr

    return run


def test_jobs_of_an_array_make_the_same_pairs_as_one_process(
    drawn_root: Path, tmp_path: Path, jobs: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(pairs.main, argv(drawn_root, tmp_path / "one")) == 0
    line = argv(drawn_root, tmp_path / "out")
    assert run_cli(pairs.main, [*line, "--runner", "slurm", "--workers", "2"]) == 0
    assert "job 77 of 2 parts is submitted" in capsys.readouterr().out
    for number in (1, 0):
        jobs(number)
        assert len(list((tmp_path / "out" / "image").iterdir())) == (2 if number else 5)
    assert whole_set(tmp_path / "out") == whole_set(tmp_path / "one")


def test_jobs_of_an_array_make_the_same_shards_as_one_process(
    drawn_root: Path, tmp_path: Path, jobs: Callable[[int], None]
) -> None:
    assert run_cli(pairs.main, [*argv(drawn_root, tmp_path / "one"), "--shards", "2"]) == 0
    line = [*argv(drawn_root, tmp_path / "out"), "--shards", "2"]
    assert run_cli(pairs.main, [*line, "--runner", "slurm", "--workers", "2"]) == 0
    jobs(1)
    assert [p.name for p in (tmp_path / "out").glob("*.tar")] == ["pairs-000002-000003.tar"]
    jobs(0)
    assert whole_shards(tmp_path / "out") == whole_shards(tmp_path / "one")


def test_jobs_of_a_grid_make_whole_cells(drawn_root: Path, tmp_path: Path, jobs: Callable[[int], None]) -> None:
    protocol = tmp_path / "tiny.yaml"
    protocol.write_text(PROTOCOL)
    line = ["--protocol", str(protocol), "--dataset", str(drawn_root), "--out", str(tmp_path / "out")]
    assert run_cli(bench.main, [*line, "--runner", "slurm", "--workers", "2"]) == 0
    jobs(1)  # alone, it does all: what another has not claimed
    made = {f.parent.parent.name: len(list(f.iterdir())) for f in (tmp_path / "out").rglob("image")}
    assert set(made.values()) == {3}  # not every second one
    assert "| CutPaste |" in (tmp_path / "out" / "tiny-leather" / "table.md").read_text()


def test_a_program_whose_time_is_over_saves_before_its_job_is_queued_again(tmp_path: Path) -> None:
    """It is ended as by Ctrl-C, and not by the signal that Slurm sends to all of a job's processes."""
    (tmp_path / "told.py").write_text(SAVES)
    os.mkfifo(tmp_path / "begun")
    part = Part("told", [], 0, 1, str(tmp_path))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setenv("PYTHONPATH", str(tmp_path))
        job = thread.submit(part)
        pid = int((tmp_path / "begun").read_text())
        os.kill(pid, signal.SIGUSR2)
        again = part.checkpoint()
        with pytest.raises(subprocess.CalledProcessError):
            job.result()
    assert (tmp_path / "saved").read_text() == "all"
    assert again.function == Part("told", [], 0, 1, str(tmp_path))
    assert pickle.loads(pickle.dumps(again.function)) == part


def test_inputs_that_are_not_there_are_told_before_anything_is_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*argv(tmp_path / "nowhere", tmp_path / "out"), "--runner", "slurm", "--dry_run"]
    assert run_cli(pairs.main, flags) == 2
    told = capsys.readouterr()
    assert told.err == f"error: --data_root {tmp_path}/nowhere/wood/train/good is not there; check the path\n"
    assert not told.out


def test_no_slurm_here_is_one_line(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_cli(pairs.main, [*argv(drawn_root, tmp_path / "out"), "--runner", "slurm"]) == 2
    told = capsys.readouterr().err
    assert "srun" in told
    assert told.count("\n") == 1
