"""Where training pairs come from: phantoms, normal-dose scans with noise inserted, or real low- and full-dose scans.

A case is one pair of volumes that is made when its turn comes, so that a data set of any size needs the memory of one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ct_cncl.transforms.datalist import DataError
from ct_cncl.transforms.pairs import Located, match_pairs
from ct_cncl.transforms.patients import PatientFinder
from ct_cncl.transforms.regions import padding_mask
from ct_cncl.transforms.series import (
    DicomStorage,
    Scan,
    ScanSource,
    SliceOrder,
    find_scans,
    read_scan,
    to_slices,
    voxel_spacing,
)

PHANTOM_QUANTA = 3.56e4
"""N0 at full dose for phantoms: at a quarter of it, phantoms have about 39.5 dB against their noise-free truth (4096 HU)."""
SCANNER_FLOOR_HU = -1024.0
"""Scanners cut off below; so does the simulated low dose, unless the scan itself goes lower."""


@dataclass(frozen=True)
class Pair:
    """A low-dose and a normal-dose volume on one grid.

    Slices are last and in-plane axes in the direction of ``ct_cncl.transforms.series.slices_last``.
    """

    image: np.ndarray
    """Low dose, (x, y, z), HU."""
    label: np.ndarray
    """Normal dose, (x, y, z), HU."""
    affine: np.ndarray
    """(4, 4), voxel to RAS mm."""
    provenance: dict[str, Any]
    """What was simulated and how, for the datalist."""


@dataclass(frozen=True)
class Case:
    """A pair to be made."""

    patient: str = field(repr=False)
    source: str
    """The user's own file name, or what generated the pair."""
    dose_fraction: float | None
    """Of the image relative to the label; None where real pairs do not say."""
    make: Callable[[], Pair] = field(repr=False)


def phantom_cases(count: int, *, first_seed: int, slices: int, dose_fraction: float, size: int = 512) -> list[Case]:
    """Phantoms with a noise-free truth and the noise of ``dose_fraction``.

    Args:
        count: number of "patients"; their seeds run on from ``first_seed``.
        first_seed: of the first phantom.
        slices: of each.
        dose_fraction: of the low-dose image, relative to a full dose of ``PHANTOM_QUANTA`` quanta.
        size: pixels a side.

    Raises:
        DataError: counts below 1.
    """
    if count < 1 or slices < 1:
        raise DataError(f"Expected at least one phantom of at least one slice, but got {count} of {slices}.")
    return [
        Case(f"phantom-{seed}", f"phantom-{seed}", dose_fraction, _phantom_maker(seed, slices, size, dose_fraction))
        for seed in range(first_seed, first_seed + count)
    ]


def _phantom_maker(seed: int, slices: int, size: int, dose_fraction: float) -> Callable[[], Pair]:
    def make() -> Pair:
        from ct_cncl.transforms.phantom import anatomical_phantom
        from ct_cncl.transforms.physics import DoseSettings, insert_noise

        phantom = anatomical_phantom(seed, slices=slices, size=size)
        spacing = voxel_spacing(phantom.affine)
        # Quanta belong to a channel; fewer and wider pixels would otherwise mean less noise than at 512 x 512.
        settings = DoseSettings(dose_fraction=dose_fraction, quanta=PHANTOM_QUANTA * (size / 512) ** 2)
        image = insert_noise(phantom.hu, (spacing[0], spacing[1]), settings, seed, noise_free=True)
        provenance = {"phantom_seed": seed, "truth": "noise-free", "settings": asdict(settings)}
        return Pair(np.maximum(image, SCANNER_FLOOR_HU), phantom.hu, phantom.affine, provenance)

    return make


