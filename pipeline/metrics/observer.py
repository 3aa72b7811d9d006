"""Low-contrast detectability: a channelised Hotelling observer, which tells images with a lesion from images without one.

Sources: Barrett and Myers 2004, Foundations of Image Science, chapter 13; Abbey and Barrett 2001, J Opt Soc Am A 18:473
(dense difference-of-Gaussian channels); Gallas and Barrett 2003, J Opt Soc Am A 20:1725 (Laguerre-Gauss channels).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

DOG_CHANNELS, DOG_SIGMA, DOG_RATIO, DOG_WIDTH = 10, 0.005, 1.4, 1.67
"""Dense channels: their number, sigma of the first in cycles/pixel, ratio of one sigma to the previous, and Q of each."""
DOG_PEAK = math.sqrt(4 * math.log(DOG_WIDTH) / (1 - DOG_WIDTH**-2))
"""Frequency of a channel's largest response, in units of its sigma."""


class Detectability(NamedTuple):
    """How well an observer tells two sets of images apart."""

    d_prime: float
    """Difference of the decision variable's means in standard deviations, corrected for the number of samples."""
    error: float
    """Jackknife standard error of ``d_prime``."""
    area: float
    """Area under the ROC curve, from ``d_prime``: 0.5 is guessing."""


def difference_of_gaussian_channels(size: int) -> np.ndarray:
    """Dense difference-of-Gaussian channels, as images: they model the eye's band-pass filters, without a preferred direction.

    In frequency: ``exp(-(f / (Q s))^2 / 2) - exp(-(f / s)^2 / 2)``, s = 0.005 * 1.4^j cycles/pixel, j = 0 to 9, Q = 1.67.
    Channels whose peak lies below 0.75 / size are left out: a region has no such frequencies, so they would all be alike.

    Args:
        size: side of the regions, pixels.

    Returns:
        (size * size, up to 10) float64, each of length 1.

    >>> channels = difference_of_gaussian_channels(33)
    >>> channels.shape, np.round((channels**2).sum(axis=0), 9).tolist() == [1.0] * 7
    ((1089, 7), True)
    """
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    columns = []
    for number in range(DOG_CHANNELS):
        sigma = DOG_SIGMA * DOG_RATIO**number
        if DOG_PEAK * sigma < 0.75 / size:
            continue
        response = np.exp(-0.5 * (f / (DOG_WIDTH * sigma)) ** 2) - np.exp(-0.5 * (f / sigma) ** 2)
        image = np.fft.fftshift(np.fft.ifft2(response).real)
        columns.append(image.ravel() / np.linalg.norm(image))
    return np.stack(columns, axis=1)


def channelised_hotelling(present: np.ndarray, absent: np.ndarray, channels: np.ndarray) -> Detectability:
    """Detectability for a Hotelling observer on channel outputs.

    With the channels' mean difference m and pooled covariance K, ``d'^2 = m^T K^-1 m``. With few samples this is too high.
    For normally distributed channel outputs its expectation is known exactly: with N = n1 + n2 samples and p channels,

        (N - p - 3) / (N - 2) d'^2 - p N / (n1 n2)

    is unbiased. If it is below 0, d' is 0.

    Args:
        present: (n1, size, size) regions with the signal at the same place, HU.
        absent: (n2, size, size) regions without it.
        channels: (size * size, p).

    Raises:
        ValueError: the shapes do not match, values are not finite, there are fewer than p + 5 samples, or the regions have no
            noise.

    Source: Anderson 2003, An Introduction to Multivariate Statistical Analysis, section 5.2, for the expectation (T^2 has a
        non-central F distribution).

    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(0, 10, (800, 17, 17))
    >>> signal = np.zeros((17, 17)); signal[8, 8] = 20.0
    >>> result = channelised_hotelling(noise[:400] + signal, noise[400:], np.eye(289)[:, [144]])
    >>> round(result.d_prime, 1)  # one pixel of 2 standard deviations
    2.1
    """
    first, second = _outputs(present, channels), _outputs(absent, channels)
    total, width = len(first) + len(second), channels.shape[1]
    if min(len(first), len(second)) < 2 or total < width + 5:
        raise ValueError(
            f"Expected at least {width + 5} regions for {width} channels, 2 of each kind, but got {len(first)} and {len(second)}."
        )
    corrected = _squared(first, second)
    without_one = (
        [_squared(np.delete(first, k, axis=0), second) for k in range(len(first))],
        [_squared(first, np.delete(second, k, axis=0)) for k in range(len(second))],
    )
    variance = sum((len(part) - 1) * np.var(np.sqrt(np.maximum(part, 0))) for part in without_one)
    d_prime = math.sqrt(max(corrected, 0.0))
    return Detectability(d_prime, math.sqrt(variance), 0.5 * (1 + math.erf(d_prime / 2)))


def _outputs(regions: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Channel outputs (n, channels) of regions (n, size, size)."""
    regions = np.asarray(regions, dtype=np.float64)
    if regions.ndim != 3 or regions.shape[1] * regions.shape[2] != channels.shape[0]:
        raise ValueError(f"Expected regions (n, k, k) with k * k = {channels.shape[0]}, but got {regions.shape}.")
    if not np.isfinite(regions).all():
        raise ValueError("Expected finite HU, but got NaN or infinity.")
    return regions.reshape(len(regions), -1) @ channels


def _squared(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased estimate of d'^2."""
    n1, n2, width = len(first), len(second), first.shape[1]
    total = n1 + n2
    difference = first.mean(axis=0) - second.mean(axis=0)
    scatter = np.zeros((width, width))
    for part in (first, second):
        scatter += len(part) * np.cov(part.T, bias=True).reshape(width, width)
    try:
        square = float(difference @ np.linalg.solve(scatter / (total - 2), difference))
    except np.linalg.LinAlgError as error:
        raise ValueError("Expected regions with noise, but some channel sees none.") from error
    return (total - width - 3) / (total - 2) * square - width * total / (n1 * n2)
