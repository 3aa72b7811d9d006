"""The page of an ablation: table, curves over training, and every variant's error maps side by side. Needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ct_cncl.pipeline.handlers.budget import SECONDS_KEY
from ct_cncl.pipeline.report.ablation_table import headers, readable_rows
from ct_cncl.pipeline.report.line_chart import line_chart, line_style
from ct_cncl.transforms.hu import WINDOWS, Window, apply_window

if TYPE_CHECKING:
    from ct_cncl.pipeline.ablation_results import VariantResult

ERRORS_SHOWN = 99.0
"""Percentile of the input's absolute error that is still within the windows of the error maps."""
BELOW_INPUT_DB = 3.0
"""How far below the input's PSNR (or the best, where that is lower) charts reach; a collapsed branch leaves below."""
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
table { border-collapse: collapse; } td, th { padding: 3px 8px; text-align: right; border-bottom: 1px solid #ddd; }
th { background: #f4f4f4; vertical-align: bottom; } td:first-child, th:first-child { text-align: left; }
tr.input td { color: #777; } .note { text-align: left; }
.chart text { font: 11px system-ui, sans-serif; fill: #333; } .chart .title { font-weight: bold; font-size: 12px; }
.key span { margin-right: 1.5em; white-space: nowrap; }
.scroll { overflow-x: auto; } .slices th { font-weight: normal; vertical-align: middle; }
.slices td { border: 0; padding: 2px; vertical-align: top; text-align: center; font-size: 12px; }
.slices img { width: 240px; display: block; image-rendering: pixelated; cursor: zoom-in; outline: 1px solid #ccc; }
.slices.large img { width: 768px; cursor: zoom-out; }
"""
SCRIPT = """
document.querySelectorAll(".slices").forEach(t => t.addEventListener("click", e => {
  if (e.target.tagName === "IMG") { t.classList.toggle("large"); e.target.scrollIntoView({block: "center", inline: "center"}); }
}));
"""


def ablation_page(results: Sequence[VariantResult], *, conditions: str, record: Mapping[str, Any]) -> str:
    """The page as one HTML document, pictures and charts inside.

    Args:
        results: of every variant.
        conditions: what is the same for all of them, in words.
        record: of the ablation: "minutes" or "iterations", "overrides" with "data_range_hu" and "picture_window".
    """
    data_range = float(record["overrides"]["data_range_hu"])
    window = WINDOWS[record["overrides"]["picture_window"]]
    parts = [
        "<h1>Variants compared</h1>",
        f"<p>{escape(conditions)}</p>",
        _table(results, data_range),
        "<h2>Over training</h2>",
        _charts(results, data_range, by_minutes=record["minutes"] is not None),
        "<h2>Slices</h2>",
        *_slices(results, window, data_range),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Variants compared</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def error_scale(errors: np.ndarray) -> float:
    """The HU at which the error maps end: a percentile of absolute errors, rounded up to 1, 2 or 5 times a power of ten.

    >>> error_scale(np.array([3.0, -13.0])), error_scale(np.zeros(3))
    (20.0, 1.0)
    """
    high = float(np.percentile(np.abs(errors), ERRORS_SHOWN))
    if not high > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(high))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= high))


def _table(results: Sequence[VariantResult], data_range: float) -> str:
    keys, cells = readable_rows([result.row for result in results])
    head = "".join(f"<th>{escape(header)}</th>" for header in headers(data_range, keys))
    lines = [f"<tr>{head}</tr>"]
    for number, row in enumerate(cells):
        columns = "".join(
            f"<td{' class=note' if key == 'note' else ''}>{escape(cell)}</td>" for key, cell in zip(keys, row)
        )
        lines.append(f"<tr{' class=input' if number == 0 else ''}>{columns}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _charts(results: Sequence[VariantResult], data_range: float, *, by_minutes: bool) -> str:
    """PSNR of result and branches over training, as validated then."""
    key, unit, label = (SECONDS_KEY, 60.0, "minutes of training") if by_minutes else ("iteration", 1.0, "iterations")
    charts = {"psnr": "result", "psnr_content": "C(y)", "psnr_denoised": "y - N(y)"}
    inputs = [point["psnr_input"] for result in results for point in result.curves if "psnr_input" in point]
    reference = inputs[0] if inputs else None
    values = [point[name] for result in results for point in result.curves for name in charts if name in point]
    values = [value for value in [*values, *inputs] if np.isfinite(value)]
    if not values:
        return "<p>No validation was done.</p>"
    shown_from = min([max(values), *inputs[:1]]) - BELOW_INPUT_DB
    low = max(min(values), shown_from)
    drawn = []
    for name, title in charts.items():
        lines = {
            number: [(point[key] / unit, point[name]) for point in result.curves if name in point and key in point]
            for number, result in enumerate(results)
            if result.row.get(name) is not None
        }
        drawn.append(
            line_chart(
                lines,
                title=title,
                x_label=label,
                y_label=f"PSNR dB (range {data_range:g} HU)",
                y_range=(np.floor(low), np.ceil(max(values))),
                reference=reference,
            )
        )
    swatches = "".join(
        f'<span><svg width="28" height="10"><path d="M0 5H28" stroke-width="2" {line_style(number)}/></svg> '
        f"{escape(result.name)}</span>"
        for number, result in enumerate(results)
    )
    return f'<p class="key">{swatches}<span>- - - input</span></p><div>{"".join(drawn)}</div>'


class _Windows(NamedTuple):
    """One window for each kind of map, the same for all variants."""

    image: Window
    difference: Window
    """Of result - truth; 0 HU is mid-grey."""
    error: Window
    """Of absolute maps; 0 HU is black."""


def _slices(results: Sequence[VariantResult], window: Window, data_range: float) -> list[str]:
    """A table of pictures for each kept slice: the truth and the input first, then a line a variant."""
    judged = [result for result in results if len(result.slices)]
    if not judged:
        return ["<p>No variant has weights to judge.</p>"]
    images, truths = (judged[0].slices[key] for key in ("image", "label"))
    scale = error_scale(images - truths)
    windows = _Windows(window, Window(0.0, 2 * scale), Window(scale / 2, scale))
    explained = (
        f"<p>Images in the window {window}, result &minus; truth around mid-grey in {windows.difference}, absolute maps in "
        f"{windows.error} (centre/width; the input's error decides). dB: PSNR of that slice, range {data_range:g} HU. Click a "
        "picture to enlarge all.</p>"
    )
    parts = [explained]
    for position, number in enumerate(judged[0].slices["number"]):
        image, truth = images[position], truths[position]
        lines = [
            _line(
                "truth, input",
                [
                    ("truth", truth, windows.image),
                    (f"input, {_psnr(image - truth, data_range)}", image, windows.image),
                    ("input - truth", image - truth, windows.difference),
                ],
            )
        ]
        for result in judged:
            maps = {key: result.slices[key][position] for key in ("pred", "content", "denoised")}
            tiles = _tiles(maps, truth, windows, data_range)
            lines.append(_line(result.name, tiles if "psnr_content" in result.row else tiles[:2]))
        parts.append(f'<h3>Slice {number}</h3><div class="scroll"><table class="slices">{"".join(lines)}</table></div>')
    return parts


def _tiles(
    maps: Mapping[str, np.ndarray], truth: np.ndarray, windows: _Windows, data_range: float
) -> list[tuple[str, np.ndarray, Window]]:
    """Result and its error, then the maps of both branches."""
    result, content, denoised = (maps[key] for key in ("pred", "content", "denoised"))
    return [
        (f"result, {_psnr(result - truth, data_range)}", result, windows.image),
        ("result - truth", result - truth, windows.difference),
        (f"|C(y) - truth|, {_psnr(content - truth, data_range)}", np.abs(content - truth), windows.error),
        (f"|y - N(y) - truth|, {_psnr(denoised - truth, data_range)}", np.abs(denoised - truth), windows.error),
        ("disagreement |C(y) - (y - N(y))|", np.abs(content - denoised), windows.error),
    ]


def _psnr(error: np.ndarray, data_range: float) -> str:
    mean_square = float(np.mean(np.square(error, dtype=np.float64)))
    if not np.isfinite(mean_square):
        return "not finite"
    return f"{10 * np.log10(data_range**2 / mean_square):.2f} dB" if mean_square > 0 else "equal"


def _line(name: str, tiles: Sequence[tuple[str, np.ndarray, Window]]) -> str:
    cells = "".join(f"<td>{_picture(hu, window, title)}{escape(title)}</td>" for title, hu, window in tiles)
    return f"<tr><th>{escape(name)}</th>{cells}</tr>"


def _picture(hu: np.ndarray, window: Window, title: str) -> str:
    """(x, y) in HU as an image element, x along its rows of pixels."""
    finite = np.nan_to_num(np.asarray(hu, dtype=np.float32))
    grey = (apply_window(finite, window) * 255).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey.T)).save(stream, format="PNG", optimize=True)
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
