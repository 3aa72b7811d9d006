"""Seconds that the network takes per slice, measured during an evaluation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from ct_cncl.transforms.common.files import replacing


class ForwardSeconds:
    """Writes the median time of a forward pass over an evaluation as JSON: seconds, slices, device and threads.

    The time runs from the loaded batch to all branches in HU; loading, metrics and pictures do not count. Attach it to the
    evaluator (``CNCLEvaluator``) with batches of one slice.

    Args:
        path: path of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.seconds: list[float] = []
        self.clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Time every iteration, and write the file at the end."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.stop)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def start(self, engine: Engine) -> None:
        """Start the clock once the device is idle."""
        _wait(engine.state.device)
        self.clock = time.perf_counter()

    def stop(self, engine: Engine) -> None:
        """Stop the clock once the device is done."""
        _wait(engine.state.device)
        self.seconds.append(time.perf_counter() - self.clock)

    def completed(self, engine: Engine) -> None:
        """Write the file."""
        content = {
            "seconds": median(self.seconds),
            "slices": len(self.seconds),
            "device": str(engine.state.device),
            "threads": torch.get_num_threads(),
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _wait(device: torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
