"""Options of ``ct-cncl simulate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ct_cncl.transforms.common.checksums import file_checksum
from ct_cncl.transforms.common.numbers import is_whole
from ct_cncl.transforms.physics import DoseSettings, NoiseSpectrum, read_spectrum
from ct_cncl.transforms.physics.simulation import CALIBRATIONS
from ct_cncl.transforms.series.dicom_file import COMPRESSIONS


@dataclass(frozen=True)
class SimulateOptions:
    """The options of ``ct-cncl simulate``; see its ``--help``."""

    source: Path
    out: Path
    dose_fraction: float
    realizations: int = 1
    seed: int = 0
    calibration: str = "auto"
    incident_photons: float | None = None
    electronic_variance: float | None = None
    geometry: str = "parallel"
    route: str = "formula"
    bowtie_mm: float | None = None
    current_modulation: float = 0.0
    nps: Path | None = None
    nifti: bool = False
    series: tuple[str, ...] = ()
    strict: bool = False
    derived: bool = False
    compression: str = "none"
    deidentify: bool = False
    overwrite: bool = False
    progress: bool = True

    def settings(self) -> DoseSettings:
        """The settings before calibration.

        Raises:
            ValueError: a value is outside its range, or two options exclude each other.
        """
        settings = DoseSettings(
            dose_fraction=self.dose_fraction,
            electronic_variance=self.electronic_variance or 0.0,
            geometry=self.geometry,
            route=self.route,
            bowtie_mm=self.bowtie_mm,
            current_modulation=self.current_modulation,
        )
        if not is_whole(self.realizations) or not is_whole(self.seed, least=0):
            raise ValueError(
                f"Expected 1 or more realizations and a seed of 0 or above, but got {self.realizations!r} and {self.seed!r}."
            )
        if self.calibration not in CALIBRATIONS:
            raise ValueError(
                f"Expected the calibration to be one of {', '.join(CALIBRATIONS)}, but got {self.calibration!r}."
            )
        if self.incident_photons is not None:
            if self.calibration != "auto":
                raise ValueError("Expected --incident-photons or --calibration, but got both. Omit one.")
            DoseSettings(incident_photons=self.incident_photons)
        if self.nps is not None and (self.incident_photons is not None or self.calibration not in ("auto", "image")):
            raise ValueError(
                "Expected --nps with a calibration from the image, but another calibration is set. Omit one."
            )
        if self.compression not in COMPRESSIONS:
            raise ValueError(
                f"Expected the compression to be one of {', '.join(COMPRESSIONS)}, but got {self.compression!r}."
            )
        if self.nifti and self.compression != "none":
            raise ValueError("Expected --nifti or --compress, but got both. Omit one.")
        return settings

    def spectrum(self) -> NoiseSpectrum | None:
        """The spectrum in the file ``nps``; None without a file.

        Raises:
            SpectrumError: the file does not hold a spectrum.
        """
        return None if self.nps is None else read_spectrum(self.nps)

    def requested(self) -> dict[str, Any]:
        """Everything that a result depends on besides its source, its realization and its storage format."""
        names = (
            *("dose_fraction", "seed", "calibration", "incident_photons", "electronic_variance", "geometry", "route"),
            *("bowtie_mm", "current_modulation", "nifti"),
        )
        values = asdict(self)
        measured = {} if self.nps is None else {"nps_sha256": file_checksum(self.nps)}
        return {name: values[name] for name in names} | measured
