"""A job array of Slurm: its script, and its jobs run one by one in the place of a cluster's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fast.cli import pairs
from fast.runtime.command import run_cli
from support.synthesis import whole_set

pytestmark = pytest.mark.cluster

SBATCH = """#!/bin/sh
cp "$1" "{script}"
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do case "$1" in --output|--error) shift;; esac; shift; done
exec "$@"
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
    assert run_cli(pairs.main, [*argv(drawn_root, tmp_path / "out"), *flags]) == 0
    script = capsys.readouterr().out
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))
    assert options["array"] == "0-2%3"
    assert (options["partition"], options["time"], options["gpus-per-node"]) == ("gpu", "1440", "1")
    assert (options["nice"], options["job-name"]) == ("5", "fast-pairs")
    assert "submitit.core._submit" in script.splitlines()[-1]
    assert f"RANK from 0: python -m fast.cli.pairs --method procedural --data_root {drawn_root}" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert not (tmp_path / "out").exists()


def test_jobs_of_an_array_make_the_same_pairs_as_one_process(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(pairs.main, argv(drawn_root, tmp_path / "one")) == 0
    programs, script = tmp_path / "bin", tmp_path / "job.sh"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH.replace("{script}", str(script))), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    line = argv(drawn_root, tmp_path / "out")
    assert run_cli(pairs.main, [*line, "--runner", "slurm", "--workers", "2"]) == 0
    assert "job 77 of 2 parts is submitted" in capsys.readouterr().out
    job = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    job |= {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    for number in (1, 0):
        done = subprocess.run(
            ["bash", str(script)], env={**os.environ, **job, "SLURM_ARRAY_TASK_ID": str(number)}, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "out" / "image").iterdir())) == (2 if number else 5)
    assert whole_set(tmp_path / "out") == whole_set(tmp_path / "one")


def test_no_slurm_here_is_one_line(
    drawn_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_cli(pairs.main, [*argv(drawn_root, tmp_path / "out"), "--runner", "slurm"]) == 2
    told = capsys.readouterr().err
    assert "srun" in told
    assert told.count("\n") == 1
