"""Evaluations as CSV files and as text. Every figure states its unit, data range or window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.common.csv_files import csv_text
from ct_cncl.pipeline.evaluation.record import ComparisonRow, Evaluation, Measure, PatientRow, SliceRow, SummaryRow
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES
from ct_cncl.transforms.common.files import replacing

NOT_COMPUTED = "not computed"


def write_tables(evaluation: Evaluation, folder: Path, *, last: str = "summary.csv") -> list[Path]:
    """Write slices, patients, summary, comparisons, curves and tables as CSV, and ``evaluation.json``.

    Empty tables are left out. ``evaluation.json`` records how the evaluation was done.

    Args:
        evaluation: the evaluation.
        folder: folder of the files.
        last: file that is written after all others: if it exists, all do.

    Returns:
        Paths of the files.

    Raises:
        OutputError: a file cannot be written.
    """
    names = {method.key: method.name for method in evaluation.methods}
    pages = {
        "slices.csv": _slice_table(evaluation, names),
        "patients.csv": _patient_table(evaluation, names),
        "summary.csv": _summary_table(evaluation, names),
        "comparisons.csv": _comparison_table(evaluation, names),
        "curves.csv": _curve_table(evaluation),
    }
    pages = {name: rows for name, rows in pages.items() if len(rows) > 1}
    for table in evaluation.tables:
        pages[f"{table.key}.csv"] = [list(table.columns), *(list(row) for row in table.rows)]
    written = []
    texts = {name: csv_text(rows) for name, rows in pages.items()}
    record = {
        "title": evaluation.title,
        "methods": [asdict(method) for method in evaluation.methods],
        "measures": [asdict(measure) for measure in evaluation.measures],
        "provenance": asdict(evaluation.provenance),
        "verdict": None if evaluation.verdict is None else asdict(evaluation.verdict),
        "warnings": list(evaluation.warnings),
    }
    texts["evaluation.json"] = json.dumps(record, indent=2) + "\n"
    for name in sorted(texts, key=lambda name: name == last):
        text = texts[name]
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names need not be valid text
        written.append(folder / name)
    return written


def _figures(row: SliceRow | PatientRow, measures: Sequence[Measure]) -> list[Any]:
    """One cell per measure: the figure, or the reason why there is none."""
    return [
        row.values[one.key]
        if one.key in row.values
        else f"{NOT_COMPUTED}: {row.missing.get(one.key, 'of patients only')}"
        for one in measures
    ]


def _slice_table(evaluation: Evaluation, names: dict[str, str]) -> list[list[Any]]:
    keys = {key for row in evaluation.slice_rows for key in (*row.values, *row.missing)}
    measures = [one for one in evaluation.measures if one.key in keys]
    rows: list[list[Any]] = [["method", "scan", "slice", "patient", *(one.header for one in measures)]]
    rows += [
        [names[row.method], row.scan, row.slice, row.patient, *_figures(row, measures)] for row in evaluation.slice_rows
    ]
    return rows


def _patient_table(evaluation: Evaluation, names: dict[str, str]) -> list[list[Any]]:
    rows: list[list[Any]] = [["method", "patient", "slices", *(one.header for one in evaluation.measures)]]
    rows += [
        [names[row.method], row.patient, row.slices, *_figures(row, evaluation.measures)]
        for row in evaluation.patient_rows
    ]
    return rows


def _summary_table(evaluation: Evaluation, names: dict[str, str]) -> list[list[Any]]:
    head = ["method", "measure", "unit", "conditions", "mean", "95 % low", "95 % high", "count", "over", "note"]
    rows: list[list[Any]] = [head]
    for row in evaluation.summaries:
        one = evaluation.measure(row.measure)
        figures = [row.mean, row.low, row.high]
        rows.append([names[row.method], one.title, one.unit, one.conditions, *figures, row.count, row.over, _note(row)])
    return rows


def _comparison_table(evaluation: Evaluation, names: dict[str, str]) -> list[list[Any]]:
    head = ["first", "second", "measure", "unit", "conditions", "mean of first - second", "95 % low", "95 % high"]
    rows: list[list[Any]] = [[*head, "pairs", "over", "share in which first is better", "note"]]
    for row in evaluation.comparisons:
        one = evaluation.measure(row.measure)
        figures = [row.difference, row.low, row.high]
        more = [row.count, row.over, row.share_better, _note(row)]
        rows.append([names[row.first], names[row.second], one.title, one.unit, one.conditions, *figures, *more])
    return rows


def _note(row: SummaryRow | ComparisonRow) -> str:
    if not row.count:
        return f"{NOT_COMPUTED}: {row.note}"
    few = f"fewer than {LEAST_VALUES} {row.over}: no interval" if row.low is None else ""
    return "; ".join(filter(None, (few, row.note)))


def _curve_table(evaluation: Evaluation) -> list[list[Any]]:
    rows: list[list[Any]] = [["chart", "curve", "x label", "y label", "x", "y", "low", "high"]]
    for chart in evaluation.charts:
        for curve in chart.curves:
            for k in range(len(curve.y)):
                x = chart.categories[k] if chart.categories else float(curve.x[k])
                ends = [float(end[k]) if end is not None else "" for end in (curve.low, curve.high)]
                rows.append([chart.key, curve.name, chart.x_label, chart.y_label, x, float(curve.y[k]), *ends])
    return rows


_IN_TERMINAL = ("image", "noise", "structure", "branches")
"""Groups of measures that are shown in the terminal."""

_BETTER = {"higher": "higher", "lower": "lower", "zero": "near 0", "": "-"}


def as_text(evaluation: Evaluation) -> str:
    """The summary as text for a terminal: one line per figure, one column per method, and which direction is better.

    Args:
        evaluation: the evaluation.
    """
    rows = {(row.method, row.measure): row for row in evaluation.summaries}
    known = {method for method, _ in rows}
    methods = [method for method in evaluation.methods if method.role != "reference" or method.key in known]
    lines = [["", *(method.name for method in methods), "better"]]
    for measure in evaluation.measures:
        if measure.group in _IN_TERMINAL:
            cells = [_shown(rows.get((method.key, measure.key)), measure.digits) for method in methods]
            lines.append([f"{measure.title} {measure.unit}".strip(), *cells, _BETTER[measure.better]])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    )


def _shown(row: SummaryRow | None, digits: int) -> str:
    if row is None or row.mean is None:
        return "-"
    if row.low is None or row.high is None:
        return f"{row.mean:.{digits}f}"
    return f"{row.mean:.{digits}f} ({row.low:.{digits}f} to {row.high:.{digits}f})"
