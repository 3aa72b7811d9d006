"""Handling of losses and gradients that are not finite: ending the training, or reporting what the fp16 scaler skips.

Ignite's TerminateOnNan does not serve here: it neither fails the run nor names the loss, and it ends the run at a step that the fp16
scaler would only skip.
"""

from __future__ import annotations

import logging
import math

import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys

from ct_cncl.pipeline.common.distributed import is_main_process

LEAST_SCALE = 2.0**-10
"""With a loss scale below this, gradients overflow however much they are scaled down. The fp16 scaler begins at 2^16."""

logger = logging.getLogger(__name__)


SPAN = 10
"""Number of iterations that are checked together."""


class FiniteLosses:
    """Ends a training if a loss term is not finite, with an error that names the term.

    The terms of several iterations are checked together, so that no iteration waits for the device. The last terms of an epoch
    are checked at its end, before anything is saved.

    With fp16, the gradient scaler skips steps whose gradients are not finite and halves its scale, as is normal in the first
    iterations. This is logged once per epoch. The training ends if the scale falls below :data:`LEAST_SCALE`.
    """

    def __init__(self) -> None:
        self.unseen: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.skipped: list[str] = []
        self.scales: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an engine with ``g_scaler`` and ``d_scaler``. Do this before attaching handlers that save."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Reset what was skipped."""
        self.skipped, self.scales = [], _scales(engine)

    def iteration_completed(self, engine: Engine) -> None:
        """Store the terms, and check them every :data:`SPAN` iterations.

        Raises:
            FloatingPointError: a term is not finite; with fp16, only once the scale has fallen below :data:`LEAST_SCALE`.
        """
        self.unseen.append((engine.state.iteration, dict(engine.state.output)))
        if len(self.unseen) >= SPAN:
            self._look(engine)

    def epoch_completed(self, engine: Engine) -> None:
        """Check the remaining terms, and log what was skipped.

        Raises:
            FloatingPointError: see ``iteration_completed``.
        """
        self._look(engine)
        if not is_main_process():
            return
        if self.skipped:
            logger.warning(
                "fp16, epoch %d: %d iterations were skipped because a loss was not finite, the first with %s.",
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
                wrong.pop(CommonKeys.LOSS, None)  # this is only the sum; the terms say more
            if wrong:
                terms = ", ".join(f"{name} = {value}" for name, value in wrong.items())
                found.append(f"{terms} in iteration {iteration}")
        scales = _scales(engine)
        if found and "generator" not in scales:
            raise FloatingPointError(
                f"Expected finite losses, but got {found[0]}. Lower the learning rate, set clip_grad_norm, or check the data for "
                "NaN."
            )
        self.skipped += found
        for name, scale in scales.items():
            if scale < LEAST_SCALE:
                raise FloatingPointError(
                    f"Expected finite gradients of the {name}, but got none in fp16, down to a loss scale of {scale:g}"
                    f"{f' ({self.skipped[0]})' if self.skipped else ''}. Set precision=bf16 or fp32, or check the data for NaN."
                )


def _scales(engine: Engine) -> dict[str, float]:
    """The loss scales of the scalers that are enabled."""
    scalers = {"generator": engine.g_scaler, "discriminator": engine.d_scaler}
    return {name: scaler.get_scale() for name, scaler in scalers.items() if scaler.is_enabled()}
