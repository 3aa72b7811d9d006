"""Comparison of inserted noise with the scan's own: their spectra, measured in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np

from .calibration import Calibration
from .geometry import PixelSize
from .patch_spectra import PATCH_SIZES, cut, periodograms, rings, tissue_corners


def compared_spectra(
    full: np.ndarray, low: np.ndarray, pixel: PixelSize, calibration: Calibration, dose_fraction: float
) -> dict[str, Any]:
    """Spectra of the scan's own noise and of the inserted noise, for the provenance.

    Args:
        full: (x, y, z), HU.
        low: (x, y, z), HU, the same scan at the lower dose.
        pixel: (dx, dy) in mm.
        calibration: with a measured spectrum.
        dose_fraction: a; the inserted power is divided by ``1 / a - 1``, so that both spectra should be equal.

    Returns:
        Lists of frequencies (1/mm) and powers (HU^2 mm^2), and the ratio of the levels; empty without a measured spectrum
        or with fewer than four patches of soft tissue.
    """
    if not calibration.scan_power or dose_fraction == 1:
        return {}
    for size in PATCH_SIZES:
        corners = {z: tissue_corners(full[..., z], size, spacing=size // 2) for z in calibration.slices or (0,)}
        if sum(map(len, corners.values())) >= 4:
            break
    else:
        return {}
    added = [cut(low[..., z].astype(np.float64) - full[..., z], at, size) for z, at in corners.items() if len(at)]
    ring = rings(size, pixel)
    power = periodograms(np.concatenate(added), pixel).mean(axis=0) / (1 / dose_fraction - 1)
    own = np.arange(len(calibration.scan_power)) * calibration.spectrum_step_per_mm
    level = np.sqrt(float((ring.count * power).sum()) / (size**2 * pixel[0] * pixel[1]))
    return {
        "frequency_per_mm": np.round(own, 5).tolist(),
        "scan_hu2_mm2": list(calibration.scan_power),
        "inserted_frequency_per_mm": np.round(ring.frequency, 5).tolist(),
        "inserted_over_noise_factor_hu2_mm2": [float(f"{value:.5g}") for value in power],
        "inserted_over_own_level": round(float(level / calibration.noise_hu), 4),
    }
