"""Losses of an epoch, averaged over its iterations and over all processes."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

from ct_cncl.pipeline.common.distributed import mean_over_processes


class EpochLosses:
    """Puts the means of all loss terms over an epoch and over all processes into ``engine.state.epoch_losses``.

    They are added up on the device and exchanged between the processes once an epoch, so that no iteration waits for
    another process or for the device. A term that only some iterations have (the discriminator's) is averaged over those.
    Attach it in every process, and before the handlers that read the means: it takes part in an exchange.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def attach(self, engine: Engine) -> None:
        """Collect every iteration, exchange every epoch."""
        engine.state.epoch_losses = {}
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, _engine: Engine) -> None:
        """Forget the last epoch."""
        self.sums, self.counts = {}, {}

    def iteration_completed(self, engine: Engine) -> None:
        """Add the terms up, in float64: an epoch may have thousands."""
        for name, value in engine.state.output.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def epoch_completed(self, engine: Engine) -> None:
        """The means, as floats."""
        engine.state.epoch_losses = mean_over_processes(self.sums, self.counts)
