"""A command as a Slurm job array: every job runs it, knows its number, and does what the others have not done."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fast.runtime.project import PROJECT
from fast.runtime.runner import RunnerOptions, minutes_of, require
from ldm.errors import UserError

MINUTES = 24 * 60  # of a job, where nobody says --slurm time=
GRACE = 60.0  # seconds that a program gets to save what it is at, of the 90 before its time is over


@dataclass
class Part:
    """What a job does: `python -m module argv` as number `rank` of `world`, in the folder of the submitting command."""

    module: str
    argv: list[str]
    rank: int
    world: int
    folder: str
    _program: Any = field(default=None, init=False, repr=False, compare=False)

    def __call__(self) -> None:
        env = {**os.environ, "RANK": str(self.rank), "WORLD_SIZE": str(self.world), "PYTHONSAFEPATH": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", self.module, *self.argv]
        self._program = subprocess.Popen(command, env=env, cwd=self.folder, preexec_fn=_ignore_warning)
        try:
            code = self._program.wait()
        except BaseException:
            self._stop()
            raise
        if code:
            raise subprocess.CalledProcessError(code, command)

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """When the time is over, or the job has to make room: the program saves what it is at, and the same command
        goes on when the job is queued again."""
        self._stop()
        return require("submitit", "slurm").helpers.DelayedSubmission(replace(self))

    def _stop(self) -> None:
        """End the program as Ctrl-C does, if it does not end so by force. Not by `Popen.wait`, whose lock the code that
        a signal has interrupted may hold."""
        end = time.monotonic() + GRACE
        if self._program is None or _has_ended(self._program.pid):
            return
        self._program.send_signal(signal.SIGINT)
        while not _has_ended(self._program.pid):
            if time.monotonic() > end:
                self._program.kill()
                return
            time.sleep(0.1)


def _ignore_warning() -> None:
    """In a job's program: Slurm may send the signal that announces the end to it too, whom it would kill."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _has_ended(pid: int) -> bool:
    """Whether a child has; it is left to be waited for."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:  # and has been waited for
        return True


def submit(module: str, argv: list[str], options: RunnerOptions, logs: Path, numbered: bool = True) -> None:
    """Submit `python -m module argv` as an array of `--workers` jobs that write to `logs`, or print its script with
    `--dry_run`. `numbered`: each job makes its share; otherwise all do what none of them has claimed, and programs that
    they start must not take a job's number for their own. Raises `UserError`."""
    count = options.workers or 1
    ranks = [(rank, count) if numbered else (0, 1) for rank in range(count)]
    parts = [Part(module, argv, rank, world, os.getcwd()) for rank, world in ranks]
    try:
        executor = _executor(options, logs, module.rpartition(".")[2])
        # The first line for readers of the script, which itself names only a folder with this in it.
        share = f"WORLD_SIZE={count}, RANK from 0: " if numbered else ""
        told = " ".join(shlex.join(argv).splitlines())  # an argument's second line would be a command
        executor.update_parameters(
            setup=[
                f"# each job: {share}python -m {module} {told}",
                f"export PYTHONPATH={shlex.quote(str(PROJECT))}${{PYTHONPATH:+:$PYTHONPATH}}",
            ]
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
    if options.dry_run and find_spec("submitit") is None:
        raise UserError(
            "--dry_run prints the script as submitit writes it, which needs no Slurm but submitit; run pip install "
            "'.[slurm]'"
        )
    require("submitit", "slurm")
    from submitit.slurm.slurm import SlurmExecutor, _get_default_parameters

    class Printing(SlurmExecutor):  # type: ignore[misc]
        @classmethod
        def affinity(cls) -> int:
            """A script can be printed where there is no Slurm."""
            return 1

    known, given = _get_default_parameters(), {"time": MINUTES, "job_name": f"fast-{name}", "stderr_to_stdout": True}
    other: dict[str, str | bool] = {}
    for text in options.slurm:
        key, sign, value = text.partition("=")
        key = key.strip("-").replace("-", "_")
        if not sign:
            other[key] = True
        elif key == "time":
            given[key] = minutes_of(value)
        elif key in known and key not in ("setup", "teardown", "srun_args", "additional_parameters"):
            given[key] = int(value) if value.isdigit() else value
        else:
            other[key] = value
    if "cpus_per_task" in given:  # which srun of Slurm 22.05 and 23.02 does not take over from sbatch
        given["srun_args"] = [f"--cpus-per-task={given['cpus_per_task']}"]
    executor = (Printing if options.dry_run else SlurmExecutor)(logs)
    executor.update_parameters(**given, additional_parameters=other)
    return executor


def _script(executor: Any, count: int) -> str:
    if count > 1:
        executor.parameters["map_count"] = count
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry_run"))
