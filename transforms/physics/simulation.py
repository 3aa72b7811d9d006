"""A scan at a lower dose, all steps in their order: calibration, noise, the scanner's floor.

What every command and transform that simulates a dose has in common, for arrays.
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
"""Where the full dose of a scan comes from; "auto" takes the first of the others that works."""


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
    """Photons and filter of a scan: measured in it, from its acquisition tags, the user's, or the stated default.

    Args:
        hu_volume: (x, y, z), HU, at full dose.
        pixel_mm: (dx, dy) in mm.
        settings: electronic variance, views, geometry; filter where nothing says better.
        seed: of the reference noise.
        how: one of :data:`CALIBRATIONS`.
        incident_photons: N0 as the user knows it; the filter is then that of the settings.
        acquisition: tags of the scan, None where the file has none.
        spectrum: of the scan's noise as the user measured it; the level is still measured in the scan, and where it cannot be,
            it is the spectrum's own.
        usual_electronics: where the photons are measured, take the electronic noise that scanners usually have
            (:mod:`.electronics`) instead of that of the settings.

    Returns:
        The calibration; its ``method`` says which it is ("image", "tags", "user", "default"), its ``reason`` why not
        another.

    Raises:
        ValueError: an unknown ``how``, "tags" where they do not suffice, photons together with a calibration, or values not in HU.
    """
    if how not in CALIBRATIONS:
        raise ValueError(f"Expected a calibration out of {', '.join(CALIBRATIONS)} but got {how!r}.")
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
    """A volume at the dose of ``settings``, cut off where the scanner cuts (:func:`scanner_floor`).

    Args:
        hu_volume: (x, y, z), HU, at full dose.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: 0 or above.
        noise_free: True for phantoms.
        progress: called with (slices done, slices in all).
        projections: of this volume, where noise realizations of it are made, too.

    Returns:
        (x, y, z) float32, HU, not rounded, padding as it was. For a dose fraction of 1, unless ``noise_free``, a copy
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
    """Some slices of a volume at a lower dose: the same as :func:`low_dose` gives for the whole.

    Args:
        slices: (n, x, y), HU, of a volume that was checked as a whole.
        padded: (n, x, y) bool: these stay as they are.
        pixel_mm: (dx, dy) in mm.
        settings: dose, photons, filter.
        seed: 0 or above, that of the volume.
        numbers: (n,) place of each in the volume.
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
        order: how its slices are seen.

    Raises:
        ScanError: the file does not state it; noise made with a guessed one would be wrong.
    """
    if isinstance(scan.storage, NiftiStorage) and not scan.storage.spacing_stated:
        raise ScanError(
            f"{scan.source}: expected a voxel spacing but the header states none (pixdim 0, no sform); the noise depends on "
            "it, write the spacing into the header"
        )
    spacing = voxel_spacing(order.affine)
    return float(spacing[0]), float(spacing[1])


def scanner_floor(hu_volume: np.ndarray) -> float:
    """Lowest value that the scan's low dose may have, HU: -1024, or the scan's own lowest outside padding.

    Args:
        hu_volume: (x, y) or (x, y, z), HU.

    >>> scanner_floor(np.array([[-1100.0, 40.0], [-2000.0, 0.0]]))
    -1100.0
    """
    return float(np.min(hu_volume, where=~padding_mask(hu_volume), initial=SCANNER_FLOOR_HU))


def own_seed(seed: int, name: str, realization: int | None = None) -> int:
    """The seed of one scan's noise, or of one realization of it: files of a folder must not share their noise.

    Args:
        seed: the user's, 0 or above.
        name: of the scan; the noise does not depend on which other scans there are.
        realization: from 1 on.

    Raises:
        ValueError: a realization below 1.

    >>> own_seed(0, "a") == own_seed(0, "a"), own_seed(0, "a") == own_seed(0, "b")
    (True, False)
    """
    if realization is not None and realization < 1:  # numpy's seeds [s, n] and [s, n, 0] are one
        raise ValueError(f"Expected a realization of 1 or above but got {realization}.")
    entropy = [seed, zlib.crc32(name.encode("utf-8", "surrogateescape")), realization or 0]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
