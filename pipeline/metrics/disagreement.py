"""How well the disagreement of the two branches predicts errors of the result. Pure functions over pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LEAST_VALUES = 20
_BINS = 10


class CalibrationCurve(NamedTuple):
    """Mean error by disagreement, in bins with equal numbers of pixels."""

    disagreement: np.ndarray
    """(bins,) mean disagreement in each bin, HU."""
    error: np.ndarray
    """(bins,) mean absolute error in each bin, HU."""


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation.

    Args:
        first: values, any shape.
        second: values of the same shape.

    Returns:
        -1 to 1.

    Raises:
        ValueError: the shapes differ, there are fewer than 20 values, or values are not finite or constant.

    >>> round(rank_correlation(np.arange(20), np.exp(np.arange(20.0))), 6)
    1.0
    """
    from scipy.stats import spearmanr

    if first.shape != second.shape or first.size < _LEAST_VALUES:
        raise ValueError(
            f"Expected at least {_LEAST_VALUES} pairs of values, but got shapes {first.shape} and {second.shape}."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("Expected finite values, but got NaN or infinity.")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("Expected values that vary, but got constant ones.")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def calibration_curve(disagreement: np.ndarray, error: np.ndarray) -> CalibrationCurve:
    """Mean absolute error of pixels by their disagreement, in ten groups with equal numbers of pixels.

    The curve lies on the diagonal where the disagreement is as large as the error.

    Args:
        disagreement: (n,), HU, 0 or more.
        error: (n,), result - reference, HU.

    Raises:
        ValueError: the shapes differ, or there are fewer than 20 values.

    >>> curve = calibration_curve(np.arange(100.0), -2 * np.arange(100.0))
    >>> curve.disagreement.tolist()[:2], curve.error.tolist()[:2]
    ([4.5, 14.5], [9.0, 29.0])
    """
    if disagreement.shape != error.shape or disagreement.size < _LEAST_VALUES:
        raise ValueError(
            f"Expected at least {_LEAST_VALUES} pairs, but got shapes {disagreement.shape} and {error.shape}."
        )
    order = np.argsort(disagreement, kind="stable")
    parts = np.array_split(order, _BINS)
    return CalibrationCurve(
        np.array([disagreement[part].mean(dtype=np.float64) for part in parts]),
        np.array([np.abs(error[part]).mean(dtype=np.float64) for part in parts]),
    )
