"""Figures of training steps in TensorBoard: norm of the gradients, and patches per second."""

from __future__ import annotations

import math
import time

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.common.distributed import is_main_process, world_size


class StepFigures:
    """Writes ``gradient_norm`` every few iterations and ``patches_per_second`` every epoch.

    The norm (L2, over all weights of the generator) is that of the whole batch's gradient, before clipping and without fp16's
    loss scale; a gradient that overflowed because of that scale is left out. The rate counts the patches of all processes, and
    not the time of validation and checkpoints.

    Args:
        writer: TensorBoard writer; None in processes that do not write.
        interval: iterations between two norms, since each norm has to wait for the device.
    """

    def __init__(self, writer: SummaryWriter | None, *, interval: int = 10) -> None:
        self.writer = writer
        self.interval = interval
        self.patches = 0
        self.started = self.ended = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow a ``CNCLTrainer``, in the main process only."""
        if self.writer is None or not is_main_process():
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.backward_completed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, _engine: Engine) -> None:
        """Start the clock."""
        self.patches, self.started = 0, time.perf_counter()

    def backward_completed(self, engine: Engine) -> None:
        """Write the norm every ``interval`` iterations."""
        assert self.writer is not None
        if engine.state.iteration % self.interval:
            return
        norm = gradient_norm(engine.generator) / engine.g_scaler.get_scale()
        if math.isfinite(norm):
            self.writer.add_scalar("gradient_norm", norm, engine.state.iteration)

    def iteration_completed(self, engine: Engine) -> None:
        """Count this batch."""
        self.patches += len(engine.state.batch["image"])
        self.ended = time.perf_counter()

    def epoch_completed(self, engine: Engine) -> None:
        """Write the speed of the epoch's steps."""
        assert self.writer is not None
        seconds = self.ended - self.started
        if seconds > 0:
            self.writer.add_scalar("patches_per_second", self.patches * world_size() / seconds, engine.state.epoch)


def gradient_norm(network: torch.nn.Module) -> float:
    """L2 norm of all gradients of a network together; 0 if it has none.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> (3 * layer.weight[0, 0] - 4 * layer.weight[0, 1]).backward()
    >>> gradient_norm(layer)
    5.0
    """
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    norms = [torch.linalg.vector_norm(each, dtype=torch.float64) for each in gradients]  # squares overflow float32
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
