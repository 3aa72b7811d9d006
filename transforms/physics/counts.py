"""Photon-count simulation of a lower dose: counts, electronic noise, photon-starvation correction, logarithm.

The closed formula adds Gaussian noise to line integrals. Where few photons arrive, a scanner does more than that: counts
below a threshold are smoothed over neighbouring channels and views BEFORE the logarithm (adaptive filtering), and a floor
cuts off the largest line integrals. Averaging before the logarithm lowers p at its ridges, which leaves faint dark bands
along the rays that cross most tissue. Source: Hsieh 1998, Med Phys 25(11):2139; Kachelriess et al. 2001, Med Phys
28(4):475.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from .settings import DoseSettings


def line_integrals_of_counts(counts: np.ndarray, incident: np.ndarray | float, settings: DoseSettings) -> np.ndarray:
    """Line integrals as a scanner computes them: ``p = -ln(max(S(y), floor) / incident)``, S the adaptive filter.

    Args:
        counts: y, (views, channels), measured photons with electronic noise; may be below 0.
        incident: photons without an object, broadcastable to the same shape.
        settings: ``starvation_*`` and ``floor_counts``.

    Returns:
        (views, channels) float64, no unit.

    >>> settings = DoseSettings(starvation_counts=0)
    >>> line_integrals_of_counts(np.array([[50.0, 0.0]]), 100.0, settings).round(2)
    array([[0.69, 4.61]])
    """
    smoothed = smooth_photon_starvation(
        counts,
        threshold=settings.starvation_counts,
        channels=settings.starvation_channels,
        views=settings.starvation_views,
    )
    return -np.log(np.maximum(smoothed, settings.floor_counts) / incident)


def smooth_photon_starvation(counts: np.ndarray, *, threshold: float, channels: int, views: int) -> np.ndarray:
    """Average counts over neighbours where that average is below ``threshold``: fully below half of it, partly up to it.

    The average decides, not the count itself: that would smooth the low counts and leave the high ones, a bias. The weight
    of the average, ``2 (1 - average / threshold)`` between 0 and 1, changes gradually: a sharp switch would create edges.

    Args:
        counts: (views, channels).
        threshold: photons; 0 changes nothing.
        channels: length of the average along a view, odd.
        views: length of the average across views, odd.

    Returns:
        (views, channels) float64.

    >>> smooth_photon_starvation(np.array([[9.0, 30.0, 3.0, 900.0]]), threshold=20, channels=3, views=1).round(9).tolist()
    [[11.8, 20.4, 3.0, 900.0]]
    """
    counts = np.asarray(counts, dtype=np.float64)
    if threshold <= 0:
        return counts
    mean = uniform_filter(counts, (views, channels), mode="nearest")
    share = np.clip(2 * (1 - mean / threshold), 0, 1)
    return counts + share * (mean - counts)


def added_line_integrals(
    line_integral: np.ndarray, incident: np.ndarray, settings: DoseSettings, rng: np.random.Generator
) -> np.ndarray:
    """Noise that a lower dose adds to the line integrals of an existing scan, by photon-count simulation.

    The scan's own counts are thinned: each photon is kept with probability a, which turns Poisson counts of the full dose
    into exactly Poisson counts of the lower dose. Electronic noise of variance ``(1 - a^2) Ne`` replaces what thinning removed
    of the scan's own. Both counts then go through the same scanner model, and their difference is added: for a = 1 it is 0
    everywhere.

    Args:
        line_integral: p of the scan, (views, channels).
        incident: N0 of each ray at full dose, broadcastable to (views, channels).
        settings: dose, electronic noise and photon-starvation correction.
        rng: source of the random numbers.

    Returns:
        (views, channels) float64, no unit.
    """
    a = settings.dose_fraction
    expected = incident * np.exp(-np.asarray(line_integral, dtype=np.float64))
    full = np.floor(expected + rng.random(expected.shape))  # whole photons with the right mean
    low = rng.binomial(full.astype(np.int64), a).astype(np.float64)
    if settings.electronic_variance > 0 and a < 1:
        low += rng.standard_normal(low.shape) * np.sqrt((1 - a**2) * settings.electronic_variance)
    return line_integrals_of_counts(low, a * incident, settings) - line_integrals_of_counts(full, incident, settings)


def measured_counts(
    line_integral: np.ndarray, incident: np.ndarray, electronic_variance: float, rng: np.random.Generator
) -> np.ndarray:
    """Photons measured behind a noise-free object: ``Poisson(incident e^-p) + N(0, Ne)``.

    Args:
        line_integral: p, (views, channels).
        incident: incident photons of each ray, broadcastable to (views, channels).
        electronic_variance: Ne, photons^2.
        rng: source of the random numbers.

    Returns:
        (views, channels) float64, photons.
    """
    counts = rng.poisson(incident * np.exp(-np.asarray(line_integral, dtype=np.float64))).astype(np.float64)
    if electronic_variance > 0:
        counts += rng.standard_normal(counts.shape) * np.sqrt(electronic_variance)
    return counts
