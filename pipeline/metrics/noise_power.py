"""Noise power spectra, from uniform regions or from differences of images, and the figures that summarise them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ct_cncl.pipeline.metrics.nps_distance import PATCH, patches_at
from ct_cncl.transforms.anatomy.regions import NoisePower, noise_power_spectrum

LOWEST_BIN = 2
"""First bin of a radial spectrum in which the peak is looked for; below it, the fitted plane and anatomy dominate."""


class NoiseFigures(NamedTuple):
    """The figures that summarise a noise power spectrum."""

    level_hu: float
    """Standard deviation: the square root of the spectrum's integral, HU."""
    peak_per_mm: float
    """Frequency at which the radial spectrum is highest, 1/mm."""
    mean_per_mm: float
    """Mean frequency, weighted by power, 1/mm."""


def noise_power_of_regions(
    images: Sequence[np.ndarray],
    corners: Sequence[Sequence[tuple[int, int]]],
    *,
    pixel_mm: tuple[float, float],
    size: int = PATCH,
) -> NoisePower:
    """Noise power spectrum, 2-D and radial, of uniform square patches of some slices.

    Args:
        images: slices (x, y), HU.
        corners: corners of each slice's patches, from :func:`~.nps_distance.uniform_patches`.
        pixel_mm: (dx, dy) in mm.
        size: side of the patches, pixels.

    Raises:
        ValueError: there is no patch at all.
    """
    found = [patches_at(image, list(at), size=size) for image, at in zip(images, corners, strict=True) if at]
    if not found:
        raise ValueError("Expected at least one uniform patch, but got none. Use slices with soft tissue.")
    return noise_power_spectrum(np.concatenate(found), pixel_mm)


def noise_power_of_differences(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    corners: Sequence[Sequence[tuple[int, int]]],
    *,
    pixel_mm: tuple[float, float],
    size: int = PATCH,
) -> NoisePower:
    """Noise power spectrum of one image, from pairs that differ only by independent noise, so that anatomy cancels out.

    It is the spectrum of ``(first - second) / sqrt(2)``.

    Args:
        first: slices (x, y), HU.
        second: the same slices with another noise realization of the same dose.
        corners: corners of each slice's patches; the patches may hold anatomy.
        pixel_mm: (dx, dy) in mm.
        size: side of the patches, pixels.

    Raises:
        ValueError: there is no patch at all.

    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(0, 10, (2, 64, 64)) + 500 * np.eye(64)
    >>> corners = [[(x, y) for x in range(0, 64, 16) for y in range(0, 64, 16)]]
    >>> power = noise_power_of_differences([a], [b], corners, pixel_mm=(1.0, 1.0), size=16)
    >>> bool(abs(noise_figures(power, pixel_mm=(1.0, 1.0)).level_hu - 10) < 0.5)
    True
    """
    differences = [(a.astype(np.float64) - b) / math.sqrt(2) for a, b in zip(first, second, strict=True)]
    return noise_power_of_regions(differences, corners, pixel_mm=pixel_mm, size=size)


def noise_figures(power: NoisePower, *, pixel_mm: tuple[float, float]) -> NoiseFigures:
    """Level, peak and mean frequency of a spectrum; the peak is refined by a parabola through its neighbours.

    Args:
        power: spectrum of patches with pixels of this size.
        pixel_mm: (dx, dy) in mm.

    Raises:
        ValueError: the spectrum is 0 everywhere.
    """
    total = float(power.spectrum.sum())
    if not total > 0:
        raise ValueError("Expected noise, but the power spectrum is 0.")
    level = math.sqrt(total / (power.spectrum.size * pixel_mm[0] * pixel_mm[1]))
    radial = power.radial
    top = LOWEST_BIN + int(np.argmax(radial[LOWEST_BIN:]))
    shift = 0.0
    if top - 1 >= LOWEST_BIN and top + 1 < radial.size:
        before, here, after = radial[top - 1 : top + 2]
        bend = before - 2 * here + after
        shift = float(0.5 * (before - after) / bend) if bend < 0 else 0.0
    step = float(power.frequency[1] - power.frequency[0])
    return NoiseFigures(level, float(power.frequency[top]) + shift * step, power.mean_frequency)
