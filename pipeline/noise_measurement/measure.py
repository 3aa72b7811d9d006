"""Noise figures of one scan, or of two scans of the same object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ct_cncl.transforms.anatomy.regions import local_std, padding_mask, soft_tissue_windows
from ct_cncl.transforms.physics.noise_estimate import NoiseEstimate, NoNoiseError, measure_noise
from ct_cncl.transforms.physics.patch_spectra import (
    PATCH_SIZES,
    cut,
    periodograms,
    plane_periodograms,
    rings,
    tissue_corners,
)
from ct_cncl.transforms.physics.ray_noise import ray_noise
from ct_cncl.transforms.physics.settings import DoseSettings

FAT_HU = (-140.0, -60.0)
WINDOW_MM = 6.0
"""Side of the windows of the global noise level."""
BIN_HU = 0.2
MOST_SLICES = 12
"""Largest number of slices that are measured one by one, spread over the scan."""


@dataclass(frozen=True)
class ScanNoise:
    """The measurements in one scan."""

    estimate: NoiseEstimate
    global_level_hu: float
    """Mode of the local standard deviation in soft tissue, HU; it includes anatomy."""
    by_slice: dict[int, float]
    """Noise level by slice, HU, for slices that could be measured."""
    fat_hu: float
    """Noise level in fat, HU; NaN if there is too little fat."""

    def figures(self) -> dict[str, Any]:
        """The figures as plain values, for tables and JSON."""
        found = self.estimate
        return {
            "level_hu": found.level_hu,
            "level_error": found.level_error,
            "global_noise_level_hu": self.global_level_hu,
            "mean_frequency_per_mm": found.mean_frequency_per_mm,
            "mean_frequency_error": found.frequency_error,
            "peak_frequency_per_mm": found.peak_frequency_per_mm,
            "anatomy_share": found.anatomy_share,
            "fat_level_hu": self.fat_hu,
            "patches": len(found.corners),
            "slices_measured": len(self.by_slice),
        }


def measure_scan(hu: np.ndarray, pixel: tuple[float, float]) -> ScanNoise:
    """Measure the noise level and spectrum of a scan, and the level by slice and in fat.

    Args:
        hu: (x, y, z), HU.
        pixel: (dx, dy) in mm.

    Raises:
        NoNoiseError: there is nothing to measure; the message says why in one line.
    """
    estimate = measure_noise(hu, pixel)
    by_slice = {}
    for z in np.unique(np.linspace(0, hu.shape[2] - 1, min(MOST_SLICES, hu.shape[2])).round().astype(int)).tolist():
        level = estimate.level_hu if hu.shape[2] == 1 else _slice_level(hu[..., z], pixel)
        if level is not None:
            by_slice[z] = level
    try:
        fat = measure_noise(hu, pixel, hu_range=FAT_HU).level_hu
    except NoNoiseError:
        fat = math.nan
    return ScanNoise(estimate, global_noise_level(hu, pixel), by_slice, fat)


def _slice_level(hu: np.ndarray, pixel: tuple[float, float]) -> float | None:
    try:
        return measure_noise(hu, pixel).level_hu
    except ValueError:  # nothing to measure; within a scan, a slice may lack air
        return None


def global_noise_level(hu: np.ndarray, pixel: tuple[float, float]) -> float:
    """Mode of the local standard deviations in soft tissue, HU; NaN without soft tissue.

    Source: Christianson et al. 2015, AJR 205(1):W93.
    """
    window = max(3, 2 * round(WINDOW_MM / math.sqrt(pixel[0] * pixel[1]) / 2) + 1)
    found = []
    for z in range(hu.shape[2]):
        if window * 3 <= min(hu.shape[:2]):
            tissue = soft_tissue_windows(hu[..., z], window=window) & ~padding_mask(hu[..., z])
            found.append(local_std(hu[..., z], window)[1][tissue])
    values = np.concatenate(found) if found else np.zeros(0)
    if values.size == 0:
        return math.nan
    counts = np.bincount((values / BIN_HU).astype(int))
    smooth = np.convolve(counts, np.hanning(7) / np.hanning(7).sum(), "same")
    return float((np.argmax(smooth) + 0.5) * BIN_HU)


def measure_repeated(first: np.ndarray, second: np.ndarray, pixel: tuple[float, float]) -> dict[str, Any]:
    """Exact figures from two scans of the same object, (x, y, z) HU: their difference over sqrt(2) is the noise of one scan.

    Raises:
        ValueError: the shapes differ, there is no soft tissue, or both scans have the same pixels.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"Expected two scans of one object on one grid, but got shapes {first.shape} and {second.shape}. Name a repeated scan."
        )
    noise = (first.astype(np.float64) - second) / math.sqrt(2)
    mean = (first.astype(np.float64) + second) / 2
    for size in PATCH_SIZES:
        corners = [tissue_corners(mean[..., z], size, spacing=size // 2) for z in range(mean.shape[2])]
        if sum(map(len, corners)):
            break
    else:
        raise ValueError("Expected soft tissue (-50 to 200 HU) in both scans, but got no patch of it.")
    power = periodograms(np.concatenate([cut(noise[..., z], at, size) for z, at in enumerate(corners)]), pixel)
    if not power.any():
        raise ValueError("Expected two scans of one object, but got the same pixels twice. Name a repeated scan.")
    ring = rings(size, pixel)
    total = ring.count * power.mean(axis=0)
    return {
        "level_hu": math.sqrt(total.sum() / (size**2 * pixel[0] * pixel[1])),
        "mean_frequency_per_mm": float((total * ring.frequency).sum() / total.sum()),
        "frequency_per_mm": ring.frequency.tolist(),
        "power_hu2_mm2": power.mean(axis=0).tolist(),
        "patches": sum(map(len, corners)),
    }


def spectrum_2d(hu: np.ndarray, pixel: tuple[float, float], estimate: NoiseEstimate) -> np.ndarray:
    """Mean power of the measured patches, (k, k) along x and y, HU^2 mm^2, with frequency 0 in the middle.

    It still holds the anatomy at low frequencies that is removed from the radial spectrum.
    """
    corners, size = estimate.corners, estimate.patch_size
    each = [cut(hu[..., z], corners[corners[:, 2] == z, :2], size) for z in np.unique(corners[:, 2])]
    return np.fft.fftshift(plane_periodograms(np.concatenate(each), pixel).mean(axis=0))


def noise_map(hu: np.ndarray, pixel: tuple[float, float], estimate: NoiseEstimate) -> np.ndarray:
    """Expected standard deviation of the noise in each voxel, float32 (x, y, z), HU.

    The measured level is distributed according to the noise of the rays that cross each pixel; padding is 0.
    """
    result = np.zeros(hu.shape, dtype=np.float32)
    for z in range(hu.shape[2]):
        relative = ray_noise(hu[..., z], pixel, DoseSettings()).quantum / estimate.ray_noise[0]
        result[..., z] = np.where(padding_mask(hu[..., z]), 0, estimate.level_hu * np.sqrt(relative))
    return result
