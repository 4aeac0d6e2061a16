"""A Ray cluster, joined for the time of one command. The only module that starts Ray."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fast.runtime.project import PROJECT
from fast.runtime.runner import require
from ldm.errors import UserError

STORE = 200 << 20  # bytes for objects of a cluster that is started here: nothing large goes through it
GONE = "the Ray cluster is gone; start it again and give the same command, which goes on with what is made"


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected. `address`: HOST:PORT of a head; None: the cluster that this machine is part of, or
    one on this machine alone, which ends with the command. Raises `UserError` where there is none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports home otherwise
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = require("ray", "ray")
    _as_ray_start()
    # The project's modules, installed or not; as many threads as elsewhere, where somebody has said how many.
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    how: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {"PYTHONPATH": path, **threads}},
    }
    try:
        with _own_signals():
            ray.init(address=address or "auto", **how)
    except Exception as error:  # Ray has no one class for it
        if address is not None:
            raise UserError(
                f"--runner ray://{address}: no Ray cluster answers ({_first(error)}); check `ray status`, and set "
                "RAY_AUTH_MODE to token or disabled, as `ray start` has said"
            ) from None
        with _own_signals():
            _start(ray, how)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray's own handler of SIGTERM would end the command in the middle of everything."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _as_ray_start() -> None:
    """Bring the token of this machine where there is one: since Ray 2.60 a cluster that is started alone makes one, and
    from then on every `ray start` wants it, which `ray.init` does not know."""
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    except ImportError:  # of a Ray that wants tokens only where RAY_AUTH_MODE says so
        return
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    finally:
        logger.setLevel(before)


def _start(ray: Any, how: dict[str, Any]) -> None:
    """A cluster of this machine alone. Raises `UserError` where Ray does not come up, on a busy machine say."""
    try:
        ray.init(address="local", include_dashboard=False, object_store_memory=STORE, **how)
    except Exception as error:
        raise UserError(
            f"--runner ray: Ray does not start here ({_first(error)}); run `ray start --head` and give its address, "
            "--runner ray://HOST:PORT"
        ) from None


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]


@dataclass(frozen=True)
class Machines:
    """What a cluster has: machines, and of the smallest of them the cores, GPUs of all."""

    count: int
    cores: int
    gpus: int

    def share(self, workers: int | None, on_gpu: bool) -> tuple[int, dict[str, Any]]:
        """(workers, what of the cluster each of them gets). By default one a GPU, or one a machine with its cores."""
        if on_gpu:
            count = workers or self.gpus
            each = max(1, min(4, self.cores * self.count // max(1, self.gpus)))
            return count, {"num_gpus": 1, "num_cpus": each}
        count = workers or self.count
        return count, {"num_gpus": 0, "num_cpus": max(1, min(self.cores, self.cores * self.count // count))}


def machines(ray: Any) -> Machines:
    """The living machines of the cluster that offer cores."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not found:
        raise UserError("the Ray cluster offers no CPU; start its machines without --num-cpus=0")
    return Machines(len(found), int(min(r["CPU"] for r in found)), int(sum(r.get("GPU", 0) for r in found)))


def wants_gpu(device: str, found: Machines) -> bool:
    """Whether work on `device` ("auto", "cpu", "cuda") takes GPUs of the cluster. Raises `UserError` where there are
    none."""
    if device == "cuda" and not found.gpus:
        raise UserError("--device cuda: the Ray cluster has no GPU; use --device cpu")
    return device != "cpu" and found.gpus > 0


def go_to(folder: str) -> None:
    """Make the folder that the command was given in this process's own, so that relative paths mean the same. Raises
    `UserError` for one that this machine does not have."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"{os.uname().nodename} has no folder {folder} ({error.strerror}); --runner ray needs one file system for "
            "all machines"
        ) from None


def cause_of(error: BaseException) -> BaseException:
    """What was raised in a worker, behind Ray's wrapping."""
    return getattr(error, "cause", None) or error
