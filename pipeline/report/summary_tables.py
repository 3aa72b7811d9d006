"""The first tables of the page: figures by method, including the reference, and HU errors by tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ct_cncl.pipeline.evaluation.record import Evaluation, Measure, Method, SummaryRow
from ct_cncl.pipeline.report.tables import (
    Cell,
    Column,
    Sheet,
    best_rows,
    interval_text,
    measure_columns,
    number_text,
    short_conditions,
    titled,
)

_SHORT = ("noise", "nps_distance", "cnr_fat", "leakage")
"""Figures in the first table besides image quality; the others follow in a second table."""
_BIAS, _SPREAD = "bias_", "std_"


def summary_sheets(evaluation: Evaluation, colours: Mapping[str, str]) -> list[Sheet]:
    """Tables of figures by method, of HU errors by tissue, and of the remaining figures."""
    measures = [one for one in evaluation.measures if one.group != "tissue"]
    first = [one for one in measures if one.group == "image" or one.key in _SHORT]
    rest = [one for one in measures if one not in first]
    found = _Summaries(evaluation)
    return [
        *found.by_method("summary", "By method", first, colours),
        *found.by_tissue("tissue-bias", "Bias of HU by tissue", _BIAS, colours),
        *found.by_tissue("tissue-spread", "Spread of the HU error by tissue", _SPREAD, colours),
        *found.by_method("summary-more", "Texture, structure, branches", rest, colours),
    ]


class _Summaries:
    """Rows of the summary by method and measure."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.rows = {(row.method, row.measure): row for row in evaluation.summaries}

    def methods(self, measures: Sequence[Measure]) -> list[Method]:
        """Methods that have any of the figures, the reference first."""
        keys = [one.key for one in measures]
        return [one for one in self.evaluation.methods if any((one.key, key) in self.rows for key in keys)]

    def by_method(self, key: str, title: str, measures: Sequence[Measure], colours: Mapping[str, str]) -> list[Sheet]:
        """A table with one row per method; none without figures."""
        methods = self.methods(measures)
        if not methods:
            return []
        rows = [[Cell(one.name, colour=colours.get(one.key, ""))] for one in methods]
        for measure in measures:
            for row, cell in zip(rows, self._cells(methods, measure)):
                row.append(cell)
        columns = [Column("method"), *measure_columns(self.evaluation, measures, grouped=False)]
        return [Sheet(key, title, columns, rows, cards=True)]

    def by_tissue(self, key: str, title: str, kind: str, colours: Mapping[str, str]) -> list[Sheet]:
        """A table with one row per tissue and one column per method."""
        measures = [one for one in self.evaluation.measures if one.group == "tissue" and one.key.startswith(kind)]
        methods = self.methods(measures)
        if not methods:
            return []
        rows = []
        for measure in measures:
            name = measure.title.partition(", ")[2] or measure.title
            cells = self._cells(methods, measure)
            rows.append([Cell(name, note=short_conditions(measure)), *cells])
        unit = titled(measures[0]).removeprefix(measures[0].title).strip()
        columns = [
            Column("tissue"),
            *(Column(f"{one.name}, {unit}", colour=colours.get(one.key, "")) for one in methods),
        ]
        return [Sheet(key, f"{title}, {unit}", columns, rows, measures[0].description)]

    def _cells(self, methods: Sequence[Method], measure: Measure) -> list[Cell]:
        """Cells with one figure for all methods; the best one, apart from the reference, is highlighted."""
        rows = [self.rows.get((one.key, measure.key)) for one in methods]
        judged = [None if row is None or one.role == "reference" else row.mean for one, row in zip(methods, rows)]
        best = best_rows(judged, measure.better)
        return [_cell(row, measure, best=place in best) for place, row in enumerate(rows)]


def _cell(row: SummaryRow | None, measure: Measure, *, best: bool) -> Cell:
    if row is None:
        return Cell("\N{EN DASH}")
    if row.mean is None:
        return Cell("not computed", note=row.note)
    notes = [interval_text(row.low, row.high, measure.digits), row.note]
    return Cell(number_text(row.mean, measure.digits), row.mean, "; ".join(filter(None, notes)), best)
