"""Losses of an epoch, averaged over its iterations and over all processes."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events

from ct_cncl.pipeline.common.distributed import mean_over_processes


class EpochLosses:
    """Writes the mean of every loss term over an epoch and over all processes to ``engine.state.epoch_losses``.

    Terms are summed on the device and exchanged between processes once per epoch, so that no iteration waits for another
    process or for the device. A term that only some iterations have (the discriminator's) is averaged over those.
    Attach it in every process, since all take part in the exchange, and before the handlers that read the means.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def attach(self, engine: Engine) -> None:
        """Collect terms in every iteration, and exchange them after every epoch."""
        engine.state.epoch_losses = {}
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, _engine: Engine) -> None:
        """Reset the sums."""
        self.sums, self.counts = {}, {}

    def iteration_completed(self, engine: Engine) -> None:
        """Add the terms in float64, since an epoch may have thousands of iterations."""
        for name, value in engine.state.output.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def epoch_completed(self, engine: Engine) -> None:
        """Write the means, as floats."""
        engine.state.epoch_losses = mean_over_processes(self.sums, self.counts)
