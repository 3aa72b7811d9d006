"""Estimate how long a training run will take from its first steps, and log it once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sized

from ignite.engine import Engine, Events

from ct_cncl.pipeline.common.distributed import is_main_process, world_size

logger = logging.getLogger(__name__)

_WARM_UP = 3
"""Iterations that are not measured: the first ones allocate, compile and fill caches."""
_LEAST_ITERATIONS, _LEAST_SECONDS = 10, 5.0
_WORTH_SAYING = 60.0
"""Shortest remaining time, in seconds, that is logged."""


class Pace:
    """Logs patches per second and the remaining time, after the first steps of a process."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._first = self._steps = 0

    def attach(self, engine: Engine) -> None:
        """Measure from the start of this process, also in a resumed run; only the main process logs."""
        if is_main_process():
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self._steps < 0:  # already logged
            return
        self._steps += 1
        if self._steps == _WARM_UP:
            self._started, self._first = time.perf_counter(), engine.state.iteration
            return
        if self._started is None or self._steps < _WARM_UP + _LEAST_ITERATIONS:
            return
        seconds = time.perf_counter() - self._started
        if seconds < _LEAST_SECONDS:
            return
        state = engine.state
        each = seconds / (state.iteration - self._first)
        left = (state.max_epochs * state.epoch_length - state.iteration) * each
        self._steps = -1
        if left >= _WORTH_SAYING:
            logger.info(
                "%s on this machine: %s to the end of epoch %d, without validation and checkpoints.",
                _speed(state.batch, each),
                duration(left),
                state.max_epochs,
            )


def _speed(batch: object, seconds: float) -> str:
    images = batch.get("image") if isinstance(batch, dict) else None
    if not isinstance(images, Sized):
        return f"{1 / seconds:.2g} steps/s"
    return f"{len(images) * world_size() / seconds:.3g} patches/s"


def duration(seconds: float) -> str:
    """A time in words, rounded to about a tenth.

    >>> duration(45), duration(600), duration(61_000), duration(5_400)
    ('about 45 seconds', 'about 10 minutes', 'about 17 hours', 'about 1.5 hours')
    """
    if seconds < 90:
        return f"about {seconds:.0f} seconds"
    if seconds < 90 * 60 - 1:
        return f"about {seconds / 60:.0f} minutes"
    hours = seconds / 3600
    return f"about {hours:.0f} hours" if hours >= 10 else f"about {hours:.1f} hours"
