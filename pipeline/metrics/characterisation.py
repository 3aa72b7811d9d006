"""Characterisation: an observer that tells one kind of lesion from another, trained on some realizations and tested on others.

A denoiser can improve detection and yet make characterisation worse. Sources: Barrett and Myers 2004, Foundations of Image
Science, chapter 13 (channelised Hotelling observer); DeLong et al. 1988, Biometrics 44:837 (variance of the area under the
ROC curve).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Z_95 = 1.96


class Area(NamedTuple):
    """Area under the ROC curve with its 95 % interval: 0.5 is guessing, 1 is never wrong."""

    area: float
    low: float
    high: float


def told_apart(first: np.ndarray, second: np.ndarray, channels: np.ndarray) -> Area:
    """Measure how well a channelised Hotelling observer tells two kinds of images apart.

    The images of each kind at even positions train it and those at odd positions test it, so that it has seen no test image.

    Args:
        first: (n1, size, size) regions, HU.
        second: (n2, size, size) regions of the other kind, HU.
        channels: (size * size, p), from :func:`~.observer.difference_of_gaussian_channels`.

    Raises:
        ValueError: there are fewer than p + 5 training images, or fewer than 4 images of a kind, or the regions have no noise.

    >>> rng = np.random.default_rng(0)
    >>> noise = rng.normal(0, 10, (4000, 9, 9))
    >>> noise[:2000, 4, 4] += 10.0
    >>> round(told_apart(noise[:2000], noise[2000:], np.eye(81)[:, [40]]).area, 1)  # d' = 1: 0.76
    0.8
    """
    a, b = (np.asarray(one, np.float64).reshape(len(one), -1) @ channels for one in (first, second))
    if min(len(a), len(b)) < 4 or (len(a) + len(b)) // 2 < channels.shape[1] + 5:
        raise ValueError(
            f"Expected at least {2 * channels.shape[1] + 10} regions for {channels.shape[1]} channels, 4 of each kind, but got {len(a)} "
            f"and {len(b)}."
        )
    train = a[::2], b[::2]
    scatter = sum(len(part) * np.cov(part.T, bias=True).reshape(2 * [channels.shape[1]]) for part in train)
    try:
        weights = np.linalg.solve(scatter, train[0].mean(axis=0) - train[1].mean(axis=0))
    except np.linalg.LinAlgError as error:
        raise ValueError("Expected regions with noise, but some channel sees none.") from error
    return area_under_curve(a[1::2] @ weights, b[1::2] @ weights)


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> Area:
    """Fraction of pairs in which the positive score is higher, with DeLong's 95 % interval.

    Args:
        positive: (n1,) scores.
        negative: (n2,) scores.

    >>> area_under_curve(np.array([2.0, 3.0, 4.0]), np.array([0.0, 1.0, 2.5])).area.__round__(3)
    0.889
    """
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    area = float(wins.mean())
    error = math.sqrt(wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative))
    return Area(area, max(area - Z_95 * error, 0.0), min(area + Z_95 * error, 1.0))
