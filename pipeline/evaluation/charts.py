"""Charts and tables of an evaluation's record, which are shown in addition to the figures of its methods. Data only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Value = float | str | None
"""Content of a cell of a table: an unrounded number, text, or nothing."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a chart.

    Attributes:
        method: key of the method, which sets the colour; empty for a line without a method, such as an identity line.
        name: name in the chart's legend, for example "cncl_fast, +100 HU".
        x: (n,), finite.
        y: (n,), finite; or one value for each of ``Chart.categories`` (NaN: nothing to show).
        low: lower ends of intervals (n,), or None.
        high: upper ends of intervals (n,), or None.
        dashed: whether the line is dashed, as for a reference rather than a result.
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
    """Lines, or bars if ``categories`` are given.

    Attributes:
        key: unique key: "nps", "tissue_bias", "tissue_std", "calibration", "ttf_+100", "detectability", "linearity",
            "training_psnr", ...
        title: for example "Noise power spectrum".
        x_label: label with unit, for example "spatial frequency, cycles/mm".
        y_label: label with unit, for example "NPS, HU^2 mm^2".
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
    """A table that does not have one row per method, for example of a phantom test.

    Attributes:
        key: unique key.
        title: heading.
        columns: headers with units.
        rows: cells: unrounded numbers, text, or None for an empty cell.
        digits: decimals for display, by column.
        note: how it was measured.
        names: number of leading columns that name a row; they are repeated when a table is split for printing.
    """

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    digits: Sequence[int] = ()
    note: str = ""
    names: int = 1
