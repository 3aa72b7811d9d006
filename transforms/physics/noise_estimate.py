"""Level and spectrum of a scan's own noise, measured in its soft tissue without a reference, anatomy removed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ct_cncl.transforms.anatomy.regions import MIN_WINDOWS, SOFT_TISSUE_HU, padding_mask, soft_tissue_windows

from .anatomy_mixture import Separated, separate
from .dose import check_hu
from .geometry import PixelSize, check_pixel_size
from .patch_spectra import (
    MOST_PATCHES,
    PATCH_SIZES,
    WINDOW,
    cut,
    expected_power,
    expected_ramp,
    fine_frequencies,
    periodograms,
    rings,
    tissue_corners,
)
from .ray_noise import RayNoise, ray_noise
from .settings import DoseSettings

GOOD_PATCHES = 20
"""Number of patches that is enough; with fewer of one size, the next smaller size is tried."""
PART = 0.5
"""Share of the patches that are measured a second time: those with the least anatomy."""
LARGEST_PATCH_MM = 34.0
"""Larger patches rarely lie within one tissue."""
LEAST_NOISE_HU = 0.2
"""A scan with less noise counts as noise-free (rounding to whole HU alone gives 0.29)."""
MODEL_ERROR = 0.02
"""Relative error of the level where anatomy and noise have equal variance, from trials with known noise on real anatomy."""


FREQUENCIES = 96
"""Number of frequencies in a spectrum, from 0 to the corner of the image's frequency plane."""
LOW_PEAK = 0.1
"""A spectrum that peaks below this fraction of the image's highest frequency is not that of filtered back projection."""
_ITERATIVE = re.compile(
    r"^[IJ]\d\d|ASIR|IDOSE|IMR|SAFIRE|ADMIRE|VEO|AIDR|FIRST|AICE|TRUEFIDELITY|DLIR|PRECISE", re.IGNORECASE
)
"""Manufacturers' kernel names of iterative and learned reconstructions."""


class NoNoiseError(ValueError):
    """A scan's noise cannot be measured; the message is one line that says why."""


@dataclass(frozen=True)
class NoiseEstimate:
    """The noise of a scan in soft tissue."""

    level_hu: float
    """Standard deviation, HU, on average (root mean square) over all soft-tissue patches; anatomy and rounding removed."""
    level_error: float
    """Standard error of the level, relative."""
    frequency_per_mm: np.ndarray
    """(m,) 1/mm, from 0 to the corner of the image's frequency plane."""
    power: np.ndarray
    """(m,) HU^2 mm^2, noise power spectrum, mean over directions; its integral over the plane is the level's square."""
    power_error: np.ndarray
    """(m,) standard error of the power, relative."""
    mean_frequency_per_mm: float
    """Mean of |f| over the spectrum."""
    frequency_error: float
    """Standard error of the mean frequency, relative."""
    peak_frequency_per_mm: float
    """Frequency at which the spectrum is largest."""
    anatomy_share: float
    """Share of the variance in the patches that was removed as anatomy, 0 to 1."""
    ray_noise: tuple[float, float]
    """Means of ``e^p / n`` and of its square over the rays through all patches, n being the incident photons over N0."""
    corners: np.ndarray
    """(patches, 3) first pixel along x and y, and slice index."""
    patch_size: int
    windows: int
    """Number of soft-tissue windows in the slices used."""
    slices: tuple[int, ...]
    log_gain: np.ndarray
    """(m,) natural logarithm of the power over that of a ramp filter, ``|f|`` HU^2 mm^3; finite at f = 0."""


