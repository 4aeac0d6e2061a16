"""Which number format this machine computes in: bfloat16 where it has the instructions, float32 elsewhere.

Where it has none a library computes in bfloat16 all the same, one number at a time: correctly, and a hundred times as
slowly.
"""

import os
import platform
import sys
import time
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from fast.runtime.signals import is_first_process

CHOICES = ("auto", "fp32", "bf16")
_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx10_1", "bf16"})  # as Linux names them; the last is ARM's
# oneDNN, which computes for PyTorch, can be told to leave instructions out: only these have bfloat16's.
_LIMITS = ("ALL", "DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


@cache
def has_bf16(device: str = "cpu") -> bool:
    """Whether a device, "cpu" or "cuda", has instructions for bfloat16. Asked of the system: the answer is the same
    however busy the machine is, and so are the pairs that depend on it."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    if limit and not limit.startswith(_LIMITS):
        return False
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked) or bool(_FLAGS & _cpu_flags())


def _cpu_flags(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets that Linux names; none elsewhere."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    own = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return set(own.partition(":")[2].split())


def settled(choice: str, device: str = "cpu", flag: str = "--precision") -> str:
    """A choice among `CHOICES` (or a command's others) with "auto" decided for a device: "bf16" where it computes in
    bfloat16, else "fp32". Who forces bfloat16 where it is slow is warned, with the factor."""
    if choice == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if choice.startswith("bf16") and not has_bf16(device):
        warn(choice, device, flag)
    return choice


def warn(choice: str, device: str, flag: str) -> None:
    """One line, of the first process alone, for somebody who forces bfloat16 on a device without it."""
    if not is_first_process():
        return
    factor = slowdown(device)
    fast = f"takes {factor:.0f} times as long as float32 here" if factor >= 1.5 else "is no faster than float32 here"
    named = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name()
    print(
        f"warning: {flag} {choice}: this {'processor' if device == 'cpu' else 'card'} ({named}) has no instructions "
        f"for bfloat16, which {fast} (measured on a convolution); leave {flag} out for auto",
        file=sys.stderr,
        flush=True,
    )


@cache
def slowdown(device: str = "cpu") -> float:
    """How many times as long as in float32 a small convolution takes in bfloat16, measured in a moment."""
    times = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.ones(1, 64, 24, 24, dtype=dtype, device=device)
        kernel = torch.ones(64, 64, 3, 3, dtype=dtype, device=device)
        times.append(min(_seconds(x, kernel, device) for _ in range(3)))
    return times[1] / times[0]


@torch.no_grad()
def _seconds(x: torch.Tensor, kernel: torch.Tensor, device: str) -> float:
    start = time.perf_counter()
    F.conv2d(x, kernel, padding=1)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
