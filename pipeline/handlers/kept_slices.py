"""Keep a few evaluated slices as arrays for pages that compare runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from ct_cncl.transforms.common.files import replacing

KEPT = ("image", "label", "content", "denoised", "pred")
"""Keys of the evaluator's output that are kept: y, x, C(y), y - N(y) and the result."""


class KeptSlices:
    """Writes a few slices of an evaluation, evenly spaced over it, as an ``.npz`` file.

    The file holds each of ``KEPT`` as (K, x, y) float32 in HU, and "number" (K,), the numbers of the slices in the evaluation.
    Attach it to the evaluator (``CNCLEvaluator``) with batches of one slice.

    Args:
        path: path of the file.
        count: number of slices; all if there are fewer.

    Raises:
        ValueError: ``count`` is below 1.
    """

    def __init__(self, path: str | Path, *, count: int = 3) -> None:
        if count < 1:
            raise ValueError(f"Expected a count of at least 1 slice, but got {count}.")
        self.path = Path(path)
        self.count = count
        self.kept: dict[int, dict[str, np.ndarray]] = {}

    def attach(self, engine: Engine) -> None:
        """Keep slices during the evaluation, and write the file at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the slice if it is one of those chosen."""
        length = engine.state.epoch_length
        count = min(self.count, length)
        number = (engine.state.iteration - 1) % length
        if number in {(2 * k + 1) * length // (2 * count) for k in range(count)}:
            output = engine.state.output
            self.kept[number] = {key: output[key][0, 0].float().cpu().numpy() for key in KEPT}

    def completed(self, _engine: Engine) -> None:
        """Write the file."""
        arrays: dict[str, Any] = {key: np.stack([images[key] for images in self.kept.values()]) for key in KEPT}
        with replacing(self.path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, number=np.array(list(self.kept)), **arrays)
