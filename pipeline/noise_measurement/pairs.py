"""Find two scans of one object among many: they have the same grid and noise level, and differ by nothing but noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ct_cncl.pipeline.noise_measurement.measure import measure_repeated

ALIKE = 4 / 3
"""Largest factor between the noise levels of both scans, and between each of them and that of their difference over sqrt(2)."""


class Measured(NamedTuple):
    """A measured scan, and what is needed to tell whether another scan repeats it.

    Attributes:
        row: its figures, with "scan" and "level_hu".
        grid: shape and affine, which are equal for scans of one object in one position.
        read: function that reads its HU (x, y, z) again.
        pixel: (dx, dy) in mm.
    """

    row: dict[str, Any]
    grid: tuple[object, ...]
    read: Callable[[], np.ndarray]
    pixel: tuple[float, float]


def add_subtractions(scans: Sequence[Measured]) -> None:
    """Add "by_subtraction" to the rows of scans that repeat the previous or the next scan of the same grid.

    Copies, processed versions and reconstructions of the same raw data share noise, so their difference has less of it. Another
    object, or one that has moved, leaves anatomy in the difference. In both cases the level by subtraction does not match
    the scans' own levels.

    Args:
        scans: the scans in the order in which they were found.
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
