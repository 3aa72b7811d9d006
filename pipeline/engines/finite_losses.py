"""Losses and gradients that are not finite: when a training ends, and what the fp16 scaler skips.

By hand: ignite's TerminateOnNan neither fails the run nor names the loss, and takes a step that fp16's scaler skips for the end.
"""

from __future__ import annotations

import logging
import math

import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys

from ct_cncl.pipeline.common.distributed import is_main_process

LEAST_SCALE = 2.0**-10
"""A loss scale below it: gradients overflow however small they are made. fp16's scaler begins at 2^16."""

logger = logging.getLogger(__name__)


SPAN = 10
"""Iterations that are looked at together."""


class FiniteLosses:
    """Ends a training whose loss terms are not finite with one sentence that names them.

    The terms of several iterations are looked at together, and at the end of an epoch before anything of it is saved: no
    iteration waits for the device.

    With fp16 the gradient scaler skips steps whose gradients are not finite and halves its scale, as is normal in the first
    iterations; that is said once an epoch. The training ends where the scale has fallen below :data:`LEAST_SCALE`.
    """

    def __init__(self) -> None:
        self.unseen: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.skipped: list[str] = []
        self.scales: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Collect every iteration, look now and then; before the handlers that save. Needs ``g_scaler`` and ``d_scaler``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Nothing was skipped yet."""
        self.skipped, self.scales = [], _scales(engine)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the terms; look at them every :data:`SPAN` iterations.

        Raises:
            FloatingPointError: a term is not finite; with fp16, only once the scale has fallen to nothing.
        """
        self.unseen.append((engine.state.iteration, dict(engine.state.output)))
        if len(self.unseen) >= SPAN:
            self._look(engine)

    def epoch_completed(self, engine: Engine) -> None:
        """Look at the rest, and say what was skipped.

        Raises:
            FloatingPointError: see ``iteration_completed``.
        """
        self._look(engine)
        if not is_main_process():
            return
        if self.skipped:
            logger.warning(
                "fp16, epoch %d: %d iterations with losses that are not finite were skipped, the first with %s.",
                engine.state.epoch,
                len(self.skipped),
                self.skipped[0],
            )
        for name, scale in _scales(engine).items():
            if scale < self.scales.get(name, scale):
                logger.info(
                    "fp16, epoch %d: steps of the %s whose gradients were not finite were skipped; its loss scale fell from "
                    "%g to %g.",
                    *(engine.state.epoch, name, self.scales[name], scale),
                )

    def _look(self, engine: Engine) -> None:
        rows, self.unseen = self.unseen, []
        if not rows:
            return
        values = iter(torch.stack([term.float() for _, output in rows for term in output.values()]).tolist())
        found = []
        for iteration, output in rows:
            wrong = {name: value for name, value in zip(output, values) if not math.isfinite(value)}
            if len(wrong) > 1:
                wrong.pop(CommonKeys.LOSS, None)  # the sum; its terms say more
            if wrong:
                terms = ", ".join(f"{name} = {value}" for name, value in wrong.items())
                found.append(f"{terms} in iteration {iteration}")
        scales = _scales(engine)
        if found and "generator" not in scales:
            raise FloatingPointError(
                f"Expected finite losses, but got {found[0]}. Lower the learning rate, set clip_grad_norm, or look for NaN in "
                "the data."
            )
        self.skipped += found
        for name, scale in scales.items():
            if scale < LEAST_SCALE:
                raise FloatingPointError(
                    f"Expected finite gradients of the {name}, but got none in fp16, down to a loss scale of {scale:g}"
                    f"{f' ({self.skipped[0]})' if self.skipped else ''}. Set precision=bf16 or fp32, or look for NaN in the data."
                )


def _scales(engine: Engine) -> dict[str, float]:
    """Scales of the scalers that are on."""
    scalers = {"generator": engine.g_scaler, "discriminator": engine.d_scaler}
    return {name: scaler.get_scale() for name, scaler in scalers.items() if scaler.is_enabled()}