def measure_noise(
    hu_volume: np.ndarray,
    pixel_mm: PixelSize,
    *,
    settings: DoseSettings | None = None,
    max_slices: int = 5,
    hu_range: tuple[float, float] = SOFT_TISSUE_HU,
    log_shape: tuple[np.ndarray, np.ndarray] | None = None,
) -> NoiseEstimate:
    """Measure level and spectrum of a scan's own noise.

    All soft-tissue patches are used, not only the calm ones, which are calm by chance. The noise expected in a patch
    follows from the rays that cross it; noise, whose spectrum rises like a ramp, is separated from anatomy, whose spectrum
    falls steeply (:mod:`.anatomy_mixture`).

    Args:
        hu_volume: (x, y, z) or (x, y), HU.
        pixel_mm: (dx, dy) in mm.
        settings: bowtie filter, current modulation and attenuation of water, which determine how noise varies over a slice;
            None takes the defaults.
        max_slices: most slices used, spread over those with most soft tissue.
        hu_range: range of local means that counts as soft tissue, HU.
        log_shape: frequencies (1/mm) and log of the power over ``|f|``, if the spectrum is known up to its level.

    Raises:
        NoNoiseError: if there is no uniform soft tissue, or no noise in it.
        ValueError: for values not in HU, a missing pixel size or a ``max_slices`` below 1.

    >>> from ct_cncl.transforms.physics import insert_noise
    >>> water = np.where(np.hypot(*np.mgrid[-64:64, -64:64]) < 55, 0.0, -1000.0)[..., None]
    >>> scan = insert_noise(water, (2.0, 2.0), DoseSettings(dose_fraction=1.0, views=180), 0, noise_free=True)
    >>> found, true = measure_noise(scan, (2.0, 2.0)).level_hu, (scan - water)[24:104, 24:104].std()
    >>> bool(abs(found / true - 1) < 0.05)
    True
    """
    hu = np.asarray(hu_volume)
    hu = check_hu(hu[..., None] if hu.ndim == 2 else hu, axes=3)
    pixel = check_pixel_size(pixel_mm)
    settings = settings or DoseSettings()
    if max_slices < 1:
        raise ValueError(f"Expected max_slices of 1 or more but got {max_slices}.")
    windows = _slices_with_tissue(hu, max_slices, hu_range)
    count = sum(windows.values())
    if count < MIN_WINDOWS:
        raise NoNoiseError(f"no uniform soft tissue: {count} windows of {WINDOW} pixels, {MIN_WINDOWS} needed")
    size, corners = _patches(hu, pixel, tuple(windows), hu_range)
    rays = {z: ray_noise(hu[..., z], pixel, settings) for z in np.unique(corners[:, 2]).tolist()}
    photons = np.array([_at(rays[z], i, j, size) for i, j, z in corners.tolist()])
    patches = np.concatenate([cut(hu[..., z], corners[corners[:, 2] == z, :2], size) for z in rays])
    white = pixel[0] * pixel[1] / 12 if np.array_equal(patches, np.rint(patches)) else 0.0
    power = periodograms(patches, pixel)
    ring, ramp, nyquist = rings(size, pixel), expected_ramp(size, pixel), 0.5 / min(pixel)
    expected = photons[:, 0] / photons[:, 0].mean()
    if not power[:, 2:].mean() > 2 * white:
        raise NoNoiseError(f"no noise in the soft tissue: less than {LEAST_NOISE_HU} HU")
    shape = None if log_shape is None else _smeared(np.interp(fine_frequencies(size, pixel), *log_shape), size, pixel)
    found = separate(power, ring, ramp, expected, white=white, nyquist=nyquist, shape=shape)
    if len(corners) > 2 * GOOD_PATCHES * PART and found.anatomy.any():
        # Once more with the patches of least anatomy, judged by spectral shape: judged by calmness, chance would choose.
        keep = np.argsort(found.anatomy, kind="stable")[: int(len(corners) * PART)]
        power, corners, expected = power[keep], corners[keep], expected[keep]
        found = separate(power, ring, ramp, expected, white=white, nyquist=nyquist, shape=shape, chosen=True)
    return _estimate(
        found,
        power=power,
        pixel=pixel,
        size=size,
        photons=photons.mean(axis=0),
        expected=expected,
        corners=corners,
        windows=windows,
        log_shape=log_shape,
    )


def _slices_with_tissue(hu: np.ndarray, most: int, hu_range: tuple[float, float]) -> dict[int, int]:
    """Number of soft-tissue windows by slice index."""
    return slices_to_measure([tissue_windows(hu[..., z], hu_range) for z in range(hu.shape[2])], most)


def tissue_windows(hu_slice: np.ndarray, hu_range: tuple[float, float] = SOFT_TISSUE_HU) -> int:
    """Number of soft-tissue windows in a slice (x, y), HU."""
    if min(hu_slice.shape) < 3 * WINDOW:
        return 0
    tissue = soft_tissue_windows(hu_slice, window=WINDOW, hu_range=hu_range) & ~padding_mask(hu_slice)
    return int(np.sum(tissue))


