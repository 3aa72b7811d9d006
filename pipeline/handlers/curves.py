"""Figures over the course of a training run: a CSV file for people, and learning rates for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.common.csv_files import read_csv, write_csv
from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.pipeline.handlers.branch_health import HEALTH_KEY
from ct_cncl.pipeline.handlers.budget import SECONDS_KEY


def loss_terms(output: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Every loss term of a training iteration as a float, for handlers that print or plot."""
    return {name: float(value) for name, value in output.items()}


class MetricsCSV:
    """Writes ``metrics.csv``, with one row per epoch of mean losses, learning rates and validation metrics.

    PSNR is in dB for the data range in the column ``data_range_hu``, RMSE in HU. The losses are the trainer's
    ``engine.state.epoch_losses``, means over all processes like the metrics. After a resume, the rows of epochs that are
    trained again are replaced. With a ``BudgetSchedule``, ``training_seconds`` is the time spent on training steps since the
    start of the run. With a ``BranchHealth``, ``branch_health`` holds its warnings, and is empty if all is well.

    Args:
        path: path of the CSV file.
        data_range: data range of the validation metrics, HU.
        evaluator: evaluator whose metrics belong in the row; it must have validated before this handler runs.
        optimizers: optimizers by name, for the columns ``lr_<name>``; those that are None are left out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        data_range: float,
        evaluator: Engine | None = None,
        optimizers: Mapping[str, Optimizer | None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.data_range = data_range
        self.evaluator = evaluator
        self.optimizers = {name: optimizer for name, optimizer in (optimizers or {}).items() if optimizer is not None}
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Write after each epoch, in the main process only."""
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Start the clock; in the first epoch of this process, read the rows of earlier epochs."""
        if not self.rows and engine.state.epoch > 1:
            self.rows = [row for row in read_csv(self.path) if int(row["epoch"]) < engine.state.epoch]
        self.started = time.perf_counter()

    def epoch_completed(self, engine: Engine) -> None:
        """Write the file with this epoch's row."""
        row: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "seconds": f"{time.perf_counter() - self.started:.1f}",
        }
        if hasattr(engine.state, SECONDS_KEY):  # trained by a budget
            row[SECONDS_KEY] = f"{getattr(engine.state, SECONDS_KEY):.3f}"
        row |= {f"lr_{name}": optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        row |= {name: f"{value:.6g}" for name, value in engine.state.epoch_losses.items()}
        if self.evaluator is not None and self.evaluator.state.metrics and self._validated(engine):
            row["data_range_hu"] = self.data_range
            row |= {name: f"{value:.5f}" for name, value in self.evaluator.state.metrics.items()}
        if hasattr(engine.state, HEALTH_KEY):  # watched by BranchHealth
            row[HEALTH_KEY] = getattr(engine.state, HEALTH_KEY)
        self.rows.append(row)
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_csv(self.path, [columns, *([row.get(name) for name in columns] for row in self.rows)])

    def _validated(self, engine: Engine) -> bool:
        assert self.evaluator is not None
        return self.evaluator.state.epoch == engine.state.epoch


class LearningRateLogger:
    """Writes each optimizer's learning rate to TensorBoard at the end of each epoch, before a scheduler changes it.

    Args:
        writer: TensorBoard writer; None in processes that do not write.
        optimizers: optimizers by name; those that are None are left out.
    """

    def __init__(self, writer: SummaryWriter | None, optimizers: Mapping[str, Optimizer | None]) -> None:
        self.writer = writer
        self.optimizers = {name: optimizer for name, optimizer in optimizers.items() if optimizer is not None}

    def attach(self, engine: Engine) -> None:
        """Write after each epoch, in the main process only."""
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.writer is None:
            return
        for name, optimizer in self.optimizers.items():
            self.writer.add_scalar(f"lr/{name}", optimizer.param_groups[0]["lr"], engine.state.epoch)
