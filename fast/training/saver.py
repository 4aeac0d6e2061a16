"""Keeping a run: the resume point, the artifacts, and a clean stop on Ctrl-C."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from fast.runtime.command import write_failure
from fast.training.callbacks import Clock, Stopped, way_on
from fast.training.logs import Log
from ldm.checkpoint import read_checkpoint, save_safetensors

LAST = Path("checkpoints") / "last.ckpt"


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint straight to disk, whole or not at all, and reads one without running pickled code.

    A failed write is kept in `problem` instead of raised: only rank 0 writes, and all ranks must stop together.
    """

    problem = ""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        part = Path(f"{path}.part")

        def write() -> None:
            torch.save(checkpoint, part)
            os.replace(part, path)

        self.problem = self.problem or attempt(write, part)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return read_checkpoint(path)


def attempt(write: Callable[[], object], part: Path) -> str:
    """Do `write`; what the user must know if the disk refused, else nothing. `part` is removed on failure."""
    try:
        write()
    except BaseException as error:
        reason = write_failure(error, part.with_name(part.name.removesuffix(".part")))
        part.unlink(missing_ok=True)
        if reason is None:
            raise
        return reason
    return ""


class Saver(pl.Callback):
    """Every `every` steps, at the end and on Ctrl-C: the artifact, the loss table and `checkpoints/last.ckpt`.

    Saves between two steps, when everything that belongs to the last one is done (averaged weights, log).
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        keep: int,
        metadata: dict[str, str],
        clock: Clock,
        log: Log,
        file: CheckpointFile,
    ):
        self.folder, self.every, self.keep, self.metadata = folder, every, keep, metadata
        self.clock, self.log_, self.file = clock, log, file
        self.stopping = False
        self.latest: Path | None = None
        self._saved = -1
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._saved = trainer.global_step
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def _restore_signals(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return  # half a step cannot be resumed
        step = trainer.global_step
        stopping = trainer.strategy.reduce_boolean_decision(self.stopping, all=False)
        if step != self._saved and (stopping or step % self.every == 0):
            self.save(trainer)
        if stopping:
            raise Stopped(f"interrupted at step {step}; go on with -t -r {self.folder}")

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.global_step != self._saved:
            self.save(trainer)
        self._restore_signals()

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self._restore_signals()

    def save(self, trainer: pl.Trainer) -> None:
        """The resume point last: a kill before it is as if nothing had been saved."""
        step, module = trainer.global_step, trainer.lightning_module
        name, tensors = module.artifact()  # type: ignore[operator]
        finite = all(bool(torch.isfinite(v).all()) for v in tensors.values())
        if not trainer.strategy.reduce_boolean_decision(finite):
            raise Stopped(f"the weights are not finite (NaN) after step {step}; {way_on(self.folder)}")
        self.file.problem = ""
        if trainer.is_global_zero:
            path = self.folder / "checkpoints" / f"{name}-{step}.safetensors"
            self.file.problem = attempt(lambda: self._write(path, tensors, module), path.with_name(path.name + ".part"))
            self.latest = path
        trainer.save_checkpoint(self.folder / LAST)
        problem = trainer.strategy.broadcast(self.file.problem)
        if problem:
            where = f"step {step} was not saved in {self.folder / 'checkpoints'}"
            raise Stopped(f"{where} ({problem}); free space there and go on with -t -r {self.folder}")
        self._saved = step
        self._prune()

    def _write(self, path: Path, tensors: dict[str, torch.Tensor], module: Any) -> None:
        own: dict[str, str] = getattr(module, "artifact_metadata", dict)()
        spent = {"step": path.stem.rsplit("-", 1)[1], "minutes": f"{self.clock.minutes:.4f}"}
        save_safetensors(tensors, path, {**spent, **self.metadata, **own})
        self.log_.flush()

    def _prune(self) -> None:
        if self.keep and self.latest:
            name = self.latest.stem.rsplit("-", 1)[0]
            found = self.latest.parent.glob(f"{name}-*.safetensors")
            for old in sorted(found, key=lambda p: int(p.stem.rsplit("-", 1)[1]))[: -self.keep]:
                old.unlink()
