"""The machine that a figure was measured on, and what a process used of it."""

import importlib.metadata
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fast.runtime.workers import cores

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe(device: str) -> str:
    """The machine in one line: processor, cores, memory, versions."""
    info = _fields(Path("/proc/cpuinfo"))
    features = [f for f in FEATURES if f in info.get("flags", "").split()]
    parts = [f"{info.get('model name') or platform.machine()}, {cores()} cores" + _brackets(features)]
    kilobytes = _fields(Path("/proc/meminfo")).get("MemTotal", "").split()
    if kilobytes:
        parts.append(f"{int(kilobytes[0]) * 1024 / 1e9:.0f} GB memory")
    if device == "cuda":
        chip = torch.cuda.get_device_properties(0)
        parts.insert(0, f"{chip.name}, {chip.total_memory / 1e9:.0f} GB")
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    try:
        parts.append(f"diffusers {importlib.metadata.version('diffusers')}")
    except importlib.metadata.PackageNotFoundError:
        parts.append("without diffusers")
    return "; ".join(parts)


def _brackets(words: list[str]) -> str:
    return f" ({', '.join(words)})" if words else ""


def _fields(path: Path) -> dict[str, str]:
    """The first value of each name in one of Linux's `name: value` files; nothing where there is none."""
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def peak_memory(device: str) -> int:
    """The most bytes that this process has held so far: its memory on the CPU, the tensors' on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    kilobytes = _fields(Path("/proc/self/status")).get("VmHWM", "").split()
    if kilobytes:
        return int(kilobytes[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within, torch's operations use `number` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call, until the GPU has done its part too."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_rate(precision: str, device: str, side: int) -> float:
    """Operations per second of a square matrix product of `side`, the best of some; multiply and add are two."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    with threads(cores()):
        best = min(timed(lambda: torch.mm(a, b), device) for _ in range(8))
    return 2 * side**3 / best
