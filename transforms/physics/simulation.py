"""Simulation of a scan at a lower dose, step by step: calibration, noise, the scanner's floor.

Shared by every command and transform that simulates a dose; it works on arrays.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ct_cncl.transforms.anatomy.regions import padding_mask
from ct_cncl.transforms.physics import (
    DEFAULT_INCIDENT_PHOTONS,
    Calibration,
    DoseSettings,
    NoiseSpectrum,
    calibrate_incident_photons,
    insert_noise,
)
from ct_cncl.transforms.physics._kernels import run_in_threads
from ct_cncl.transforms.physics.calibration import calibrate_from_spectrum
from ct_cncl.transforms.physics.dose import noise_of_slice
from ct_cncl.transforms.physics.electronics import usual_electronic_variance
from ct_cncl.transforms.physics.noise_realizations import SCANNER_FLOOR_HU, cut_off
from ct_cncl.transforms.physics.projections import Projections
from ct_cncl.transforms.physics.tags import calibrate_from_tags
from ct_cncl.transforms.series import Acquisition, NiftiStorage, Scan, ScanError, SliceOrder, voxel_spacing

CALIBRATIONS = ("auto", "image", "tags", "default")
"""Ways to calibrate the full dose of a scan; "auto" takes the first of the others that works."""


def calibrate(
    hu_volume: np.ndarray,
    pixel_mm: tuple[float, float],
    settings: DoseSettings,
    seed: int,
    *,
    how: str = "auto",
    incident_photons: float | None = None,
    acquisition: Acquisition | None = None,
    spectrum: NoiseSpectrum | None = None,
    usual_electronics: bool = False,
) -> Calibration:
    """Find photons and filter of a scan: measured in it, from its acquisition tags, given by the user, or the default.

    Args:
        hu_volume: (x, y, z), HU, at full dose.
        pixel_mm: (dx, dy) in mm.
        settings: electronic variance, views, geometry; the filter if no better one is found.
        seed: unused, kept for compatibility; 0 or above.
        how: one of :data:`CALIBRATIONS`.
        incident_photons: N0 given by the user; the filter is then that of the settings.
        acquisition: tags of the scan; None if the file has none.
        spectrum: noise spectrum of the scan as measured by the user; the level is still measured in the scan, or taken from
            the spectrum if that fails.
        usual_electronics: if the photons are measured in the scan, take typical electronic noise (:mod:`.electronics`)
            instead of that of the settings.

    Returns:
        The calibration; ``method`` says which one it is ("image", "tags", "user", "default"), ``reason`` why the ones
        before it failed.

    Raises:
        ValueError: for an unknown ``how``, "tags" with tags missing, photons together with a calibration, or values not
            in HU.
    """
    if how not in CALIBRATIONS:
        raise ValueError(f"Expected a calibration from {', '.join(CALIBRATIONS)}, but got {how!r}.")
    if incident_photons is not None:
        if how != "auto":
            raise ValueError(
                f"Expected photons or a calibration but got both ({incident_photons:g} and {how!r}). Leave one out."
            )
        return Calibration(incident_photons, math.nan, "user", settings.apodisation, settings.cutoff)
    reasons = []
    if how in ("auto", "image"):
        usual = _usual_variance(settings, pixel_mm, acquisition) if usual_electronics else None
        found = calibrate_incident_photons(
            hu_volume, pixel_mm, settings, seed, spectrum=spectrum, usual_electronics=usual
        )
        if found.method == "image":
            return found
        if spectrum is not None:
            return calibrate_from_spectrum(hu_volume, pixel_mm, settings, spectrum, found.reason.split(";")[0])
        reasons.append(found.reason.split(";")[0])
    if how in ("auto", "tags"):
        found = calibrate_from_tags(acquisition, pixel_mm, settings)
        if found.method == "tags":
            return _because(found, [*reasons, found.reason])
        if how == "tags":
            raise ValueError(f"Expected tags to calibrate from but got {found.reason}. Use another calibration.")
        reasons.append(found.reason.split(";")[0])
    default = Calibration(DEFAULT_INCIDENT_PHOTONS, math.nan, "default", settings.apodisation, settings.cutoff)
    return _because(default, [*reasons, f"default of {DEFAULT_INCIDENT_PHOTONS:g} photons"])


def _usual_variance(settings: DoseSettings, pixel_mm: tuple[float, float], acquisition: Acquisition | None) -> float:
    thickness = None if acquisition is None else acquisition.slice_thickness_mm
    return usual_electronic_variance(settings.rays((64, 64), pixel_mm), thickness)


def _because(found: Calibration, reasons: list[str]) -> Calibration:
    return dataclasses.replace(found, reason="; ".join(reason for reason in reasons if reason))


def low_dose(
    hu_volume: np.ndarray,
    pixel_mm: tuple[float, float],
    settings: DoseSettings,
    seed: int,
    *,
    noise_free: bool = False,
    progress: Callable[[int, int], None] | None = None,
    projections: Projections | None = None,
) -> np.ndarray:
    """Volume at the dose of ``settings``, cut off at the scanner's floor (:func:`scanner_floor`).

    Args:
        hu_volume: (x, y, z), HU, at full dose.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: 0 or above.
        noise_free: True for phantoms.
        progress: called with (slices done, slices in all).
        projections: line integrals of this volume, shared with its noise realizations.

    Returns:
        (x, y, z) float32, HU, not rounded, padding unchanged. For a dose fraction of 1, unless ``noise_free``, a copy
        of the input in its own dtype.

    Raises:
        ValueError: as :func:`~ct_cncl.transforms.physics.insert_noise`.

    >>> volume = np.pad(np.zeros((16, 16, 1)), ((8, 8), (8, 8), (0, 0)), constant_values=-1000.0)
    >>> low = low_dose(volume, (1.0, 1.0), DoseSettings(incident_photons=10.0, views=32), seed=0)
    >>> float(low.min())
    -1024.0
    """
    hu = np.asarray(hu_volume)
    noisy = insert_noise(
        hu, pixel_mm, settings, seed, noise_free=noise_free, progress=progress, projections=projections
    )
    if settings.dose_fraction == 1 and not noise_free:
        return noisy
    return cut_off(noisy, hu.astype(np.float32), scanner_floor(hu))


def low_dose_slices(
    slices: np.ndarray,
    padded: np.ndarray,
    pixel_mm: tuple[float, float],
    settings: DoseSettings,
    seed: int,
    *,
    numbers: Sequence[int],
    floor_hu: float,
) -> np.ndarray:
    """Some slices of a volume at a lower dose, equal to those of :func:`low_dose` for the whole volume.

    Args:
        slices: (n, x, y), HU, of a volume that was checked as a whole.
        padded: (n, x, y) bool, pixels that stay unchanged.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: 0 or above, that of the volume.
        numbers: (n,) index of each slice in the volume.
        floor_hu: of the volume, see :func:`scanner_floor`.

    Returns:
        (n, x, y) float32, HU.
    """
    result = slices.astype(np.float32)
    if settings.dose_fraction == 1:
        return result

    def block(start: int, stop: int) -> None:
        for k in range(start, stop):
            noise = noise_of_slice(result[k], pixel_mm, settings, seed, numbers[k])
            noisy = result[k] + np.where(padded[k], np.float32(0), noise)
            result[k] = cut_off(noisy, result[k], floor_hu)

    run_in_threads(block, len(result), blocks_per_thread=len(result))
    return result


def pixel_of(scan: Scan, order: SliceOrder) -> tuple[float, float]:
    """Pixel size (dx, dy) of a scan's slices, mm.

    Args:
        scan: as read.
        order: orientation of its slices, from :func:`~ct_cncl.transforms.series.to_slices`.

    Raises:
        ScanError: if the file does not state it; noise made with a guessed size would be wrong.
    """
    if isinstance(scan.storage, NiftiStorage) and not scan.storage.spacing_stated:
        raise ScanError(
            f"{scan.source}: expected a voxel spacing but the header states none (pixdim 0, no sform); write it "
            "into the header, because the noise depends on it"
        )
    spacing = voxel_spacing(order.affine)
    return float(spacing[0]), float(spacing[1])


def scanner_floor(hu_volume: np.ndarray) -> float:
    """Lowest value that the scan's low dose may have, HU: -1024, or the scan's own minimum outside padding if lower.

    Args:
        hu_volume: (x, y) or (x, y, z), HU.

    >>> scanner_floor(np.array([[-1100.0, 40.0], [-2000.0, 0.0]]))
    -1100.0
    """
    return float(np.min(hu_volume, where=~padding_mask(hu_volume), initial=SCANNER_FLOOR_HU))


def own_seed(seed: int, name: str, realization: int | None = None) -> int:
    """Seed of one scan's noise, or of one realization of it: the scans of a folder must not share their noise.

    Args:
        seed: the user's, 0 or above.
        name: name of the scan; the noise does not depend on the other scans.
        realization: number of the realization, from 1.

    Raises:
        ValueError: for a realization below 1.

    >>> own_seed(0, "a") == own_seed(0, "a"), own_seed(0, "a") == own_seed(0, "b")
    (True, False)
    """
    if realization is not None and realization < 1:  # numpy's seeds [s, n] and [s, n, 0] are the same
        raise ValueError(f"Expected a realization of 1 or above but got {realization}.")
    entropy = [seed, zlib.crc32(name.encode("utf-8", "surrogateescape")), realization or 0]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
