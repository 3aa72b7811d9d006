"""A progress bar for a whole training run."""

from __future__ import annotations

import sys

from ignite.engine import Engine, Events
from tqdm import tqdm

from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.pipeline.handlers.pace import Pace


class TrainingProgress:
    """One progress bar over all iterations of a run, with epoch and loss; the expected time is logged as well.

    Args:
        disable: show no bar; None shows it only if standard error is a terminal, so that log files stay readable.
        interval: iterations between two updates.
    """

    def __init__(self, *, disable: bool | None = None, interval: int = 10) -> None:
        self.disable = not sys.stderr.isatty() if disable is None else disable
        self.interval = interval
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the engine from its start, also in a resumed run, to its end, in the main process only."""
        if not is_main_process():
            return
        Pace().attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def start(self, engine: Engine) -> None:
        """Open the bar at the first epoch of this process."""
        if self.bar is None:
            state = engine.state
            self.bar = tqdm(
                total=state.max_epochs * state.epoch_length,
                initial=state.iteration,
                desc="training",
                unit="it",
                disable=self.disable,
                dynamic_ncols=True,
            )

    def update(self, engine: Engine) -> None:
        """Move to the current iteration."""
        if self.bar is not None and not self.bar.disable:
            self.bar.set_postfix(
                epoch=engine.state.epoch, loss=f"{float(engine.state.output['loss']):.4g}", refresh=False
            )
            self.bar.total = (
                engine.state.max_epochs * engine.state.epoch_length
            )  # with a budget of minutes, the total is an estimate that changes
            self.bar.update(engine.state.iteration - self.bar.n)

    def close(self, _engine: Engine) -> None:
        """Close the bar where it stands."""
        if self.bar is not None:
            self.bar.close()

    def failed(self, engine: Engine, error: BaseException) -> None:
        """Close the bar; the error propagates."""
        self.close(engine)
        raise error
