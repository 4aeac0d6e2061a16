"""A command as a Slurm job array: every job runs it, knows its number, and does what the others have not done."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast.runtime.project import PROJECT
from fast.runtime.runner import RunnerOptions, require
from ldm.errors import UserError

MINUTES = 24 * 60  # of a job, where nobody says --slurm time=
HOURS_PARTS = (60, 1, 1 / 60)


@dataclass(frozen=True)
class Part:
    """What a job does: `python -m module argv` as number `rank` of `world`, in the folder of the submitting command."""

    module: str
    argv: list[str]
    rank: int
    world: int
    folder: str

    def __call__(self) -> None:
        env = {**os.environ, "RANK": str(self.rank), "WORLD_SIZE": str(self.world), "PYTHONSAFEPATH": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run([sys.executable, "-m", self.module, *self.argv], env=env, cwd=self.folder, check=True)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """When the time is over, or the job has to make room: the same again. What is made is on the disk."""
        return require("submitit", "slurm").helpers.DelayedSubmission(self)


def submit(module: str, argv: list[str], options: RunnerOptions, logs: Path) -> None:
    """Submit `python -m module argv` as an array of `--workers` jobs that write to `logs`, or print its script with
    `--dry_run`. Raises `UserError`."""
    count = options.workers or 1
    parts = [Part(module, argv, rank, count, os.getcwd()) for rank in range(count)]
    try:
        executor = _executor(options, logs, module.rpartition(".")[2])
        # For readers of the script, which itself names only a file with this in it.
        executor.update_parameters(
            setup=[f"# each job: WORLD_SIZE={count}, RANK from 0: python -m {module} {shlex.join(argv)}"]
        )
        if options.dry_run:
            print(_script(executor, count), end="")
            return
        jobs = executor.submit_array(parts)
    except RuntimeError as error:  # no srun here, or sbatch refuses
        raise UserError(f"--runner slurm: {' '.join(str(error).split())[:300]}") from None
    number = jobs[0].job_id.partition("_")[0]
    print(
        f"job {number} of {count} parts is submitted; what they say is in {logs}; the same command goes on", flush=True
    )


def _executor(options: RunnerOptions, logs: Path, name: str) -> Any:
    """submitit's, with the options of sbatch. Raises `UserError` for a time that is none."""
    require("submitit", "slurm")
    from submitit.slurm.slurm import SlurmExecutor, _get_default_parameters

    class Printing(SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:
            """A script can be printed where there is no Slurm."""
            return 1

    known, given = _get_default_parameters(), {"time": MINUTES, "job_name": f"fast-{name}", "stderr_to_stdout": True}
    other: dict[str, str] = {}
    for text in options.slurm:
        key, _, value = text.partition("=")
        key = key.strip("-").replace("-", "_")
        if key == "time":
            given[key] = _minutes(value)
        elif key in known and key not in ("setup", "teardown", "srun_args", "additional_parameters"):
            given[key] = int(value) if value.isdigit() else value
        else:
            other[key] = value
    executor = (Printing if options.dry_run else SlurmExecutor)(logs)
    executor.update_parameters(**given, additional_parameters=other)
    return executor


def _script(executor: Any, count: int) -> str:
    if count > 1:
        executor.parameters["map_count"] = count
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry_run"))


def _minutes(text: str) -> int:
    """Minutes of a time as sbatch writes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S. Raises `UserError`."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    try:
        numbers = [int(p) for p in parts]
        if min(numbers) < 0 or len(parts) > 3:
            raise ValueError
        weights = HOURS_PARTS if dash or len(parts) == 3 else HOURS_PARTS[1:]
        minutes = sum(n * w for n, w in zip(numbers, weights, strict=False)) + (int(days) * 1440 if dash else 0)
    except ValueError:
        raise UserError(f"--slurm time={text} is no time; write minutes, H:M:S or D-H:M:S") from None
    return max(1, -int(-minutes // 1))
