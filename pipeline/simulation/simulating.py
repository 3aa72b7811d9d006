"""The task of ``ct-cncl simulate`` for each scan of a batch run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ct_cncl.pipeline.inference.records import ResultVariant, ScanJob
from ct_cncl.pipeline.inference.streaming import Outcome, stream_slices
from ct_cncl.pipeline.preparation.spectra_picture import write_spectra_picture
from ct_cncl.pipeline.simulation.calibrating import Calibrated, calibrated, in_the_series
from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.common.terminal import say
from ct_cncl.transforms.physics.inserted_noise import compared_spectra
from ct_cncl.transforms.physics.simulation import low_dose_slices, own_seed
from ct_cncl.transforms.series import ScanSource
from ct_cncl.transforms.series.derivation import LOW_DOSE, SIMULATED_CODE, Processing
from ct_cncl.transforms.series.results import ResultWriter
from ct_cncl.transforms.series.rewritten import nifti_target
from ct_cncl.transforms.series.slices import Slice, Slices
from ct_cncl.transforms.series.volume_file import VolumeFile

BATCH = 4
"""Slices per batch, which share the threads."""


class Calibrations:
    """Keeps the calibration of the last series, since its realizations are made one after another."""

    def __init__(self) -> None:
        self._key: object = None
        self._found: Calibrated | None = None

    def of(self, slices: Slices, asked: SimulateOptions) -> Calibrated:
        """The calibration of a series, measured now, or earlier if its files have not changed."""
        states = [file.stat() for file in slices.source.files]
        key = (slices.source, tuple((state.st_mtime_ns, state.st_size) for state in states))
        if self._found is None or key != self._key:
            self._found, self._key = calibrated(slices, asked), key
            if asked.progress:
                found = self._found.calibration
                reason = f" ({found.reason})" if found.reason else ""
                name = slices.source.name
                say(f"{name}: {found.incident_photons:.3g} photons, calibration: {found.method}{reason}")
        return self._found


class Simulating:
    """The task of simulating one noise realization, for :class:`ct_cncl.pipeline.inference.batch.ArchiveRun`.

    Args:
        asked: the options.
        realization: number of the realization, from 1.
        calibrations: shared by the realizations of a run.
    """

    verb = ("simulate", "simulated")

    def __init__(self, asked: SimulateOptions, realization: int, calibrations: Calibrations) -> None:
        self.asked, self.realization, self.calibrations = asked, realization, calibrations
        self.options: Mapping[str, Any] = asked.requested()
        self._found: Calibrated

    @property
    def variant(self) -> ResultVariant:
        """The variant of this realization. Results are named after dose and realization."""
        dose, number = f"{self.asked.dose_fraction:g}", self.realization
        return ResultVariant(
            {LOW_DOSE.name: f"dose{dose}_r{number}"}, {"realization": number}, f"dose {dose}, r{number}"
        )

    def begin(self, slices: Slices) -> list[str]:
        """Calibrate the scan, and return warnings."""
        self._found = self.calibrations.of(slices, self.asked)
        return list(self._found.warnings)

    def derivation(self, **common: Any) -> Processing:
        """What the results' headers say."""
        settings = json.dumps(plain({**self.options, "realization": self.realization}), sort_keys=True)
        found, dose = self._found.calibration, f"{self.asked.dose_fraction:g}"
        return Processing(
            (SIMULATED_CODE, "Simulation of a lower dose"),
            f"{dose} of the dose, realization {self.realization}, {found.incident_photons:.3g} photons ({found.method})",
            f"{dose} r{self.realization}",
            hashlib.sha256(settings.encode()).hexdigest(),
            **common,
        )

    def target(self, slices: Slices, path: Path) -> VolumeFile | None:
        """NIfTI if asked for; None to store results like their source."""
        return nifti_target(slices, path) if self.asked.nifti else None

    def apply(self, slices: Slices, writer: ResultWriter, tick: Callable[[int], object]) -> Outcome:
        """Insert the noise of the missing dose, slice by slice."""
        found = self._found
        settings = found.calibration.apply(self.asked.settings())
        seed = own_seed(self.asked.seed, noise_name(slices.source), self.realization)
        kept = {}

        def lower(batch: range, read: Sequence[Slice], stack: np.ndarray) -> dict[str, np.ndarray]:
            padded = np.stack([own.padded for own in read])
            images = low_dose_slices(
                stack[:, 0], padded, found.pixel, settings, seed, numbers=batch, floor_hu=found.floor_hu
            )
            kept.update({number: images[k] for k, number in enumerate(batch) if number in found.numbers})
            return {LOW_DOSE.name: images}

        outcome = stream_slices(slices, writer, lower, size=BATCH, main=LOW_DOSE.name, tick=tick)
        low = np.stack([kept[number] for number in found.numbers], axis=-1)
        outcome.facts = {
            "requested": {**self.options, "realization": self.realization},
            "noise_seed": seed,
            "pixel_mm": found.pixel,
            "settings": asdict(settings),
            "calibration": asdict(in_the_series(found)),
            "spectra": compared_spectra(found.hu, low, found.pixel, found.calibration, self.asked.dose_fraction),
        }
        return outcome

    def finish(self, job: ScanJob, outcome: Outcome, *, single: bool) -> None:  # noqa: ARG002
        """Draw a picture of both spectra, if they were measured."""
        path = job.record.with_suffix(".svg")
        if outcome.facts["spectra"]:
            write_spectra_picture(outcome.facts["spectra"], path)
        else:
            path.unlink(missing_ok=True)


def noise_name(source: ScanSource) -> str:
    """The name that seeds a scan's noise: a series' UID, wherever its files are; for a volume file, its name and subfolder."""
    if source.kind == "dicom":
        return f"{source.series_uid}#{source.part}"
    return PurePosixPath(source.relative, source.name).as_posix()
