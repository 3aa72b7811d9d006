"""Training by a budget of time or iterations instead of epochs, for comparisons."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from ct_cncl.pipeline.common.distributed import world_size

SECONDS_KEY = "training_seconds"
"""Name in ``engine.state``, and so in the checkpoint's "trainer", of the seconds spent on training steps."""
USED_KEY = "budget_used"
"""Name, in the same places, of the used fraction of the budget; 1 for a complete run."""


def half_cosine(share: float) -> float:
    """``(1 + cos(pi * share)) / 2``: 1 at the start and 0 at the end of a budget; ``share`` is clipped to 0 ... 1.

    >>> [round(half_cosine(share), 3) for share in (0.0, 0.25, 0.5, 1.0, 1.2)]
    [1.0, 0.854, 0.5, 0.0, 0.0]
    """
    return (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2.0


class BudgetSchedule:
    """Ends a training run when its budget is used up; the learning rates fall to 0 as it is used.

    Before each iteration, every learning rate becomes its initial value times :func:`half_cosine` of the used fraction of the
    budget. So no run ends at a high learning rate, however many epochs the budget allows. Minutes count the time from an
    epoch's start to its last iteration, including data loading but not validation, pictures and checkpoints. The used fraction
    is in ``engine.state``, and so in the checkpoint: a resumed run has only the rest of the budget. The last epoch ends with
    the budget, and is validated and saved like any other. ``engine.state.max_epochs`` is kept at the number of epochs that the
    budget is expected to last.

    Attach it after the handler that resumes. The schedulers of the config must leave the learning rates alone.

    Args:
        optimizers: optimizers by name; those that are None are left out.
        minutes: minutes of training.
        iterations: number of iterations, instead of minutes; the run is then deterministic.

    Raises:
        ValueError: both or none of minutes and iterations are given, the budget is not positive, or it is in minutes with more
            than one process.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer | None],
        *,
        minutes: float | None = None,
        iterations: int | None = None,
    ) -> None:
        if (minutes is None) == (iterations is None):
            raise ValueError(f"Expected either minutes or iterations, but got {minutes} and {iterations}. Give one.")
        if not (minutes if iterations is None else iterations) > 0:  # type: ignore[operator]
            raise ValueError(f"Expected a positive budget, but got {minutes if iterations is None else iterations}.")
        if minutes is not None and world_size() > 1:
            raise ValueError(
                f"Expected a budget in iterations for {world_size()} processes, whose clocks differ, but got minutes. Give iterations."
            )
        self.seconds = None if minutes is None else 60.0 * minutes
        self.iterations = iterations
        self.optimizers = [optimizer for optimizer in optimizers.values() if optimizer is not None]
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow every iteration."""
        engine.state_dict_user_keys.extend([SECONDS_KEY, USED_KEY])
        setattr(engine.state, SECONDS_KEY, 0.0)
        setattr(engine.state, USED_KEY, 0.0)
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_STARTED, self.iteration_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)

    def started(self, engine: Engine) -> None:
        """Allow at least one more epoch, unless the budget is already used up."""
        self._expect(engine)

    def epoch_started(self, _engine: Engine) -> None:
        """Start the clock."""
        self.clock = time.perf_counter()

    def iteration_started(self, engine: Engine) -> None:
        """Set the learning rates."""
        factor = half_cosine(getattr(engine.state, USED_KEY))
        for optimizer, rates in zip(self.optimizers, self.rates):
            for group, initial in zip(optimizer.param_groups, rates):  # a resumed optimizer has new groups
                group["lr"] = initial * factor

    def iteration_completed(self, engine: Engine) -> None:
        """Update the used fraction, and end the training when the budget is used up."""
        now, state = time.perf_counter(), engine.state
        seconds = getattr(state, SECONDS_KEY) + now - self.clock
        self.clock = now
        used = state.iteration / self.iterations if self.iterations else seconds / self.seconds
        setattr(state, SECONDS_KEY, seconds)
        setattr(state, USED_KEY, min(used, 1.0))
        self._expect(engine)
        if used >= 1.0:
            engine.terminate_epoch()  # the epoch is still validated and saved

    def _expect(self, engine: Engine) -> None:
        """Set ``max_epochs`` to the number of epochs that the budget will last at the present speed."""
        state, used = engine.state, getattr(engine.state, USED_KEY)
        if used >= 1.0:
            state.max_epochs = state.epoch
        elif self.iterations is not None:
            state.max_epochs = math.ceil(self.iterations / state.epoch_length)
        else:
            expected = state.iteration / used / state.epoch_length if used > 0 else 0.0
            done = state.iteration // state.epoch_length
            state.max_epochs = max(math.ceil(expected), done + 1)
