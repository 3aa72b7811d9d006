"""Output of an evaluation or an inference: a table of figures, or the list of files."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from ct_cncl.pipeline.common.csv_files import write_csv
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.numbers import counted

logger = logging.getLogger(__name__)

ROWS = {"input": "_input", "C(y)": "_content", "y - N(y)": "_denoised", "result": ""}
"""Rows of the table, and the suffix of their metrics' names."""
_COLUMNS = {"psnr": "PSNR dB", "ssim": "SSIM", "rmse": "RMSE HU"}


def format_table(metrics: dict[str, float], *, data_range: float, slices: int) -> str:
    """A plain-text table of means over slices: input, both branches, result.

    >>> print(format_table({f"{m}{s}": 1.0 for m in _COLUMNS for s in ROWS.values()}, data_range=4096, slices=2))
    mean over 2 slices, range 4096 HU
                PSNR dB     SSIM  RMSE HU
    input          1.00   1.0000     1.00
    C(y)           1.00   1.0000     1.00
    y - N(y)       1.00   1.0000     1.00
    result         1.00   1.0000     1.00
    """
    lines = [
        f"mean over {counted(slices, 'slice')}, range {data_range:g} HU",
        " " * 10 + "".join(f"{c:>9}" for c in _COLUMNS.values()),
    ]
    for row, suffix in ROWS.items():
        values = (metrics[f"{name}{suffix}"] for name in _COLUMNS)
        lines.append(
            f"{row:<10}" + "".join(f"{value:>9.{4 if name == 'ssim' else 2}f}" for name, value in zip(_COLUMNS, values))
        )
    return "\n".join(lines)


class EvaluationTable:
    """Writes ``slices.csv`` (one row per slice) and ``summary.json`` (means), and logs the table.

    Args:
        folder: folder of both files.
        data_range: data range of the metrics, HU.
        overwrite: replace the files of an earlier evaluation.
        progress: show a progress bar on a terminal.

    Raises:
        OutputError: the folder holds an evaluation, and ``overwrite`` is off.
    """

    def __init__(
        self, folder: str | Path, *, data_range: float, overwrite: bool = False, progress: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.data_range = data_range
        self.progress = progress and sys.stderr.isatty()
        self.bar: tqdm | None = None
        if (self.folder / "summary.json").exists() and not overwrite:
            raise OutputError(
                f"{self.folder} already holds an evaluation. Replace it with --overwrite, or choose another folder."
            )

    def attach(self, engine: Engine) -> None:
        """Follow the evaluation and write the files at its end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def start(self, engine: Engine) -> None:
        """Open the progress bar."""
        self.bar = tqdm(total=engine.state.epoch_length, desc="evaluating", unit="slice", disable=not self.progress)

    def advance(self, _engine: Engine) -> None:
        """Move the bar by one slice."""
        if self.bar is not None:
            self.bar.update()

    def completed(self, engine: Engine) -> None:
        """Write both files and log the table."""
        if self.bar is not None:
            self.bar.close()
        metrics: dict[str, float] = dict(engine.state.metrics)
        details = {name: values.flatten().tolist() for name, values in engine.state.metric_details.items()}
        slices = len(next(iter(details.values())))
        rows = [[number, self.data_range, *values] for number, values in enumerate(zip(*details.values()))]
        write_csv(self.folder / "slices.csv", [["slice", "data_range_hu", *details], *rows])
        summary: dict[str, Any] = {"data_range_hu": self.data_range, "slices": slices, "means": metrics}
        with replacing(self.folder / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        logger.info(
            "Evaluation, %s\nWritten to %s.",
            format_table(metrics, data_range=self.data_range, slices=slices),
            self.folder,
        )


class WrittenFiles:
    """Logs every file that an inference wrote, and how many voxels were out of range for its data type.

    Args:
        saver: the ``SaveScand`` of the postprocessing.
    """

    def __init__(self, saver: Any) -> None:
        self.saver = saver
        self.logged = 0

    def attach(self, engine: Engine) -> None:
        """Log the files after each scan."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, _engine: Engine) -> None:
        for report in self.saver.reports[self.logged :]:
            clipped = f"; {report.clipped} of {report.voxels} voxels clipped to its range" if report.clipped else ""
            logger.info("Wrote %s (%s%s).", report.path, report.dtype, clipped)
        self.logged = len(self.saver.reports)
