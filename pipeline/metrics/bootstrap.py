"""Means with intervals by bootstrap, by hand: scipy.stats.bootstrap has no bootstrap-t, and what it has is too narrow for few values."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LEAST_VALUES = 6
"""Fewer values give no interval that could be trusted: even all of them may lie on one side of the reference by chance."""
RESAMPLES = 2000
_CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and where the true one lies."""

    mean: float
    low: float | None
    """None where there are fewer than :data:`LEAST_VALUES` values."""
    high: float | None
    size: int
    """How many values it is the mean of."""


def bootstrap_mean(values: np.ndarray, *, seed: int) -> Interval:
    """Mean of independent values and its bootstrap-t interval of 95 %.

    Resamples are judged by ``t = (mean* - mean) / se*``, each with its own standard error, and the interval is
    ``mean - se t``: for few values that covers far better than percentiles of ``mean*``, which are too narrow. It ends at the
    smallest and the largest value: where few values lie far from all others, resamples without them have next to no
    standard error, and their ``t`` would send the interval to where no image has ever been. So it may exclude 0 for
    differences that all have one sign: which of ``n`` differences as likely above as below 0 happens with ``2 / 2^n``, and only
    where that is within 5 % (6 values or more) the interval is bounded.

    Args:
        values: (n,), independent of each other, finite.
        seed: of the resamples.

    Raises:
        ValueError: no value, or one that is not finite.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 12.5.

    >>> interval = bootstrap_mean(np.random.default_rng(0).normal(40, 1, 20), seed=0)
    >>> bool(interval.low < 40 < interval.high), interval.size
    (True, 20)
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"Expected finite values, but got {values.size} with NaN, infinity or none at all.")
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
