"""Training pairs from phantoms, and from normal-dose scans into which noise is inserted; real pairs are in paired_cases.py.

A case is a pair of volumes that is generated lazily, so that a data set of any size needs the memory of one pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ct_cncl.transforms.common.errors import DataError
from ct_cncl.transforms.dataset.patients import PatientFinder
from ct_cncl.transforms.series import (
    Acquisition,
    DicomStorage,
    Scan,
    ScanSource,
    SliceOrder,
    find_scans,
    read_scan,
    to_slices,
    voxel_spacing,
)

if TYPE_CHECKING:
    from ct_cncl.transforms.physics import DoseSettings
    from ct_cncl.transforms.physics.projections import Projections

PHANTOM_INCIDENT_PHOTONS = 3.56e4
"""Incident photons of phantoms at full dose; at quarter dose, their PSNR against the noise-free truth is about 39.5 dB (data range
4096 HU)."""


@dataclass(frozen=True)
class Pair:
    """A low-dose and a normal-dose volume on one grid.

    Slices are last, and the in-plane axes have the directions of ``ct_cncl.transforms.series.slices_last``.
    """

    image: np.ndarray
    """Low-dose image, (x, y, z), HU."""
    label: np.ndarray
    """Normal-dose scan, full-dose image of a real pair, or a phantom's noise-free truth, (x, y, z), HU."""
    affine: np.ndarray
    """(4, 4), voxel -> RAS mm."""
    provenance: dict[str, Any]
    """What was simulated and how, for the datalist."""
    noise: Sequence[Callable[[], np.ndarray]] = ()
    """Noise realizations for the label, (x, y, z), HU, each generated lazily."""
    noise_model: dict[str, Any] = field(default_factory=dict)
    """How the noise realizations were made, for the datalist and for training; empty if there are none."""
    acquisition: Acquisition | None = None
    """How the normal-dose scan was acquired; None if unknown."""
    tissues: np.ndarray | None = None
    """For phantoms: (x, y, z) uint8, values of ``ct_cncl.transforms.phantom.TISSUES``."""


@dataclass(frozen=True)
class Case:
    """A pair that is generated on request."""

    patient: str = field(repr=False)
    source: str
    """Name of the user's scan, or of the phantom."""
    dose_fraction: float | None
    """Dose of the image relative to the label; None if unknown."""
    make: Callable[[], Pair] = field(repr=False)


def phantom_cases(
    count: int,
    *,
    first_seed: int,
    slices: int,
    dose_fraction: float,
    size: int = 512,
    realizations: int = 0,
    photon_counts: int = 0,
) -> list[Case]:
    """Cases of phantoms, with the noise of ``dose_fraction`` in the image and the noise-free truth as the label.

    Args:
        count: number of phantoms, each of which counts as a patient; their seeds count up from ``first_seed``.
        first_seed: seed of the first phantom.
        slices: number of slices per phantom.
        dose_fraction: dose of the low-dose image, relative to a full dose of ``PHANTOM_INCIDENT_PHOTONS`` photons.
        size: number of pixels along each side of a slice.
        realizations: number of noise realizations for training at random doses.
        photon_counts: number of these that are simulated from photon counts, at ``dose_fraction``.

    Raises:
        DataError: ``count`` or ``slices`` is below 1.
    """
    if count < 1 or slices < 1:
        raise DataError(f"Expected at least one phantom of at least one slice, but got {count} of {slices}.")
    return [
        Case(
            f"phantom-{seed}",
            f"phantom-{seed}",
            dose_fraction,
            _phantom_maker(seed, slices, size, dose_fraction, realizations=realizations, photon_counts=photon_counts),
        )
        for seed in range(first_seed, first_seed + count)
    ]


def _phantom_maker(
    seed: int, slices: int, size: int, dose_fraction: float, *, realizations: int, photon_counts: int
) -> Callable[[], Pair]:
    def make() -> Pair:
        from ct_cncl.transforms.phantom import anatomical_phantom
        from ct_cncl.transforms.physics import DoseSettings
        from ct_cncl.transforms.physics.projections import Projections
        from ct_cncl.transforms.physics.simulation import low_dose, own_seed

        phantom = anatomical_phantom(seed, slices=slices, size=size)
        spacing = voxel_spacing(phantom.affine)
        pixel = (float(spacing[0]), float(spacing[1]))
        # Incident photons are per detector element; without this factor, fewer and wider pixels would have less noise than at 512 x 512.
        settings = DoseSettings(
            dose_fraction=dose_fraction, incident_photons=PHANTOM_INCIDENT_PHOTONS * (size / 512) ** 2
        )
        projections = Projections() if realizations else None
        image = low_dose(phantom.hu, pixel, settings, seed, noise_free=True, projections=projections)
        provenance = {"phantom_seed": seed, "truth": "noise-free", "settings": asdict(settings)}
        seeds = [own_seed(seed, f"phantom-{seed}", number) for number in range(1, realizations + 1)]
        noise = _noise_realizations(
            phantom.hu, pixel, settings, seeds, noise_free=True, photon_counts=photon_counts, projections=projections
        )
        return Pair(image, phantom.hu, phantom.affine, provenance, *noise, tissues=phantom.labels)

    return make


