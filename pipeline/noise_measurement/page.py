"""The page of ``ct-cncl noise``: a summary, the table, and a spectrum for each scan."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve
from ct_cncl.pipeline.metrics.bootstrap import LEAST_VALUES
from ct_cncl.pipeline.preparation.spectra_picture import spectra_svg
from ct_cncl.pipeline.report.charts import chart_sheet
from ct_cncl.pipeline.report.frame import environment, styles
from ct_cncl.pipeline.report.headline import Headline, Shown
from ct_cncl.pipeline.report.tables import Cell, Column, Sheet, number_text
from ct_cncl.transforms.common.numbers import counted

RESULT_FILE = "noise.json"
"""File next to the page with all figures."""
DECIMALS = {
    "level_hu": 1,
    "level_error": 3,
    "global_noise_level_hu": 1,
    "mean_frequency_per_mm": 3,
    "peak_frequency_per_mm": 3,
    "anatomy_share": 3,
}
"""Decimals by column; values stated by the scanner are shown as they are."""


def page(rows: Sequence[Mapping[str, Any]], failed: Sequence[str], columns: Mapping[str, str]) -> str:
    """Make the HTML page: the table, a spectrum for each scan, and noise against exposure if exposures are stated.

    Args:
        rows: figures of the scans, as in ``noise.json``.
        failed: scans that could not be measured, with reasons.
        columns: headers of the table by key.
    """
    known = [key for key in columns if any(row.get(key) is not None for row in rows)]
    heads = [Column(columns[key]) for key in known]
    cells = [[_cell(row.get(key), DECIMALS.get(key)) for key in known] for row in rows]
    exposures = [_exposure_plot(rows)]
    content = {
        "style": styles(),
        "headline": _headline(rows, failed),
        "sheet": Sheet("noise", "Noise of each scan", heads, cells, cards=True),
        "plots": [one for one in exposures if one] + [_scan_plot(number, row) for number, row in enumerate(rows)],
    }
    return environment().get_template("noise.html").render(**content) + "\n"


def _headline(rows: Sequence[Mapping[str, Any]], failed: Sequence[str]) -> Headline:
    levels = [float(row["level_hu"]) for row in rows]
    middles = [float(row["mean_frequency_per_mm"]) for row in rows]
    count = counted(len(rows), "scan")
    span = f"smallest and largest of {count}"
    figures = [
        _shown("Noise", levels, unit="HU", digits=1, span=span, conditions="standard deviation in soft tissue"),
        _shown("Mean frequency", middles, unit="1/mm", digits=2, span=span, conditions="of the noise; lower is coarser"),
    ]  # fmt: skip
    sentence = (
        f"Median noise of {figures[0].value} HU in soft tissue, its mean frequency {figures[1].value}/mm."
        if rows
        else ""
    )
    title = "Noise of CT scans"
    return Headline(
        "Noise", title, f"{count} measured without a reference", sentence, figures if rows else [], list(failed)
    )


def _shown(title: str, values: Sequence[float], *, unit: str, digits: int, span: str, conditions: str) -> Shown:
    middle = number_text(float(np.median(values)), digits) if values else ""
    if len(values) < 2:
        return Shown(title, middle, unit, "one scan, no range", conditions)
    low, high = (number_text(value, digits) for value in (min(values), max(values)))
    return Shown(title, middle, unit, f"{low} to {high}, {span}", conditions)


def _cell(value: Any, digits: int | None = None) -> Cell:
    """A cell with the decimals of its column, so that numbers in a column can be compared."""
    if value is None:
        return Cell("\N{EN DASH}")
    if isinstance(value, (int, float)):
        return Cell(f"{value:g}" if digits is None else number_text(float(value), digits), float(value))
    return Cell(str(value))


def _exposure_plot(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    known = sorted((float(row["exposure_mas"]), float(row["level_hu"])) for row in rows if row.get("exposure_mas"))
    if len({mas for mas, _ in known}) < 2:
        return None
    x, y = zip(*known)
    labels = ("exposure, mAs", "level, HU")
    chart = Chart("exposure", "Noise against exposure", *labels, [Curve("", labels[1], np.array(x), np.array(y))])
    drawn = [spectra_svg([(labels[1], x, y)], labels=labels)]
    return {"title": chart.title, "remarks": [], "drawn": drawn, "notes": [], "sheet": chart_sheet(chart, RESULT_FILE)}


def _scan_plot(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    spectrum = row["spectrum"]
    curves = [(str(row["scan"]), list(spectrum["frequency_per_mm"]), list(spectrum["power_hu2_mm2"]))]
    if "by_subtraction" in row:
        exact = row["by_subtraction"]
        curves.append(("by subtraction", exact["frequency_per_mm"], exact["power_hu2_mm2"]))
    named = [
        (html.escape(name) if len(curves) > 1 else "", x, y) for name, x, y in curves
    ]  # the title names a single one
    band = _band(row)
    ends = [] if band is None else [("lower end", curves[0][1], band[0]), ("upper end", curves[0][1], band[1])]
    listed = [Curve("", name, np.asarray(x), np.asarray(y)) for name, x, y in (curves[0], *ends, *curves[1:])]
    chart = Chart(f"spectrum-{number}", f"Noise power of {row['scan']}", "frequency, 1/mm", "HU^2 mm^2", listed)
    plane = np.asarray(row["spectrum_2d_hu2_mm2"])
    white = number_text(float(f"{plane.max():.3g}"), 0)
    about = (
        f"2-D spectrum, frequency 0 in the middle, x to the right, y down; white {white} HU\u00b2 mm\u00b2. It still "
        "holds the anatomy at low frequencies that is removed from the radial spectrum."
    )
    return {
        "title": f"{row['scan']}: {row['level_hu']:.1f} HU, mean frequency {row['mean_frequency_per_mm']:.2f}/mm",
        "remarks": list(row["remarks"]),
        "drawn": [spectra_svg(named, band=band), _picture_of_plane(plane)],
        "notes": [_about_band(row), about],
        "sheet": chart_sheet(chart, RESULT_FILE),
    }


def _band(row: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """The 95 % interval of the radial spectrum; None for fewer than six patches."""
    if row["patches"] < LEAST_VALUES:
        return None
    power = np.asarray(row["spectrum"]["power_hu2_mm2"])
    half = 1.96 * power * np.asarray(row["spectrum"]["relative_error"])
    return np.maximum(power - half, 0).tolist(), (power + half).tolist()


def _about_band(row: Mapping[str, Any]) -> str:
    patches = row["patches"]
    if patches < LEAST_VALUES:
        return f"{patches} patches: too few for an interval."
    return f"Band: 95 % interval, from the spread over {patches} patches and the errors of the fit."


def _picture_of_plane(power: np.ndarray) -> str:
    """The 2-D spectrum as SVG, one square per frequency; black is zero power."""
    side = len(power)
    grey = np.rint(255 * power / power.max()).astype(int)
    squares = "".join(
        f'<rect x="{x}" y="{y}" width="1.02" height="1.02" fill="rgb({grey[x, y]},{grey[x, y]},{grey[x, y]})"/>'
        for x in range(side)
        for y in range(side)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" style="max-width: 260px">{squares}</svg>'
    )
