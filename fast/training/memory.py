"""Memory of a training step: what its forward pass would keep, what there is, and which of the two decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fast.training.trainer import say

# Beside what is kept, a backward pass holds gradients on their way and the kernels' own space (measured: a fifth).
PASSING = 1.3
SPARE = 1 << 29  # bytes left to others


def fits(kept: int, pending: int, available: int) -> bool:
    """Whether `available` bytes hold what the forward pass keeps, what the backward pass adds and what is `pending`."""
    return PASSING * kept + pending + SPARE <= available


def kept_bytes(module: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that `forward()` would keep for its backward pass, beside weights and buffers. None of it is kept."""
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    alive: WeakSet[torch.UntypedStorage] = WeakSet()  # addresses are used again, for nothing is kept
    total = 0

    def count(tensor: Tensor) -> None:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage not in alive:
            alive.add(storage)
            total += storage.nbytes()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        forward()
    return total


def pending_bytes(optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of gradients and of Adam's two moments that are not there yet: before a first step, all of them."""
    total = 0
    for optimizer in optimizers:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            total += p.nbytes * ((p.grad is None) + 2 * (not optimizer.state.get(p)))
    return total


def mapped_bytes(module: nn.Module) -> int:
    """Bytes of weights that are read from a mapped file at each step: memory counted as free that must stay theirs."""
    return max(0, sum(p.nbytes for p in module.parameters()) - _own_bytes())


def available_bytes(device: torch.device) -> int | None:
    """Memory that this process could still take on a GPU or a CPU; None where nobody says."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *_left_in_groups()]) if device.type == "cpu" else None


def _own_bytes() -> int:
    """Memory of this process that no mapped file can fill again."""
    used = psutil.Process().memory_info()
    return int(used.rss - getattr(used, "shared", 0))


def _left_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What the limits of a container or of a cluster's job leave; files that can be dropped do not count as used."""
    left: list[int] = []
    try:
        name = next(line.split(":", 2)[2] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return left
    group = root / name.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            break
        try:
            used = int((folder / "memory.current").read_text())
            files = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(int((folder / "memory.max").read_text()) - used + int(files["inactive_file"]))
        except (OSError, ValueError, KeyError):  # the word max, or no such group here
            continue
    return left


class Checkpointing(pl.Callback):
    """Decides before the first step whether the U-Net's activations are kept or computed again in the backward pass.

    Losses and gradients are the same either way, bit for bit on a CPU. On several devices all do the same.

    Args:
        choice: "always" computes them again, "never" keeps them, "auto" keeps them if they fit. For that one forward
            pass counts what it would keep (`kept_bytes`), and `fits` compares it with the memory there is. Where a
            device does not tell its memory, "auto" leaves the model as its config has it (`use_checkpoint`).
    """

    def __init__(self, choice: str = "auto"):
        self.choice: str | None = choice

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        choice, self.choice = self.choice, None
        if choice is None or not hasattr(module, "set_checkpointing"):
            return
        if choice != "auto":
            module.set_checkpointing(choice == "always")
            return
        device = trainer.strategy.root_device
        available = available_bytes(device)
        if not trainer.strategy.reduce_boolean_decision(available is not None):
            return
        assert available is not None
        pending = pending_bytes(trainer.optimizers)
        if device.type == "cpu":
            available //= trainer.num_devices  # its processes share one memory
            pending += mapped_bytes(module)
        module.set_checkpointing(False)
        with trainer.precision_plugin.forward_context():
            kept = kept_bytes(module, lambda: module.loss(batch))
        keep = trainer.strategy.reduce_boolean_decision(fits(kept, pending, available))
        module.set_checkpointing(not keep)
        done = "kept" if keep else "computed twice to save memory"
        say(f"activations of a step, {kept / 1e9:.2f} GB where {available / 1e9:.1f} GB are free: {done}")
