"""Where work that falls into many independent parts is run: on this machine, by Ray or by Slurm."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from fast.runtime.flags import add_flags, option
from ldm.errors import UserError

NAMES = ("runner", "workers", "slurm", "dry_run")
RAY_CLIENT = "10001"  # the port of Ray Client, another protocol than that of the head
RAY = "ray://"
HOURS_PARTS = (60, 1, 1 / 60)  # minutes
SWITCHES = ("exclusive", "requeue", "no-requeue", "hold", "contiguous", "overcommit", "oversubscribe")  # of sbatch


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """Where a command's parts are done. Nothing of Ray or Slurm is imported unless `runner` names it."""

    # fmt: off
    runner: str = option(
        "local", "where the work is done: local, in this process (default); ray, on the Ray cluster that this machine "
        "is part of, else on this machine alone; ray://HOST:PORT, on the cluster whose head that is; slurm, by a job "
        "array", metavar="local|ray[://HOST:PORT]|slurm")
    workers: int | None = option(
        None, "ray, slurm: processes (default: with Ray one a GPU, where there is none one a machine; with Slurm 1)",
        metavar="N", least=1)
    slurm: list[str] = option(
        [], "slurm: an option of sbatch, partition=gpu or exclusive say; may be given several times", action="append",
        metavar="KEY=VALUE")
    dry_run: bool = option(False, "slurm: print the script instead of submitting it", "--dry_run")
    # fmt: on


def check_runner(options: Any) -> None:
    """Refuses flags that do not go together. `options`: anything with the fields of `RunnerOptions`. Raises
    `UserError`."""
    kind = kind_of(options.runner)
    if kind == "local" and options.workers is not None:
        raise UserError(f"--workers {options.workers} is for --runner ray or slurm; add one, or leave it out")
    if kind != "slurm" and (options.slurm or options.dry_run):
        flag = f"--slurm {options.slurm[0]}" if options.slurm else "--dry_run"
        remedy = "add --runner slurm" if kind == "local" else f"give that in place of {options.runner}"
        raise UserError(f"{flag} is for --runner slurm; {remedy}, or leave it out")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers} must be at least 1")
    whole = (text for text in options.slurm if text.strip("-").replace("_", "-") not in SWITCHES)
    if bad := next((text for text in whole if not all(text.partition("="))), None):
        raise UserError(f"--slurm {bad} is not KEY=VALUE; write an option of sbatch so, partition=gpu say")
    for text in options.slurm:
        key, _, value = text.partition("=")
        if key.strip("-") == "time":
            minutes_of(value)


def kind_of(runner: str) -> str:
    """ "local", "ray" or "slurm". Raises `UserError` for what is none of them."""
    if runner in ("local", "ray", "slurm"):
        return runner
    host, _, port = runner.removeprefix(RAY).rpartition(":")
    if not runner.startswith(RAY) or not host or not port.isdigit():
        raise UserError(f"--runner {runner} is unknown; use local, ray, ray://HOST:PORT or slurm")
    if port == RAY_CLIENT:
        raise UserError(
            f"--runner {runner} is Ray Client's port; run the command on a machine of the cluster, and give "
            "the port of the head, as `ray start` prints it, 6379 say"
        )
    return "ray"


def address_of(runner: str) -> str | None:
    """HOST:PORT of the Ray cluster's head; None where `--runner ray` names none."""
    return runner.removeprefix(RAY) if runner.startswith(RAY) else None


def without_runner(argv: list[str]) -> list[str]:
    """A command line without the flags of `RunnerOptions`: what each part is started with."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flags(parser, RunnerOptions, NAMES)
    return parser.parse_known_args(argv)[1]


def require(module: str, extra: str) -> ModuleType:
    """A module of the extra of that name. Raises `UserError` where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--runner {extra} needs {extra}'s extra; run pip install '.[{extra}]'") from None


def minutes_of(text: str) -> int:
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
