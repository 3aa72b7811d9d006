"""The task of ``ct-cncl denoise`` for each scan of a batch run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.panel import DIFFERENCE_WINDOW, Tile, picture_panel, save_png
from ct_cncl.pipeline.inference.options import DenoiseOptions
from ct_cncl.pipeline.inference.records import ResultVariant, ScanJob
from ct_cncl.pipeline.inference.streaming import Outcome, denoise_slices, scan_warnings
from ct_cncl.pipeline.weights.load import Weights
from ct_cncl.transforms.common.hu import WINDOWS
from ct_cncl.transforms.series.derivation import Derivation
from ct_cncl.transforms.series.results import ResultWriter
from ct_cncl.transforms.series.slices import Slices


class Denoising:
    """The task of denoising a scan, for :class:`ct_cncl.pipeline.inference.batch.ArchiveRun`.

    Args:
        weights: the network.
        asked: the options.
    """

    verb = ("denoise", "denoised")

    def __init__(self, weights: Weights, asked: DenoiseOptions) -> None:
        self.weights, self.preview = weights, asked.preview
        self.settings = asked.settings(weights.trained_on)

    @property
    def variant(self) -> ResultVariant:
        """The only variant. Results are named after their kinds."""
        return ResultVariant({kind: kind for kind in self.settings.kinds})

    @property
    def options(self) -> Mapping[str, Any]:
        """What the results depend on."""
        precision = {} if self.weights.precision == "fp32" else {"precision": self.weights.precision}
        return {
            "weights": self.weights.checksum,
            "strength": self.settings.strength,
            "kinds": self.settings.kinds,
        } | precision

    def begin(self, slices: Slices) -> list[str]:
        """Warnings about the scan."""
        return scan_warnings(slices, self.weights, self.settings.strength)

    def derivation(self, **common: Any) -> Derivation:
        """What the results' headers say."""
        return Derivation(
            weights=self.weights.checksum, strength=self.settings.strength, precision=self.weights.precision, **common
        )

    def target(self, slices: Slices, path: Path) -> None:
        """Store results like their source."""

    def apply(self, slices: Slices, writer: ResultWriter, tick: Callable[[int], object]) -> Outcome:
        """Denoise, slice by slice."""
        outcome = denoise_slices(slices, writer, self.weights, self.settings, tick=tick)
        outcome.facts = {
            "network_seconds": round(outcome.network_seconds, 3),
            "weights": self.weights.checksum,
            "strength": self.settings.strength,
            "precision": self.weights.precision,
        }
        return outcome

    def finish(self, job: ScanJob, outcome: Outcome, *, single: bool) -> None:
        """Save a picture of the middle slice before and after denoising, and of what was removed, if asked for."""
        path = self.preview
        if path is None or outcome.middle is None:
            return
        if not single:
            path = path.with_name(f"{path.stem}_{job.source.name}{path.suffix}")
        before, after = outcome.middle
        window = WINDOWS["abdomen"]
        tiles = [Tile("input", before, window), Tile("denoised", after, window)]
        save_png(picture_panel([[*tiles, Tile("removed", before - after, DIFFERENCE_WINDOW)]]), path)
