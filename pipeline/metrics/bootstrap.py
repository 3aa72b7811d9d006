"""Means with bootstrap-t intervals. scipy.stats.bootstrap lacks these, and its own intervals are too narrow for few values."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LEAST_VALUES = 6
"""Fewer values give no reliable interval: all of them may lie on the same side of the reference by chance."""
RESAMPLES = 2000
_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float | None
    """None for fewer than :data:`LEAST_VALUES` values, like ``high``."""
    high: float | None
    size: int
    """Number of values."""


def bootstrap_mean(values: np.ndarray, *, seed: int) -> Interval:
    """Mean of independent values and its 95 % bootstrap-t interval.

    Each resample gives ``t = (mean* - mean) / se*`` with its own standard error, and the interval is ``mean - se t``. For few
    values its coverage is much better than that of percentiles of ``mean*``, which are too narrow. The interval is limited to
    the smallest and the largest value: with a few outliers, resamples without them have almost no standard error, and their
    ``t`` would push the interval far beyond all values. It therefore excludes 0 if all differences have the same sign. If
    positive and negative differences are equally likely, that happens with probability ``2 / 2^n``, which is below 5 % from 6
    values on; for fewer there is no interval.

    Args:
        values: (n,), independent of each other, finite.
        seed: seed of the resamples.

    Raises:
        ValueError: there is no value, or one is not finite.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 12.5.

    >>> interval = bootstrap_mean(np.random.default_rng(0).normal(40, 1, 20), seed=0)
    >>> bool(interval.low < 40 < interval.high), interval.size
    (True, 20)
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"Expected at least one value and finite ones only, but got {values.size} values, or NaN or infinity among them."
        )
    count, mean = values.size, float(values.mean())
    if count < LEAST_VALUES:
        return Interval(mean, None, None, count)
    error = float(values.std(ddof=1)) / math.sqrt(count)
    if error <= 1e-12 * max(abs(mean), 1e-300):
        return Interval(mean, mean, mean, count)
    drawn = values[np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    usable = errors > 1e-9 * error
    t = (drawn.mean(axis=1)[usable] - mean) / errors[usable]
    upper, lower = np.quantile(t, [(1 + _CONFIDENCE) / 2, (1 - _CONFIDENCE) / 2])
    low, high = mean - float(upper) * error, mean - float(lower) * error
    return Interval(mean, max(low, float(values.min())), min(high, float(values.max())), count)