def _noise_realizations(
    label: np.ndarray,
    pixel: tuple[float, float],
    settings: DoseSettings,
    seeds: Sequence[int],
    *,
    noise_free: bool,
    photon_counts: int,
    projections: Projections | None,
) -> tuple[Sequence[Callable[[], np.ndarray]], dict[str, Any]]:
    """The noise realizations of a pair, and their model for the datalist."""
    from ct_cncl.transforms.physics.noise_realizations import noise_realization
    from ct_cncl.transforms.physics.simulation import scanner_floor

    if not seeds:
        return (), {}
    model = {
        "noise_free": noise_free,
        "floor_hu": scanner_floor(label),
        "incident_photons": settings.incident_photons,
        "apodisation": settings.apodisation,
        "cutoff": settings.cutoff,
        "kernel_gain": list(settings.kernel_gain),
        "kernel_gain_step_per_mm": settings.kernel_gain_step_per_mm,
        "electronic_variance": settings.electronic_variance,
        "seeds": list(seeds),
    }
    first = len(seeds) - photon_counts
    doses = [None] * first + [settings.dose_fraction] * photon_counts
    if photon_counts:
        model |= {"photon_counts": photon_counts, "counts_at_dose": settings.dose_fraction}
    return [
        partial(
            noise_realization,
            label,
            pixel,
            settings,
            seed,
            counts_at_dose=dose,
            exact_at_dose=_below_one(settings),
            projections=projections,
        )
        for seed, dose in zip(seeds, doses)
    ], model


def _below_one(settings: DoseSettings) -> float | None:
    return settings.dose_fraction if settings.dose_fraction < 1 else None


def simulated_cases(
    path: str | Path,
    *,
    patients: PatientFinder,
    dose_fraction: float,
    seed: int,
    incident_photons: float | None = None,
    realizations: int = 0,
    photon_counts: int = 0,
) -> list[Case]:
    """Cases of the normal-dose scans under ``path``, with noise inserted for ``dose_fraction``.

    Args:
        path: a file or folder of scans.
        patients: finds the patient of a scan.
        dose_fraction: dose of the low-dose image relative to the scan.
        seed: seed of the noise; each scan gets its own seed from this one, its name and its sub-folder.
        incident_photons: incident photons of the scans. None measures the noise level and spectrum in each scan; if that is impossible,
            they follow from its DICOM tags, or else a default is used.
        realizations: number of noise realizations for training at random doses.
        photon_counts: number of these that are simulated from photon counts, at ``dose_fraction``.

    Raises:
        ScanError: no scan was found, or one cannot be read.
        DataError: the patient of a scan is unknown.
    """
    cases = []
    for source in find_scans(path):
        name = PurePosixPath(source.relative, source.name).as_posix()
        make = _simulated_maker(
            source,
            name,
            dose_fraction=dose_fraction,
            seed=seed,
            incident_photons=incident_photons,
            realizations=realizations,
            photon_counts=photon_counts,
        )
        cases.append(Case(patients(source.path, _patient_of(source)), source.name, dose_fraction, make))
    return cases


def _patient_of(source: ScanSource) -> str | None:
    if source.kind != "dicom":
        return None
    import pydicom

    header = pydicom.dcmread(source.files[0], stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID", "")).strip() or None


def _simulated_maker(
    source: ScanSource,
    name: str,
    *,
    dose_fraction: float,
    seed: int,
    incident_photons: float | None,
    realizations: int,
    photon_counts: int,
) -> Callable[[], Pair]:
    def make() -> Pair:
        from ct_cncl.transforms.physics import DoseSettings
        from ct_cncl.transforms.physics.inserted_noise import compared_spectra
        from ct_cncl.transforms.physics.projections import Projections
        from ct_cncl.transforms.physics.simulation import calibrate, low_dose, own_seed, pixel_of
        from ct_cncl.transforms.physics.truncation import truncation_warning

        scan = read_scan(source)
        label, order = scan_slices(scan)
        pixel = pixel_of(scan, order)
        own = own_seed(seed, name)
        settings = DoseSettings(dose_fraction=dose_fraction)
        calibration = calibrate(
            label,
            pixel,
            settings,
            own,
            incident_photons=incident_photons,
            acquisition=scan.acquisition,
            usual_electronics=True,
        )
        settings = calibration.apply(settings)
        provenance = {
            "truth": "scan",
            "calibration": asdict(calibration),
            "settings": asdict(settings),
            "warning": truncation_warning(label, pixel),
        }
        seeds = [own_seed(seed, name, number) for number in range(1, realizations + 1)]
        projections = Projections() if realizations else None
        noise = _noise_realizations(
            label, pixel, settings, seeds, noise_free=False, photon_counts=photon_counts, projections=projections
        )
        image = low_dose(label, pixel, settings, own, projections=projections)
        provenance["spectra"] = compared_spectra(label, image, pixel, calibration, dose_fraction)
        return Pair(image, label, order.affine, provenance, *noise, acquisition=scan.acquisition)

    return make


def scan_slices(scan: Scan) -> tuple[np.ndarray, SliceOrder]:
    """A scan's volume with its slices last, (x, y, z) HU, and the order that undoes it."""
    volume, order = to_slices(scan.hu, scan.affine, axis=2 if isinstance(scan.storage, DicomStorage) else None)
    return np.ascontiguousarray(volume), order
