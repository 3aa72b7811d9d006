"""What a batch run does with each scan: denoising it (:mod:`.denoising`) or simulating a lower dose (:mod:`ct_cncl.pipeline.simulation`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ct_cncl.pipeline.inference.records import ResultVariant, ScanJob
from ct_cncl.pipeline.inference.streaming import Outcome
from ct_cncl.transforms.series.derivation import Derivation, Processing
from ct_cncl.transforms.series.results import ResultWriter
from ct_cncl.transforms.series.slices import Slices
from ct_cncl.transforms.series.volume_file import VolumeFile


class RunOptions(Protocol):
    """Options that every run over an archive has."""

    @property
    def series(self) -> tuple[str, ...]:
        """Only these series, by number, name or tag; empty for all."""

    @property
    def strict(self) -> bool:
        """Refuse series with missing, duplicate or unevenly spaced slices."""

    @property
    def derived(self) -> bool:
        """Also accept results of this program and other derived images."""

    @property
    def compression(self) -> str:
        """Compression of DICOM results."""

    @property
    def deidentify(self) -> bool:
        """Remove the patient's identity."""

    @property
    def overwrite(self) -> bool:
        """Replace results made with other options or by another version."""

    @property
    def progress(self) -> bool:
        """Report progress on the terminal."""


class Task(Protocol):
    """The work on every scan of a run."""

    @property
    def verb(self) -> tuple[str, str]:
        """The verb and its past participle, for messages: "denoise", "denoised"."""

    @property
    def variant(self) -> ResultVariant:
        """What distinguishes its results from those of the run's other tasks."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What the results depend on besides source, variant, compression and de-identification."""

    def begin(self, slices: Slices) -> list[str]:
        """Inspect a scan before its results are opened, and return warnings."""

    def derivation(self, **common: Any) -> Derivation | Processing:
        """What the results' headers will say; ``common`` holds version, warnings, compression, content and made."""

    def target(self, slices: Slices, path: Path) -> VolumeFile | None:
        """How to store a result at ``path``; None to store it like its source."""

    def apply(self, slices: Slices, writer: ResultWriter, tick: Callable[[int], object]) -> Outcome:
        """Make the results, slice by slice."""

    def finish(self, job: ScanJob, outcome: Outcome, *, single: bool) -> None:
        """Write further files next to results that are in place."""