def slices_to_measure(windows: Sequence[int], most: int = 5) -> dict[int, int]:
    """Slices to measure, with their :func:`tissue_windows`, given the number of these in every slice.

    They are spread over the slices with at least half as many windows as the best one. Choosing again among the chosen
    slices changes nothing.

    >>> slices_to_measure([0, 10, 90, 100, 60, 49], 2)
    {2: 90, 4: 60}
    """
    counts = np.asarray(windows)
    good = np.flatnonzero((counts > 0) & (counts >= counts.max(initial=0) / 2))
    chosen = good[np.unique(np.linspace(0, good.size - 1, min(most, good.size)).round().astype(int))]
    return {int(z): int(counts[z]) for z in chosen}


def _patches(
    hu: np.ndarray, pixel: PixelSize, slices: tuple[int, ...], hu_range: tuple[float, float]
) -> tuple[int, np.ndarray]:
    """Side and corners (n, 3) of the patches: the largest side that gives enough patches."""
    best: tuple[int, np.ndarray] = (PATCH_SIZES[-1], np.zeros((0, 3), dtype=int))
    sizes = [size for size in PATCH_SIZES if size * max(pixel) <= LARGEST_PATCH_MM] or [PATCH_SIZES[-1]]
    for size in sizes:
        found = []
        for z in slices:
            corners = tissue_corners(hu[..., z], size, hu_range)
            found.append(np.column_stack([corners, np.full(len(corners), z)]))
        corners = np.concatenate(found)
        if len(corners) > len(best[1]):
            best = size, corners
        if len(corners) >= GOOD_PATCHES:
            break
    size, corners = best
    if len(corners) == 0:
        raise NoNoiseError(f"no uniform soft tissue: no patch of {size} x {size} pixels")
    if len(corners) > MOST_PATCHES:
        corners = corners[np.unique(np.linspace(0, len(corners) - 1, MOST_PATCHES).round().astype(int))]
    return size, corners


