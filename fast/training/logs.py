"""What a run says while it goes: a table of losses, TensorBoard, a progress bar."""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fast.runtime.progress import Progress
from ldm.errors import UserError


class LossTable:
    """`metrics.csv`: a row every `every` steps, `step` being the number of steps done. Written whole, by `save`."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self.rows: list[dict[str, Any]] = []

    def continue_from(self, step: int) -> None:
        """Take over what was logged up to `step`; the steps after it will be done again.

        The odd row of a run's last step is left out, so that a run that goes on has the table of an unbroken one.
        """
        if not self.path.is_file():
            return
        try:
            with open(self.path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        except (KeyError, ValueError, TypeError):
            raise UserError(f"{self.path} is not a table of losses; move it out of the run's folder") from None
        self.rows = [row for row in rows if int(row["step"]) % self.every == 0]

    def save(self) -> None:
        if not self.rows:
            return
        names = list(dict.fromkeys(k for row in self.rows for k in row))
        part = self.path.with_suffix(".csv.part")
        try:
            with open(part, "w", newline="") as file:
                writer = csv.DictWriter(file, names, restval="")
                writer.writeheader()
                writer.writerows(self.rows)
            os.replace(part, self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


class Log(pl.Callback):
    """Every `table.every` steps: the mean of the losses over all ranks to the table, TensorBoard and the progress bar.

    The table is saved with each checkpoint (`fast.training.saver`), so that file and resume point belong together.
    """

    def __init__(self, table: LossTable, tensorboard: Path | None):
        self.table, self.folder = table, tensorboard
        self.board: Any = None
        self.progress: TrainingProgress | None = None
        self._rate = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        self.table.continue_from(trainer.global_step)
        self.progress = TrainingProgress(trainer.global_step, trainer.max_steps)
        if self.folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder), purge_step=trainer.global_step + 1)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        losses = self._losses(trainer) if step % self.table.every == 0 or step == trainer.max_steps else {}
        if losses and trainer.is_global_zero:
            self.table.rows.append({"step": step, "lr": self._rate, **losses})
            if self.board is not None:
                for name, value in {"lr": self._rate, **losses}.items():
                    self.board.add_scalar(name, value, step)
        if self.progress is not None:
            self.progress.show(step, losses)

    def _losses(self, trainer: pl.Trainer) -> dict[str, float]:
        """What the module logged in this step. Every rank must call this."""
        logged = {k: v for k, v in sorted(trainer.callback_metrics.items()) if not k.startswith("val/")}
        if not logged:
            return {}
        values = torch.stack([v.detach().float().to(trainer.strategy.root_device) for v in logged.values()])
        mean = trainer.strategy.reduce(values, reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        return dict(zip(logged, mean.tolist(), strict=True))

    def flush(self) -> None:
        """Everything logged so far, on disk."""
        self.table.save()
        if self.board is not None:
            self.board.flush()

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.close()
        if self.board is not None:
            self.board.close()

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self._close()


class TrainingProgress(Progress):
    """A bar on a terminal; elsewhere about twenty lines in all, and one every half a minute between them."""

    def __init__(self, step: int, steps: int):
        super().__init__(steps, "training", "step", initial=step)
        self.between = max(1, steps // 20)

    def show(self, step: int, losses: dict[str, float]) -> None:
        value = next((losses[k] for k in ("train/loss", "aeloss") if k in losses), None)
        if value is not None:
            self.note(f"loss {value:.4g}")
        self.to(step)
        if self.bar.disable and (step % self.between == 0 or step == self.total):
            print(f"step {step}/{self.total}  {self.told or 'loss not logged yet'}", file=sys.stdout, flush=True)
