"""Two scans of one object, found among many: the same grid, the same noise, and a difference that is nothing but noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ct_cncl.pipeline.noise_measurement.measure import measure_repeated

ALIKE = 4 / 3
"""Levels that differ by less than this factor are alike: of both scans, and of their difference over sqrt(2) and each."""


class Measured(NamedTuple):
    """A scan that was measured, and what it takes to tell whether another one repeats it.

    Attributes:
        row: its figures, with "scan" and "level_hu".
        grid: shape and affine; scans of one object and position have equal ones.
        read: gives (x, y, z) HU once more.
        pixel: (dx, dy) in mm.
    """

    row: dict[str, Any]
    grid: tuple[object, ...]
    read: Callable[[], np.ndarray]
    pixel: tuple[float, float]


def add_subtractions(scans: Sequence[Measured]) -> None:
    """Put "by_subtraction" into the rows of scans that repeat the one before or after them.

    Copies, results of one another and reconstructions of the same rays share their noise, so that their difference has less of it; another
    object, or one that has moved, leaves anatomy in the difference. Both show as a level that is none of the scans' own.

    Args:
        scans: in the order in which they were found.
    """
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for scan in scans:
        groups.setdefault(scan.grid, []).append(scan)
    for group in groups.values():
        for first, second in pairwise(group):
            if "by_subtraction" not in first.row or second is group[-1]:
                _subtract(first, second)


def _subtract(first: Measured, second: Measured) -> None:
    own = [float(scan.row["level_hu"]) for scan in (first, second)]
    if max(own) > ALIKE * min(own):
        return
    try:
        exact = measure_repeated(first.read(), second.read(), first.pixel)
    except ValueError:  # a copy, or no soft tissue at the same places
        return
    if max(own) > ALIKE * exact["level_hu"] or exact["level_hu"] > ALIKE * min(own):
        return
    for scan, other in ((first, second), (second, first)):
        scan.row.setdefault("by_subtraction", {**exact, "other": other.row["scan"]})
