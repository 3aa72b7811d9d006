"""Charts as SVG inside the page, drawn with matplotlib; the page's theme sets their colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ct_cncl.pipeline.evaluation.charts import Chart, Curve
from ct_cncl.pipeline.evaluation.record import Evaluation
from ct_cncl.pipeline.report.colours import DASHES, SERIES
from ct_cncl.pipeline.report.findings import finding
from ct_cncl.pipeline.report.tables import MINUS, Cell, Column, Sheet, powers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (4.9, 3.1)
"""Size of a chart at 100 dots per inch; pages scale it to the width of their column."""
DPI = 100
MOST_PLACES = 60
"""Largest number of rows of the table that belongs to a chart."""
LETTERS = 48
"""Largest total length of category names that fit next to each other below an axis; longer ones are rotated."""
_TEXT, _GRID = "#5e0100", "#5e0200"
_THEME = {_TEXT: "currentColor", _GRID: "var(--grid)"}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text, so that it can be searched and read aloud
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "figure.constrained_layout.use": True,
}


class Style(NamedTuple):
    """Style of the lines of a curve."""

    colour: str
    """A CSS variable: "var(--series-0)"."""
    dash: int
    """Position in ``DASHES``."""


class DrawnChart(NamedTuple):
    """A chart for the page."""

    chart: Chart
    svg: str
    key: list[tuple[str, Style]]
    """Names and styles of the curves."""
    finding: str
    """Message of the chart; empty if there is none."""
    table: Sheet
    """Values of the chart."""


def method_colours(evaluation: Evaluation) -> dict[str, str]:
    """Colours by method key, used on the whole page; input and reference have their own colours."""
    candidates = [method.key for method in evaluation.methods if method.role == "candidate"]
    others = {method.key: f"var(--{method.role})" for method in evaluation.methods if method.role != "candidate"}
    return others | {key: f"var(--series-{number % SERIES})" for number, key in enumerate(candidates)}


def draw_chart(chart: Chart, colours: Mapping[str, str]) -> DrawnChart:
    """Draw a chart as SVG, with grouped bars if it has categories.

    Args:
        chart: the chart; x must be finite, and values of y that are not finite leave a gap.
        colours: colours by method key, see :func:`method_colours`.

    Returns:
        The SVG without title and legend, which the page shows as text.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    styles = curve_styles(chart.curves, colours)
    settings: Any = _SETTINGS | {"svg.hashsalt": chart.key}
    with mpl.rc_context(settings):
        figure = Figure(figsize=INCHES, dpi=DPI)
        axes = figure.add_subplot()
        stand_ins = {style.colour: f"#5e03{number:02x}" for number, style in enumerate(dict.fromkeys(styles))}
        drawn = [(curve, stand_ins[style.colour], DASHES[style.dash]) for curve, style in zip(chart.curves, styles)]
        if chart.categories:
            _bars(axes, chart, drawn)
        else:
            _lines(axes, drawn)
        axes.set_xlabel(powers(chart.x_label))
        axes.set_ylabel(powers(chart.y_label))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    theme = _THEME | {stand_in: colour for colour, stand_in in stand_ins.items()}
    return DrawnChart(
        chart,
        _for_page(stream.getvalue(), chart.key, theme),
        _key(chart.curves, styles),
        finding(chart),
        chart_sheet(chart),
    )


def curve_styles(curves: Sequence[Curve], colours: Mapping[str, str]) -> list[Style]:
    """Styles of curves: the colour depends on the method, the dashes on the curve's number among those of its method."""
    seen: dict[str, int] = {}
    styles = []
    order = list(colours)
    for curve in curves:
        colour = colours.get(curve.method, "currentColor")
        again = seen.get(curve.method, 0)
        seen[curve.method] = again + 1
        rounds = max(order.index(curve.method) - 2, 0) // SERIES if curve.method in colours else 0
        styles.append(Style(colour, 1 if curve.dashed else (again + rounds) % len(DASHES)))
    return styles


def chart_sheet(chart: Chart, file: str = "curves.csv") -> Sheet:
    """Table of a chart's values, one row per place on its axis; of many places, only every n-th is listed.

    Args:
        chart: a chart with lines or bars.
        file: name of the file next to the page that holds all values.
    """
    names = [f"{one.name}" for one in chart.curves]
    heads = [Column(powers(chart.x_label or "category")), *(Column(name) for name in names)]
    if chart.categories:
        rows = [
            [Cell(str(name)), *(_value(float(one.y[place])) for one in chart.curves)]
            for place, name in enumerate(chart.categories)
        ]
        return Sheet(f"chart-{chart.key}", chart.title, heads, rows, powers(chart.y_label))
    drawn = [dict(zip(np.round(one.x, 6).tolist(), np.asarray(one.y).tolist())) for one in chart.curves]
    places = sorted({x for own in drawn for x in own})
    step = -(-len(places) // MOST_PLACES)
    rows = [[_value(x), *(_value(own[x]) if x in own else Cell("") for own in drawn)] for x in places[:: max(step, 1)]]
    note = powers(chart.y_label) + (f"; every {step}th of {len(places)}, all are in {file}" if step > 1 else "")
    return Sheet(f"chart-{chart.key}", chart.title, heads, rows, note)


def _value(value: float) -> Cell:
    if not np.isfinite(value):
        return Cell("")
    return Cell(f"{value:.4g}".replace("-", MINUS), value)


def _key(curves: Sequence[Curve], styles: Sequence[Style]) -> list[tuple[str, Style]]:
    return [(curve.name, style) for curve, style in zip(curves, styles)]


def _lines(axes: Axes, drawn: Sequence[tuple[Curve, str, str]]) -> None:
    for curve, colour, dash in drawn:
        marker = "o" if len(curve.x) <= 20 and not curve.dashed else None
        axes.plot(curve.x, curve.y, dash, color=colour, linewidth=1.6, marker=marker, markersize=3)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def _bars(axes: Axes, chart: Chart, drawn: Sequence[tuple[Curve, str, str]]) -> None:
    width = 0.8 / len(drawn)
    places = np.arange(len(chart.categories))
    for number, (curve, colour, _) in enumerate(drawn):
        at = places + (number - (len(drawn) - 1) / 2) * width
        y = np.asarray(curve.y, dtype=np.float64)
        axes.bar(at, np.nan_to_num(y), width * 0.92, color=colour, linewidth=0)
        if curve.low is not None and curve.high is not None:
            reach = np.nan_to_num(np.abs(np.stack([y - curve.low, np.asarray(curve.high) - y])))
            axes.errorbar(at, y, yerr=reach, fmt="none", ecolor=_TEXT, elinewidth=0.9, capsize=1.5)
    axes.axhline(0, color=_TEXT, linewidth=0.8)
    axes.set_xticks(places, chart.categories)
    if sum(map(len, chart.categories)) > LETTERS:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    axes.grid(visible=False, axis="x")


def _for_page(svg: str, key: str, theme: Mapping[str, str]) -> str:
    """Turn an SVG file into an element of the page: without prolog, with unique ids, and with the colours of the theme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", key)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", svg)
    for stand_in, colour in theme.items():
        svg = svg.replace(stand_in, colour)
    svg = re.sub(r"(font: (?:\d+ )?[\d.]+px) [^;\"]+", r"\1 system-ui, sans-serif", svg)
    return svg.replace("<svg ", '<svg class="chart" aria-hidden="true" focusable="false" ', 1)
