"""Rows and cells of the page's tables: rounded figures, the full numbers for sorting, and the reasons for missing ones."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ct_cncl.pipeline.evaluation.charts import Table
from ct_cncl.pipeline.evaluation.record import Evaluation, Measure

MINUS = "\N{MINUS SIGN}"
GROUPS = {
    "image": "Image quality",
    "tissue": "HU by tissue",
    "noise": "Noise",
    "structure": "Structure",
    "task": "Task",
    "branches": "Branches",
}
"""Headings of the groups of measures."""
MOST_CARDS = 12
"""Largest number of rows that a narrow screen shows as cards; longer tables are scrolled."""
MOST_ROWS = 600
"""Largest number of rows of the table of slices on the page; the CSV has all."""
MOST_ACROSS = 9
"""Largest number of columns that are legible on paper; wider tables are printed in parts."""
MOST_PRINTED = 120
"""Largest number of rows that are printed of a table in parts, over all parts."""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the value by which it is sorted, and a note in small print."""

    text: str
    value: float | None = None
    note: str = ""
    best: bool = False
    colour: str = ""
    """Colour of the method that the cell names."""
    slice: int | None = None
    """Position in the viewer of the slice that the cell names."""


@dataclass(frozen=True)
class Column:
    """A header; ``part`` names the choice of columns with which it is shown, empty for all choices."""

    title: str
    note: str = ""
    hint: str = ""
    part: str = ""
    colour: str = ""
    """Colour of the method that the header names."""


@dataclass(frozen=True)
class Sheet:
    """A table of the page."""

    key: str
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    note: str = ""
    filtered: bool = False
    """Whether a box filters rows by their text."""
    cards: bool = False
    """Whether a narrow screen shows each row as a card."""
    names: int = 1
    """Number of leading columns that name a row."""

    @property
    def parts(self) -> list[str]:
        """Buttons that choose among columns; empty if there is no choice."""
        return parts_of(self.columns)

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers, which are aligned to the right."""
        return [any(row[place].value is not None for row in self.rows) for place in range(len(self.columns))]

    @property
    def wide(self) -> bool:
        """Whether the table is too wide for paper."""
        return len(self.columns) > MOST_ACROSS

    @property
    def printed(self) -> list[Sheet]:
        """The parts in which a wide table is printed: the names of the rows, with a few columns of one choice at a time."""
        if not self.wide:
            return []
        own = range(self.names, len(self.columns))
        room = MOST_ACROSS - self.names
        sheets: list[Sheet] = []
        for part in dict.fromkeys(self.columns[place].part for place in own):
            places = [place for place in own if self.columns[place].part == part]
            title = part or ("other figures" if self.parts else "")
            share = -(-len(places) // -(-len(places) // room))  # parts of about the same width
            sheets += [
                self._with_columns(title, places[start : start + share]) for start in range(0, len(places), share)
            ]
        return sheets if sum(len(one.rows) for one in sheets) <= MOST_PRINTED else []

    def _with_columns(self, title: str, places: Sequence[int]) -> Sheet:
        """The names of the rows with some of the columns, for rows that have a figure there."""
        shown = [*range(self.names), *places]
        rows = [[row[place] for place in shown] for row in self.rows if any(row[place].text for place in places)]
        return Sheet("", title, [self.columns[place] for place in shown], rows, names=self.names)

    @property
    def choices(self) -> list[str]:
        """Texts of the first cells of rows, as choices of the filter; empty without a filter."""
        return list(dict.fromkeys(row[0].text for row in self.rows)) if self.filtered else []


def number_text(value: float, digits: int) -> str:
    """A number with ``digits`` decimals and a proper minus sign; a number that rounds to zero has no sign.

    >>> number_text(-1234.567, 2), number_text(-0.001, 2), number_text(3.0, 0)
    ('\N{MINUS SIGN}1,234.57', '0.00', '3')
    """
    if not math.isfinite(value):
        return "infinite" if math.isinf(value) else "not a number"
    text = f"{abs(value):,.{digits}f}"
    return (MINUS if value < 0 and float(text.replace(",", "")) != 0 else "") + text


def powers(unit: str) -> str:
    """A unit with superscripts.

    >>> powers("HU^2 mm^2")
    'HU² mm²'
    """
    return unit.replace("^2", "\N{SUPERSCRIPT TWO}").replace("^-1", "\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}")


def best_rows(values: Sequence[float | None], better: str) -> set[int]:
    """Positions of the best values; none if neither direction is better or all values are equal.

    >>> best_rows([1.0, 3.0, None], "higher"), best_rows([-1.0, 3.0], "zero"), best_rows([2.0, 2.0], "lower")
    ({1}, {0}, set())
    """
    merit = {"higher": lambda x: x, "lower": lambda x: -x, "zero": lambda x: -abs(x)}.get(better)
    if merit is None:
        return set()
    merits = {place: merit(value) for place, value in enumerate(values) if value is not None}
    if len(set(merits.values())) < 2:
        return set()
    return {place for place, one in merits.items() if one == max(merits.values())}


def measure_columns(evaluation: Evaluation, measures: Sequence[Measure], *, grouped: bool) -> list[Column]:
    """Headers of measures; image figures are shown with their window.

    Args:
        evaluation: the evaluation, which defines the windows.
        measures: one measure per column.
        grouped: whether other figures are shown with their group, rather than with every window.
    """
    arrows = {"higher": " \N{UPWARDS ARROW}", "lower": " \N{DOWNWARDS ARROW}"}
    return [
        Column(
            titled(one) + arrows.get(one.better, ""),
            short_conditions(one),
            f"{one.description} {one.conditions}",
            window_of(one, evaluation.windows)
            or (GROUPS.get(one.group, "") if grouped and one.group != "image" else ""),
        )
        for one in measures
    ]


def parts_of(columns: Sequence[Column]) -> list[str]:
    """The choices if columns belong to several windows or groups; otherwise empty."""
    parts = list(dict.fromkeys(column.part for column in columns if column.part))
    return parts if len(parts) > 1 else []


def short_conditions(measure: Measure) -> str:
    """The first clause of the conditions (the window, or where it was measured); the section on the method gives all."""
    return powers(re.split(r"[,;(]", measure.conditions)[0].strip())


def window_of(measure: Measure, windows: Mapping[str, tuple[float, float]]) -> str:
    """The window at the end of an image figure's key, "" if it has none; keys like "bias_bone" end with a tissue."""
    if measure.group != "image":
        return ""
    return next((name for name in windows if measure.key.endswith(f"_{name}")), "")


