"""Calibrating a series, with memory only for the few slices that are measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ct_cncl.pipeline.simulation.options import SimulateOptions
from ct_cncl.transforms.physics import Calibration
from ct_cncl.transforms.physics.dose import check_lowest
from ct_cncl.transforms.physics.noise_estimate import slices_to_measure, tissue_windows, unlike_the_model
from ct_cncl.transforms.physics.simulation import calibrate, scanner_floor
from ct_cncl.transforms.physics.truncation import truncated_share, warning_of
from ct_cncl.transforms.series import ScanError
from ct_cncl.transforms.series.nifti import read_nifti_storage
from ct_cncl.transforms.series.slices import DicomSlices, Slices


@dataclass(frozen=True)
class Calibrated:
    """What is known of a series before its first low-dose slice is made.

    Attributes:
        calibration: the series' calibration; its ``slices`` are indices into ``numbers``.
        numbers: numbers of the slices that were measured.
        hu: these slices, (columns, rows, len(numbers)) float32 HU.
        pixel: pixel size (dx, dy) in mm.
        floor_hu: the lowest value that a low-dose image may have: -1024 HU, or the scan's own lowest value if that is lower.
        warnings: what is unusual about the series.
    """

    calibration: Calibration
    numbers: tuple[int, ...]
    hu: np.ndarray
    pixel: tuple[float, float]
    floor_hu: float
    warnings: tuple[str, ...]


def calibrated(slices: Slices, asked: SimulateOptions) -> Calibrated:
    """Calibrate a scan: read every slice once, then measure the noise in those with the most soft tissue.

    Args:
        slices: the opened scan.
        asked: the options, including the kind of calibration.

    Raises:
        ScanError: the scan has no pixel size or several, its values are not HU, or the requested calibration is not possible.
    """
    try:
        return _calibrated(slices, asked)
    except ScanError:
        raise
    except ValueError as error:
        raise ScanError(f"{slices.source.path}: {error}") from error


def _calibrated(slices: Slices, asked: SimulateOptions) -> Calibrated:
    pixel = pixel_of_slices(slices)
    windows, truncated, floor = [], [], np.inf
    low, high, lowest = np.inf, -np.inf, 0
    for number in range(slices.count):
        hu = slices.read(number).hu
        if hu.min() < low:
            low, lowest = float(hu.min()), number
        high = max(high, float(hu.max()))
        windows.append(tissue_windows(hu))
        truncated.append(truncated_share(hu, pixel))
        floor = min(floor, scanner_floor(hu))
    check_lowest(low, high)
    numbers = tuple(slices_to_measure(windows)) or (slices.count // 2,)
    stack = np.stack([slices.read(number).hu for number in numbers], axis=-1)
    if (
        stack.min() >= 0
    ):  # these slices lie wholly inside the body: add one with air, which shows that the values are HU
        numbers = (*numbers, lowest)
        stack = np.concatenate([stack, slices.read(lowest).hu[..., None]], axis=-1)
    found = calibrate(
        stack,
        pixel,
        asked.settings(),
        0,
        how=asked.calibration,
        incident_photons=asked.incident_photons,
        acquisition=slices.acquisition,
        spectrum=asked.spectrum(),
        usual_electronics=asked.electronic_variance is None,
    )
    kernel = slices.acquisition.kernel if slices.acquisition else None
    frequency = np.arange(len(found.scan_power)) * found.spectrum_step_per_mm
    power = np.array(found.scan_power if found.spectrum_source == "scan" else ())
    warnings = (
        *(f"{problem}; slices are simulated one by one anyway" for problem in slices.problems),
        warning_of(truncated),
        unlike_the_model(frequency, power, kernel),
    )
    return Calibrated(found, numbers, stack, pixel, floor, tuple(warning for warning in warnings if warning))


def in_the_series(found: Calibrated) -> Calibration:
    """The calibration, with its slices numbered as in the series."""
    return dataclasses.replace(found.calibration, slices=tuple(found.numbers[k] for k in found.calibration.slices))


def pixel_of_slices(slices: Slices) -> tuple[float, float]:
    """Pixel size (dx, dy) of a scan's slices in mm.

    Raises:
        ScanError: the file does not state it (noise made with a guess would be wrong), or it differs between slices.
    """
    source = slices.source
    stated = source.kind not in ("tiff", "npy")
    if source.kind == "nifti":
        stated = read_nifti_storage(source.path).spacing_stated
    if not stated:
        raise ScanError(
            f"{source.path}: expected a voxel spacing, on which the noise depends, but the file states none (NIfTI: pixdim 0, no sform); "
            "write the spacing into the header, or convert the scan to a format that has one"
        )
    sizes = {slices.pixel(number) for number in range(slices.count)} if isinstance(slices, DicomSlices) else set()
    if len(sizes) > 1:
        raise ScanError(
            f"{source.path}: expected one pixel size for all slices, on which the noise depends, but got {len(sizes)}; split the series"
        )
    return float(slices.spacing[0]), float(slices.spacing[1])