def _at(rays: RayNoise, i: int, j: int, size: int) -> tuple[float, float]:
    place = np.s_[i + size // 4 : i + 3 * size // 4, j + size // 4 : j + 3 * size // 4]
    return float(rays.quantum[place].mean()), float(rays.electronic[place].mean())


def _estimate(
    found: Separated,
    *,
    power: np.ndarray,
    pixel: PixelSize,
    size: int,
    photons: np.ndarray,
    expected: np.ndarray,
    corners: np.ndarray,
    windows: dict[int, int],
    log_shape: tuple[np.ndarray, np.ndarray] | None,
) -> NoiseEstimate:
    ring = rings(size, pixel)
    frequency, weight = plane(pixel)
    relative = found.level / expected
    if log_shape is None:
        log_gain = np.interp(frequency, ring.frequency, _unsmeared(found.log_gain, size, pixel))
    else:
        true = np.interp(frequency, *log_shape)
        log_gain = (
            true + (found.log_gain - _smeared(np.interp(fine_frequencies(size, pixel), *log_shape), size, pixel))[1]
        )
    log_gain = log_gain + math.log(relative.mean())
    spectrum = frequency * np.exp(log_gain)
    density = weight * spectrum
    variance = float(density.sum())
    level = math.sqrt(variance)
    if not level >= LEAST_NOISE_HU:
        raise NoNoiseError(f"no noise in the soft tissue: {level:.3g} HU, {LEAST_NOISE_HU} needed")
    mean_frequency = float((density * frequency).sum() / variance)
    # Errors of the spectrum, ring by ring, and of the mean over overlapping patches.
    to_fine = np.stack([np.interp(frequency, ring.frequency, unit) for unit in np.eye(len(ring.frequency))], axis=1)
    by_ring = (density / variance) @ to_fine
    by_ring_f = (density * (frequency / mean_frequency - 1) / variance) @ to_fine
    area = len(np.unique(np.rint(corners / [size / 2, size / 2, 1]), axis=0))
    total = float((ring.count * power.mean(axis=0))[1:].sum())
    noise = float((ring.count * expected_ramp(size, pixel) * np.exp(found.log_gain))[1:].sum() * found.level.mean())
    anatomy = min(max(1 - noise / total, 0.0), 1.0)
    model = MODEL_ERROR * math.sqrt(anatomy / max(1 - anatomy, 1e-3))
    statistical = by_ring @ found.covariance @ by_ring + found.spread**2 / area
    return NoiseEstimate(
        level_hu=level,
        level_error=math.sqrt(statistical / 4 + model**2),
        frequency_per_mm=frequency,
        power=spectrum,
        power_error=np.sqrt(np.einsum("fr,rs,fs->f", to_fine, found.covariance, to_fine) + found.spread**2 / area),
        mean_frequency_per_mm=mean_frequency,
        frequency_error=math.sqrt(float(by_ring_f @ found.covariance @ by_ring_f) + model**2),
        peak_frequency_per_mm=float(frequency[np.argmax(spectrum)]),
        anatomy_share=anatomy,
        ray_noise=(float(photons[0]), float(photons[1])),
        corners=corners,
        patch_size=size,
        windows=sum(windows.values()),
        slices=tuple(windows),
        log_gain=log_gain,
    )


def unlike_the_model(frequency: np.ndarray, power: np.ndarray, kernel: str | None = None) -> str:
    """One sentence on why a scan's noise is not that of filtered back projection; empty if nothing suggests it.

    Args:
        frequency: (m,) 1/mm, up to the corner of the image's frequency plane.
        power: (m,) noise power of the scan, HU^2 mm^2.
        kernel: kernel name as stated by the scan.

    >>> f = np.linspace(0, 1, 50)
    >>> unlike_the_model(f, f * np.exp(-((f / 0.4) ** 2)), "B30f")
    ''
    """
    if kernel and _ITERATIVE.search(kernel):
        return (
            f"kernel {kernel}: an iterative or learned reconstruction, whose noise is not that of the dose model; inserted noise is "
            "that of filtered back projection with its spectrum"
        )
    if len(power) and float(frequency[int(np.argmax(power))]) < LOW_PEAK * float(frequency[-1]):
        return (
            "spectrum peaks at very low frequencies: a very smooth kernel, or a scan that was denoised or reconstructed iteratively, "
            "whose noise is not that of the dose model"
        )
    return ""


def _unsmeared(log_gain: np.ndarray, size: int, pixel: PixelSize) -> np.ndarray:
    """Log gain (rings,) that becomes ``log_gain`` when smeared by the patches' window."""
    ring, radius = rings(size, pixel), fine_frequencies(size, pixel)
    sharp = log_gain
    for _ in range(3):
        seen = _smeared(np.interp(radius, ring.frequency, sharp), size, pixel)
        sharp = sharp + np.clip(log_gain - seen, -0.5, 0.5)
    return sharp


def _smeared(log_gain: np.ndarray, size: int, pixel: PixelSize) -> np.ndarray:
    """Log gain (rings,) after smearing by the patches' window, from one on the grid of ``fine_frequencies``."""
    power = expected_power(size, pixel, fine_frequencies(size, pixel) * np.exp(log_gain))
    return np.log(np.maximum(power, 1e-300) / expected_ramp(size, pixel))


def plane(pixel: PixelSize) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (m,) to the corner of the frequency plane, 1/mm, and the area of the plane that each stands for, 1/mm^2.

    >>> frequency, area = plane((0.5, 0.5))
    >>> round(float(area.sum()), 6), round(float(frequency[-1]), 4)
    (4.0, 1.4142)
    """
    x, y = (np.fft.fftfreq(256, side) for side in pixel)
    radius = np.hypot(x[:, None], y[None, :]).ravel()
    step = math.hypot(0.5 / pixel[0], 0.5 / pixel[1]) / (FREQUENCIES - 1)
    place = radius / step
    low = np.minimum(place.astype(int), FREQUENCIES - 2)
    share = place - low
    area = np.bincount(low, weights=1 - share, minlength=FREQUENCIES) + np.bincount(
        low + 1, weights=share, minlength=FREQUENCIES
    )
    return np.arange(FREQUENCIES) * step, area / (256**2 * pixel[0] * pixel[1])