def comparison_sheet(evaluation: Evaluation) -> Sheet | None:
    """Table of paired differences, one per row; None if there are none."""
    if not evaluation.comparisons:
        return None
    rows = []
    for one in evaluation.comparisons:
        measure = evaluation.measure(one.measure)
        pair = f"{evaluation.method(one.first).name} {MINUS} {evaluation.method(one.second).name}"
        interval = interval_text(one.low, one.high, measure.digits)
        share = "" if one.share_better is None else f"{100 * one.share_better:.0f} %"
        clear = one.low is not None and one.high is not None and (one.low > 0 or one.high < 0)
        rows.append(
            [
                Cell(pair),
                Cell(titled(measure), note=short_conditions(measure)),
                _figure(one.difference, measure.digits, one.note, best=clear),
                Cell(interval, one.low),
                Cell(share, one.share_better),
                Cell(f"{one.count} {one.over}", one.count),
            ]
        )
    names = ("pair", "figure", "difference", "95 % interval", "first is better", "pairs")
    note = "Bold: the interval does not hold 0."
    return Sheet("comparisons", "Compared in pairs", [Column(name) for name in names], rows, note, filtered=True)


def patient_sheet(evaluation: Evaluation, colours: Mapping[str, str]) -> Sheet | None:
    """Table of means by patient and method; None if there are none."""
    if not evaluation.patient_rows:
        return None
    columns = measure_columns(evaluation, evaluation.measures, grouped=True)
    rows = [
        [
            Cell(evaluation.method(row.method).name, colour=colours.get(row.method, "")),
            Cell(row.patient),
            Cell(str(row.slices), row.slices),
            *_figures(evaluation.measures, row.values, row.missing),
        ]
        for row in evaluation.patient_rows
    ]
    heads = [Column("method"), Column("patient"), Column("slices")]
    return Sheet("patients", "By patient", heads + columns, rows, filtered=True, cards=True, names=len(heads))


def slice_sheet(evaluation: Evaluation, colours: Mapping[str, str], shown: Mapping[str, int]) -> Sheet | None:
    """Table of the figures of every slice, with at most ``MOST_ROWS`` rows; None if there are none.

    Args:
        evaluation: the evaluation.
        colours: colours by method key.
        shown: positions of slices in the viewer by label.
    """
    if not evaluation.slice_rows:
        return None
    columns = measure_columns(evaluation, evaluation.measures, grouped=True)
    rows = []
    for row in evaluation.slice_rows[:MOST_ROWS]:
        label = slice_label(row.scan, row.slice)
        rows.append(
            [
                Cell(evaluation.method(row.method).name, colour=colours.get(row.method, "")),
                Cell(label, slice=shown.get(label)),
                Cell(row.patient),
                *_figures(evaluation.measures, row.values, row.missing),
            ]
        )
    more = len(evaluation.slice_rows) - len(rows)
    note = f"The first {len(rows)} rows; the CSV holds {more} more." if more else ""
    heads = [Column("method"), Column("slice"), Column("patient")]
    return Sheet("slices", "By slice", heads + columns, rows, note, filtered=True, cards=True, names=len(heads))


def slice_label(scan: str, number: int) -> str:
    """Name of a slice in the viewer and in tables.

    >>> slice_label("scan.nii.gz", 3)
    'scan.nii.gz, slice 3'
    """
    return f"{scan}, slice {number}"


def other_sheet(table: Table) -> Sheet:
    """A further table of the evaluation, unchanged."""
    digits = [*table.digits, *[2] * len(table.columns)]
    rows = [
        [
            Cell("") if cell is None else Cell(cell) if isinstance(cell, str) else _figure(cell, digits[place])
            for place, cell in enumerate(row)
        ]
        for row in table.rows
    ]
    heads = [Column(powers(name)) for name in table.columns]
    cards = len(rows) <= MOST_CARDS
    return Sheet(f"table-{table.key}", table.title, heads, rows, table.note, cards=cards, names=table.names)


def titled(measure: Measure) -> str:
    """Title of a figure with its unit."""
    return f"{measure.title} {powers(measure.unit)}".strip()


def _figures(measures: Sequence[Measure], values: Mapping[str, float], missing: Mapping[str, str]) -> list[Cell]:
    return [_figure(values.get(one.key), one.digits, missing.get(one.key, "")) for one in measures]


def _figure(value: float | None, digits: int, note: str = "", *, best: bool = False) -> Cell:
    if value is None:
        return Cell("not computed" if note else "", note=note)
    return Cell(number_text(value, digits), float(value), note, best)


def interval_text(low: float | None, high: float | None, digits: int) -> str:
    """An interval as text; empty if there is none."""
    if low is None or high is None:
        return ""
    return f"{number_text(low, digits)} to {number_text(high, digits)}"
