"""Similarity of a result's noise to the reference's: power spectra of the same uniform patches in both."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import minimum_filter

from ct_cncl.transforms.anatomy.regions import SOFT_TISSUE_HU, NoisePower, local_std

PATCH = 24
"""Side of a patch, pixels: it fits into a liver or an aorta, and its lowest frequency is 1 / (24 pixels)."""

MIN_PATCHES = 4
"""Smallest number of uniform patches from which the noise of a volume can be measured."""


def uniform_patches(reference: np.ndarray, *, size: int = PATCH, count: int = 8) -> list[tuple[int, int]]:
    """Corners of the most uniform square patches of soft tissue in a slice; patches do not overlap.

    Args:
        reference: slice of the reference image (x, y), HU.
        size: side of the patches, pixels, even.
        count: largest number of patches.

    Returns:
        Corner (x, y) with the lowest indices of each patch, most uniform first; empty if there is no soft tissue.

    Raises:
        ValueError: ``size`` is odd.

    >>> disc = np.hypot(*np.mgrid[-40:40, -40:40]) < 32
    >>> slice_hu = np.where(disc, 40.0, -1000.0) + np.random.default_rng(0).normal(0, 5, disc.shape)
    >>> len(uniform_patches(slice_hu, size=16, count=4))
    4
    """
    if size % 2:
        raise ValueError(f"Expected an even size, but got {size}.")
    if min(reference.shape) <= size + 1:
        return []
    reference = np.asarray(reference, dtype=np.float64)
    side = size + 1  # odd, for windows with a centre
    mean, _ = local_std(reference, 5)
    tissue = minimum_filter((mean >= SOFT_TISSUE_HU[0]) & (mean <= SOFT_TISSUE_HU[1]), side, mode="mirror")
    _, spread = local_std(reference, side)
    half = side // 2
    inside = np.zeros(reference.shape, dtype=bool)
    inside[half:-half, half:-half] = True
    spread = np.where(tissue & inside, spread, np.inf)
    corners: list[tuple[int, int]] = []
    while len(corners) < count and np.isfinite(spread.min()):
        x, y = (int(index) for index in np.unravel_index(np.argmin(spread), spread.shape))
        corners.append((x - half, y - half))
        spread[max(0, x - size + 1) : x + size, max(0, y - size + 1) : y + size] = np.inf
    return corners


def patches_at(image: np.ndarray, corners: list[tuple[int, int]], *, size: int = PATCH) -> np.ndarray:
    """Cut the patches (n, size, size) at ``corners`` from a slice (x, y)."""
    return np.stack([image[x : x + size, y : y + size] for x, y in corners])


def nps_distance(result: NoisePower, reference: NoisePower) -> float:
    """Relative distance of two radial noise power spectra: ``int |NPS_result - NPS_reference| f df / int NPS_reference f df``.

    It is 0 for the same noise and 1 if the result has no noise; twice the noise power also gives 1. Spectra are averaged over
    rings of frequency up to the Nyquist frequency. A slice has about eight patches, so that at a single frequency two
    realizations of the same noise differ by 40 % on average, and a result would be judged by how much of the reference's
    realization it keeps, not by its texture; over rings they differ by 12 %.

    Args:
        result: spectrum of patches of the result.
        reference: spectrum of the same patches of the reference.

    Raises:
        ValueError: the patch sizes differ, or the reference has no noise.

    >>> from ct_cncl.transforms.anatomy.regions import noise_power_spectrum
    >>> noise = np.random.default_rng(0).normal(0, 10, (50, 16, 16))
    >>> full, half = (noise_power_spectrum(scale * noise, (1.0, 1.0)) for scale in (1.0, 0.5))
    >>> nps_distance(full, full), round(nps_distance(half, full), 6)
    (0.0, 0.75)
    """
    if result.spectrum.shape != reference.spectrum.shape:
        raise ValueError(
            f"Expected spectra of the same patch size, but got {result.spectrum.shape} and {reference.spectrum.shape}."
        )
    total = float((reference.radial * reference.frequency).sum())
    if not total > 0:
        raise ValueError(
            "Expected a reference with noise, but its power spectrum is 0. A noise-free phantom has no noise texture."
        )
    return float((np.abs(result.radial - reference.radial) * reference.frequency).sum()) / total
