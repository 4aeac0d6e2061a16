"""The loss table of a run: one CSV file that a resumed run continues."""

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only


class MetricsFile(Logger):
    """Writes `metrics.csv`, a row per logged step. On resuming, rows after the checkpoint's step are dropped first."""

    def __init__(self, folder: str | os.PathLike[str]):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        return self.path

    def continue_from(self, step: int) -> None:
        """Keep what was logged up to `step`."""
        if self.path.is_file():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {k: v for k, v in metrics.items() if k != "epoch"}
        if values:
            self.rows.append({"step": int(step or 0), **values})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The resolved config is a file of its own beside this one."""

    @rank_zero_only
    def save(self) -> None:
        if not self.rows:
            return
        names = list(dict.fromkeys(k for row in self.rows for k in row))
        part = self.path.with_suffix(".csv.part")
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(part, self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
