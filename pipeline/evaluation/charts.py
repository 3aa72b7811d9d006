"""Charts and tables of an evaluation's record: what is shown beside the figures of its methods. Data only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Value = float | str | None
"""What a cell of a table holds: a number in full, text, or nothing."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a chart.

    Attributes:
        method: key of the method it belongs to (its colour); empty for a line that is nobody's, as an identity line.
        name: in the key of the chart, for example "cncl_fast, +100 HU".
        x: (n,) finite.
        y: (n,) finite; or as many values as ``Chart.categories`` (NaN: nothing to show there).
        low: (n,) lower ends of intervals, or None.
        high: (n,) upper ends.
        dashed: a reference rather than a result.
    """

    method: str
    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Chart:
    """Lines, or bars where ``categories`` are given.

    Attributes:
        key: unique: "nps", "tissue_bias", "tissue_std", "calibration", "ttf_+100", "detectability", "linearity",
            "training_psnr", ...
        title: for example "Noise power spectrum".
        x_label: with unit, for example "spatial frequency, cycles/mm".
        y_label: with unit, for example "NPS, HU^2 mm^2".
        curves: at least one.
        categories: names of the groups of bars, for example tissues; then every curve has one value for each.
        note: how it was measured, in a sentence or two.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    categories: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table that is not one row a method: results of a phantom test, for example.

    Attributes:
        key: unique.
        title: heading.
        columns: headers with units.
        rows: cells; numbers in full (people's rounding is ``digits``), text, or None for an empty cell.
        digits: decimals by column.
        note: how it was measured.
        names: leading columns that say what a row is of; paper repeats them where it holds a table in parts.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    digits: Sequence[int] = ()
    note: str = ""
    names: int = 1
