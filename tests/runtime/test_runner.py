"""Where a command runs: its flags, and what a Slurm array and a Ray cluster are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from fast.cli import bench, pairs
from fast.runtime import on_slurm
from fast.runtime.command import run_cli
from fast.runtime.on_ray import Machines, wants_gpu
from fast.runtime.on_slurm import Part, submit
from fast.runtime.runner import RunnerOptions, address_of, check_runner, kind_of, minutes_of, without_runner
from ldm.errors import UserError
from support.paths import ROOT


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runner": "ray:/head:1"}, "use local, ray, ray://HOST:PORT or slurm"),
        ({"runner": "ray://head"}, "use local, ray, ray://HOST:PORT or slurm"),
        ({"runner": "ray://head:10001"}, "Ray Client's port"),
        ({"workers": 2}, "--workers 2 is for --runner ray or slurm"),
        (
            {"runner": "ray", "dry_run": True},
            "--dry_run is for --runner slurm; give that in place of ray",
        ),
        (
            {"slurm": ["partition=gpu"]},
            "--slurm partition=gpu is for --runner slurm; add --runner slurm, or",
        ),
        ({"runner": "slurm", "slurm": ["partition"]}, "is not KEY=VALUE"),
        ({"runner": "slurm", "slurm": ["mem=8G", "time=1h"]}, "--slurm time=1h is no time; write minutes"),
        ({"runner": "slurm", "workers": 0}, "must be at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_runner(RunnerOptions(**options))  # type: ignore[arg-type]


def test_options_of_sbatch_that_take_no_value() -> None:
    check_runner(RunnerOptions(runner="slurm", slurm=["exclusive", "no_requeue", "--hold", "exclusive=user"]))


def test_an_address_names_the_head() -> None:
    assert (kind_of("ray"), address_of("ray")) == ("ray", None)
    assert (kind_of("ray://10.0.0.1:6379"), address_of("ray://10.0.0.1:6379")) == ("ray", "10.0.0.1:6379")


def test_parts_get_the_command_without_the_runner_s_flags() -> None:
    line = (
        "--method fast --runner slurm --count 9 --slurm partition=gpu --slurm=time=60 --workers 4 --dry_run method.a=1"
    )
    assert without_runner(line.split()) == ["--method", "fast", "--count", "9", "method.a=1"]


def test_a_share_of_the_cluster() -> None:
    gpus = Machines(count=2, cores=32, gpus=16)
    assert gpus.share(None, True) == (16, {"num_gpus": 1, "num_cpus": 4})
    assert Machines(2, 8, 16).share(None, True) == (16, {"num_gpus": 1, "num_cpus": 1})
    assert gpus.share(None, False) == (2, {"num_gpus": 0, "num_cpus": 32})
    assert gpus.share(8, False) == (8, {"num_gpus": 0, "num_cpus": 8})
    assert Machines(1, 2, 0).share(5, False) == (5, {"num_gpus": 0, "num_cpus": 1})
    assert [wants_gpu(device, gpus) for device in ("auto", "cpu", "cuda")] == [True, False, True]
    assert not wants_gpu("auto", Machines(1, 2, 0))
    with pytest.raises(UserError, match="has no GPU"):
        wants_gpu("cuda", Machines(1, 2, 0))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-0", 2880), ("1-2:30", 1590), ("1-0:0:30", 1441), ("0", 1)],
)
def test_times_as_sbatch_writes_them(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


def test_a_time_that_is_none() -> None:
    for text in ("soon", "1:2:3:4", "-5", ""):
        with pytest.raises(UserError, match="is no time"):
            minutes_of(text)


def test_a_part_knows_its_number_and_where_it_runs(tmp_path: Path) -> None:
    said = "' '.join([os.environ['RANK'], os.environ['WORLD_SIZE'], *sys.argv[1:]])"
    code = f"import os, sys; open('said', 'w').write({said})"
    (tmp_path / "told.py").write_text(code)
    part = Part("told", ["--a", "b c"], 2, 5, str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        part()
    assert (tmp_path / "said").read_text() == "2 5 --a b c"
    with pytest.raises(subprocess.CalledProcessError):
        Part("no_such_module", [], 0, 1, str(tmp_path))()


def test_jobs_write_what_they_say_beside_the_output_or_here() -> None:
    assert pairs._logs("sets/part/") == Path("sets/part.slurm")
    assert pairs._logs("s3://bucket/sets/part/") == Path("part.slurm")


@pytest.mark.parametrize("command", [pairs, bench])
def test_a_missing_extra_is_named(
    command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    out = "--sample_name" if command is pairs else "--out"
    argv = ["--runner", "slurm", out, str(tmp_path / "out")]
    argv += ["--method", "procedural", "--data_root", str(tmp_path)] if command is pairs else ["--dataset", "x"]
    assert run_cli(command.main, argv) == 2  # type: ignore[attr-defined]
    assert "pip install '.[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_of_a_cluster_is_imported_without_its_flag() -> None:
    code = (
        "import sys, fast.cli.bench, fast.cli.pairs, fast.cli.synthesis_job, fast.bench.work, fast.bench.grid;"
        "sys.exit(any(n.split('.')[0] in ('ray', 'submitit') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_dry_run_without_submitit_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_slurm, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"no Slurm but submitit; run pip install '\.\[slurm\]'$"):
        submit("fast.cli.pairs", [], RunnerOptions(runner="slurm", dry_run=True), tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
