"""How like the reference's the noise of a result is: power spectra of the same uniform patches in both."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import minimum_filter

from ct_cncl.transforms.anatomy.regions import SOFT_TISSUE_HU, NoisePower, local_std

PATCH = 24
"""Side of a patch, pixels: fits into a liver or an aorta; the lowest frequency that it tells is 1 / (24 pixels)."""

MIN_PATCHES = 4
"""A volume with fewer uniform patches says nothing about its noise."""


def uniform_patches(reference: np.ndarray, *, size: int = PATCH, count: int = 8) -> list[tuple[int, int]]:
    """Corners of the calmest square patches of soft tissue in a slice, none over another.

    Args:
        reference: normal-dose slice (x, y), HU.
        size: side, pixels, even.
        count: the maximum number.

    Returns:
        (x, y) of the corner of lowest indices of each, calmest first; none where there is no soft tissue.

    Raises:
        ValueError: an odd size.

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
    """The patches of a slice (x, y) at ``corners``: (n, size, size)."""
    return np.stack([image[x : x + size, y : y + size] for x, y in corners])


def nps_distance(result: NoisePower, reference: NoisePower) -> float:
    """Relative distance of two radial noise power spectra: ``int |NPS_result - NPS_reference| f df / int NPS_reference f df``.

    0 for the same noise, 1 where the result has none left; twice the noise power is 1 as well. Over rings of frequency up to
    the Nyquist frequency, because a slice has eight patches or so: at a single frequency two realizations of the very same noise
    then differ by 40 % in the mean, and a result would be judged by how much of the reference's own
    realization it has kept, not by its texture. Their rings differ by 12 %.

    Args:
        result: of patches of the result.
        reference: of the same patches of the reference.

    Raises:
        ValueError: spectra of different patch sizes, or a reference without noise.

    >>> from ct_cncl.transforms.anatomy.regions import noise_power_spectrum
    >>> noise = np.random.default_rng(0).normal(0, 10, (50, 16, 16))
    >>> full, half = (noise_power_spectrum(scale * noise, (1.0, 1.0)) for scale in (1.0, 0.5))
    >>> nps_distance(full, full), round(nps_distance(half, full), 6)
    (0.0, 0.75)
    """
    if result.spectrum.shape != reference.spectrum.shape:
        raise ValueError(
            f"Expected spectra of one patch size, but got {result.spectrum.shape} and {reference.spectrum.shape}."
        )
    total = float((reference.radial * reference.frequency).sum())
    if not total > 0:
        raise ValueError(
            "Expected a reference with noise, but its power spectrum is 0. A phantom without noise has no texture."
        )
    return float((np.abs(result.radial - reference.radial) * reference.frequency).sum()) / total
