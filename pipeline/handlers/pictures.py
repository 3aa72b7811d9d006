"""Pictures of a few validation slices, for TensorBoard and as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.common.distributed import is_main_process
from ct_cncl.pipeline.common.panel import comparison_panel, save_png
from ct_cncl.transforms.common.hu import WINDOWS


class PicturePanel:
    """Draws panels of input, C(y), y - N(y), result, reference and result - reference after each validation.

    Attach it to the evaluator (``CNCLEvaluator``).

    Args:
        folder: folder of ``slice<k>_epoch<n>.png``; the latest picture of each slice is also kept as ``slice<k>_latest.png``.
        slices: number of slices, evenly spaced over the validation slices.
        window: name of the window, see ``ct_cncl.transforms.common.hu.WINDOWS``.
        interval: epochs between two pictures.
        writer: TensorBoard writer, or None.

    Raises:
        ValueError: the window is unknown, or a number is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        slices: int = 2,
        window: str = "abdomen",
        interval: int = 1,
        writer: SummaryWriter | None = None,
    ) -> None:
        if window not in WINDOWS:
            raise ValueError(f"Expected window to be one of {', '.join(WINDOWS)}, but got {window!r}.")
        if slices < 1 or interval < 1:
            raise ValueError(f"Expected slices and interval of at least 1, but got {slices} and {interval}.")
        self.folder = Path(folder)
        self.slices = slices
        self.window = WINDOWS[window]
        self.interval = interval
        self.writer = writer

    def attach(self, engine: Engine) -> None:
        """Draw after the iterations that hold a chosen slice, in the main process only."""
        if is_main_process():
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _number(self, engine: Engine) -> int | None:
        length = engine.state.epoch_length
        count = min(self.slices, length)
        chosen = [(2 * k + 1) * length // (2 * count) for k in range(count)]
        within_epoch = (engine.state.iteration - 1) % length
        return chosen.index(within_epoch) if within_epoch in chosen else None

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        number = self._number(engine)
        if number is None or (epoch - 1) % self.interval:
            return
        output = engine.state.output

        def first(key: str) -> np.ndarray:
            return output[key][0, 0].detach().float().cpu().numpy()

        grey = comparison_panel(
            image=first("image"),
            content=first("content"),
            denoised=first("denoised"),
            result=first("pred"),
            reference=first("label"),
            window=self.window,
        )
        save_png(grey, self.folder / f"slice{number}_epoch{epoch:04d}.png")
        save_png(grey, self.folder / f"slice{number}_latest.png")
        if self.writer is not None:
            self.writer.add_image(f"slice {number}, window {self.window}", grey, epoch, dataformats="HW")
