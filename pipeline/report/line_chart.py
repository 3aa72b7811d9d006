"""Line charts as inline SVG: no dependency, and sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#555555", "#8c564b", "#17becf")
"""Of the lines in turn, told apart also with red-green blindness; later rounds are dashed."""
WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 40


def line_style(number: int) -> str:
    """SVG attributes of the ``number``-th line: its colour, dashes from the second round of colours on."""
    dashes = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')[number // len(COLOURS) % 3]
    return f'stroke="{COLOURS[number % len(COLOURS)]}"{dashes}'


def ticks(low: float, high: float, *, count: int = 6) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def line_chart(
    lines: Mapping[int, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    reference: float | None = None,
) -> str:
    """A chart of a few lines, with a dashed horizontal line at ``reference``.

    Args:
        lines: points (x, y) of each line by the number of its style; x from 0 on. What lies outside ``y_range`` is cut off.
        title: above the chart.
        x_label: with unit.
        y_label: with unit.
        y_range: lowest and highest y.
        reference: y of the dashed line.

    Returns:
        An ``<svg>`` element.
    """
    x_high = max([x for points in lines.values() for x, _ in points if math.isfinite(x)], default=1.0) or 1.0
    low, high = y_range if y_range[1] > y_range[0] else (y_range[0] - 1, y_range[0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * x / x_high,
            TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low),
        )

    parts = [f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in ticks(0.0, x_high):
        x, _ = place(tick, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{tick:g}</text>')
    for tick in ticks(low, high):
        _, y = place(0.0, tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    if reference is not None and low <= reference <= high:
        _, y = place(0.0, reference)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#000" stroke-dasharray="4 3"/>')
    frame = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    inner = "".join(_polyline(number, [place(x, y) for x, y in points]) for number, points in lines.items())
    # A nested <svg> clips what it holds.
    parts.append(f'<svg {frame} viewBox="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} {HEIGHT - TOP - BOTTOM}">{inner}</svg>')
    parts.append(f'<rect {frame} fill="none" stroke="#888"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" class="chart">{"".join(parts)}</svg>'


def _polyline(number: int, points: Sequence[tuple[float, float]]) -> str:
    inside = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in inside)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{COLOURS[number % len(COLOURS)]}"/>' for x, y in inside
    )
    return f'<polyline points="{path}" fill="none" stroke-width="1.6" {line_style(number)}/>{dots}'
