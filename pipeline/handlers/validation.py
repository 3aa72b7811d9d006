"""Validation while training."""

from __future__ import annotations

from ignite.engine import Engine, Events


class Validation:
    """Runs the evaluator after every ``interval`` epochs, and after the last one.

    This does not use MONAI's ValidationHandler: it leaves out the last epoch if the number of epochs is no multiple of the
    interval, so that ``best.pt`` would be older than the run's end. It is attached before the handlers that use the result.

    Args:
        evaluator: the engine that validates.
        interval: number of epochs between two validations, at least 1.
    """

    def __init__(self, evaluator: Engine, interval: int = 1) -> None:
        self.evaluator = evaluator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Follow the epochs of the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_completed(self, engine: Engine) -> None:
        """Validate if this epoch is one of every ``interval``, or the last; a budget may move the last while it trains."""
        epoch = engine.state.epoch
        if epoch % self.interval == 0 or epoch == engine.state.max_epochs:
            self.evaluator.run(epoch)
