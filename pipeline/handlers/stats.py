"""One readable line per epoch.

MONAI's StatsHandler logs a traceback for every exception, even for those that users should see as one line; this does not.
"""

from __future__ import annotations

import logging

from ignite.engine import Engine, Events

from ct_cncl.pipeline.common.distributed import is_main_process

logger = logging.getLogger(__name__)

_TERMS = (
    "Terms: y is the low-dose image, x the full-dose image. C(y) and y - N(y) are the estimates of the two branches; the result "
    "combines them. Losses include their weights; loss is the sum that the branches learn from. Validation counts all pixels; "
    "ct-cncl evaluate leaves out padding (pixels that the scanner did not measure), so its figures differ."
)
_DISCRIMINATOR_TERMS = (
    " The discriminator tells x from results: d_real and d_fake are its mean outputs for them, d_accuracy is how often it is right "
    "(0.5 is guessing)."
)


class StatsLog:
    """Logs the epoch's mean losses and the validation metrics after each epoch.

    Args:
        data_range: data range of the metrics, HU.
        evaluator: evaluator that has validated the epoch before this handler runs, or None.
    """

    def __init__(self, *, data_range: float, evaluator: Engine | None = None) -> None:
        self.data_range = data_range
        self.evaluator = evaluator
        self.explained = False

    def attach(self, engine: Engine) -> None:
        """Log after each epoch, in the main process only."""
        if is_main_process():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self._explain(engine)
        losses = ", ".join(
            f"{name.removeprefix('loss_')} {value:.4g}" for name, value in engine.state.epoch_losses.items()
        )
        logger.info("Epoch %d of %d, means: %s.", engine.state.epoch, engine.state.max_epochs, losses)
        evaluator = self.evaluator
        if evaluator is None or evaluator.state.epoch != engine.state.epoch or not evaluator.state.metrics:
            return
        values = evaluator.state.metrics
        logger.info(
            "Validation, range %g HU: PSNR %.2f dB (input %.2f, C(y) %.2f, y - N(y) %.2f), SSIM %.4f (input %.4f), "
            "RMSE %.2f HU (input %.2f)%s%s.",
            self.data_range,
            *(values[name] for name in ("psnr", "psnr_input", "psnr_content", "psnr_denoised", "ssim", "ssim_input")),
            *(values[name] for name in ("rmse", "rmse_input")),
            f", pixel losses {values['validation_loss']:.4g}" if "validation_loss" in values else "",
            f", correlation of N(y) with edges {values['edge_correlation']:.3f} (0 is best)"
            if "edge_correlation" in values
            else "",
        )

    def _explain(self, engine: Engine) -> None:
        """Log once what the terms mean, before the first line that uses them."""
        if self.explained:
            return
        self.explained = True
        logger.info(_TERMS + (_DISCRIMINATOR_TERMS if "loss_discriminator" in engine.state.epoch_losses else ""))