def simulated_cases(
    path: str | Path, *, patients: PatientFinder, dose_fraction: float, seed: int, quanta: float | None = None
) -> list[Case]:
    """Normal-dose scans under ``path`` with noise inserted down to ``dose_fraction``.

    Args:
        path: a file or folder of NIfTI or DICOM.
        patients: says whose scan a file is.
        dose_fraction: of the low-dose image relative to the scan.
        seed: of the noise; every scan gets its own, from this, its name and its sub-folder.
        quanta: N0 of the scans; None measures noise level and spectrum in each scan.

    Raises:
        ScanError: nothing found, or unreadable.
        DataError: a scan without a patient.
    """
    cases = []
    for source in find_scans(path):
        name = PurePosixPath(source.relative, source.name).as_posix()
        own_seed = int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])
        make = _simulated_maker(source, dose_fraction, own_seed, quanta)
        cases.append(Case(patients(source.path, _patient_of(source)), source.name, dose_fraction, make))
    return cases


def _patient_of(source: ScanSource) -> str | None:
    if source.kind != "dicom":
        return None
    import pydicom

    header = pydicom.dcmread(source.files[0], stop_before_pixels=True, specific_tags=["PatientID"])
    return str(header.get("PatientID", "")).strip() or None


def _simulated_maker(source: ScanSource, dose_fraction: float, seed: int, quanta: float | None) -> Callable[[], Pair]:
    def make() -> Pair:
        from ct_cncl.transforms.physics import DoseSettings, calibrate_quanta, insert_noise

        scan = read_scan(source)
        label, order = _slices(scan)
        spacing = voxel_spacing(order.affine)
        pixel = (float(spacing[0]), float(spacing[1]))
        settings = DoseSettings(dose_fraction=dose_fraction)
        provenance: dict[str, Any] = {"truth": "scan"}
        if quanta is None:
            calibration = calibrate_quanta(label, pixel, settings, seed)
            settings = calibration.apply(settings)
            provenance["calibration"] = asdict(calibration)
        else:
            settings = DoseSettings(dose_fraction=dose_fraction, quanta=quanta)
            provenance["calibration"] = {"method": "user", "quanta": quanta}
        provenance["settings"] = asdict(settings)
        image = insert_noise(label, pixel, settings, seed)
        # Padding may lie below the floor and stays as it is.
        padding = padding_mask(label)
        floor = np.min(label, where=~padding, initial=SCANNER_FLOOR_HU)
        image = np.where(padding, label, np.maximum(image, floor))
        return Pair(image, label, order.affine, provenance)

    return make


def _slices(scan: Scan) -> tuple[np.ndarray, SliceOrder]:
    volume, order = to_slices(scan.hu, scan.affine, axis=2 if isinstance(scan.storage, DicomStorage) else None)
    return np.ascontiguousarray(volume), order


def paired_cases(
    low: Sequence[str | Path],
    full: Sequence[Sequence[str | Path]],
    *,
    patients: PatientFinder,
    dose_fraction: float | None,
) -> list[list[Case]]:
    """Real pairs: low- and full-dose scans matched by patient and geometry.

    Args:
        low: files or folders of low-dose scans, of all groups.
        full: files or folders of full-dose scans by group (training, validation, test).
        patients: says whose scan a file is.
        dose_fraction: of the low-dose scans where it is known.

    Returns:
        Cases by group.

    Raises:
        ScanError: nothing found, or unreadable.
        DataError: scans without a partner, or with more than one.
    """
    low_sources = [source for path in low for source in find_scans(path)]
    full_sources = [
        (number, source) for number, group in enumerate(full) for path in group for source in find_scans(path)
    ]
    low_scans = [_locate(source, patients) for source in low_sources]
    full_scans = [_locate(source, patients) for _, source in full_sources]
    groups: list[list[Case]] = [[] for _ in full]
    for low_number, full_number in match_pairs(low_scans, full_scans):
        group, source = full_sources[full_number]
        make = _paired_maker(low_sources[low_number], source)
        groups[group].append(Case(full_scans[full_number].patient, source.name, dose_fraction, make))
    return groups


def _locate(source: ScanSource, patients: PatientFinder) -> Located:
    scan = read_scan(source)
    return Located(source.path, patients(source.path, scan.patient), scan.hu.shape, scan.affine)


def _paired_maker(low: ScanSource, full: ScanSource) -> Callable[[], Pair]:
    def make() -> Pair:
        image, _ = _slices(read_scan(low))
        label, order = _slices(read_scan(full))
        return Pair(image, label, order.affine, {"truth": "scan", "low_dose_source": low.name})

    return make
