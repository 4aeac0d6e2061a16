"""Runs cases, each in a process of its own, so that its peak memory is its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
Result = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all cases of a run have in common."""

    device: str
    size: str
    cores: int
    side: int  # of the trained pictures, in pixels


@dataclass(frozen=True)
class Job:
    """A case and its parameters. `once`: too long to be measured in every round."""

    case: str
    params: Mapping[str, Any]
    once: bool = False

    @property
    def key(self) -> str:
        """Equal for equal measurements."""
        return f"{self.case} {json.dumps(self.params, sort_keys=True)}"


def run_case(job: Job) -> Result:
    """The case's result; `{"missing": reason}` where it could not be had. Its complaints go to stderr."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.cases", job.case, json.dumps(job.params)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"missing": f"the case failed with exit code {done.returncode}"}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def run_all(jobs: Iterable[Job], rounds: int, known: dict[str, Result], store: Path | None = None) -> None:
    """Measure what is not `known` yet and add it there, by key; `store`: a file that gets all that is known so far.

    Jobs take turns, round by round, so that a machine that slows down slows them all; the best round counts.
    """
    left = list({job.key: job for job in jobs if job.key not in known}.values())
    for number in range(rounds):
        for job in left:
            if number and (job.once or "missing" in known[job.key]):
                continue
            start = time.perf_counter()
            result = run_case(job)
            print(f"{time.perf_counter() - start:6.1f} s  {job.key}  {_short(result)}", file=sys.stderr, flush=True)
            known[job.key] = better(known[job.key], result) if job.key in known else result
            if store:
                store.write_text(json.dumps(known, indent=1))


def better(first: Result, second: Result) -> Result:
    """Of two measurements of one thing the quicker one, with the larger peak memory of both."""
    if "missing" in second:
        return first
    if "missing" in first:
        return second
    quicker = min(first, second, key=lambda r: r["seconds"] if "seconds" in r else -r.get("operations", 0))
    return {**quicker, "memory": max(first["memory"], second["memory"])}


def _short(result: Result) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in result.items() if isinstance(v, (int, float))) or str(result)[:100]
