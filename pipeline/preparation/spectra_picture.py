"""Draws two noise power spectra as SVG, without any library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ct_cncl.transforms.common.files import replacing

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 480, 320, 64, 34, 16, 48
COLOURS = ("#1f4e9c", "#c2571a")


def write_spectra_picture(spectra: Mapping[str, Any], path: Path) -> None:
    """Draw the spectra of the scan's own noise and of the inserted noise, the latter divided by ``1 / dose - 1``.

    If noise power is inversely proportional to the dose, the two curves agree.

    Args:
        spectra: from :func:`~ct_cncl.transforms.physics.inserted_noise.compared_spectra`.
        path: the SVG file; an existing one is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    curves = [
        ("the scan's own noise", spectra["frequency_per_mm"], spectra["scan_hu2_mm2"]),
        (
            "inserted, over (1 / dose - 1)",
            spectra["inserted_frequency_per_mm"],
            spectra["inserted_over_noise_factor_hu2_mm2"],
        ),
    ]
    with replacing(path) as temporary:
        temporary.write_text(spectra_svg(curves), encoding="utf-8")


def write_mean_spectra(each: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the mean spectra over the scans of a data set, after scaling each scan to noise of 1 HU.

    Args:
        each: spectra of each scan, as in :func:`write_spectra_picture`; empty ones are left out, and nothing is written if all are.
        path: the SVG file; an existing one is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    measured = [spectra for spectra in each if spectra]
    if not measured:
        return
    grid = np.linspace(0, min(spectra["inserted_frequency_per_mm"][-1] for spectra in measured), 64)
    own, inserted = [], []
    for spectra in measured:
        f, power = np.array(spectra["frequency_per_mm"]), np.array(spectra["scan_hu2_mm2"])
        variance = float((2 * np.pi * f * power).sum() * f[1])
        own.append(np.interp(grid, f, power) / variance)
        ring = spectra["inserted_frequency_per_mm"], spectra["inserted_over_noise_factor_hu2_mm2"]
        inserted.append(np.interp(grid, *ring) / variance)
    curves = [
        (f"the scans' own noise, mean of {len(measured)}", grid.tolist(), np.mean(own, axis=0).tolist()),
        ("inserted, over (1 / dose - 1)", grid.tolist(), np.mean(inserted, axis=0).tolist()),
    ]
    with replacing(path) as temporary:
        temporary.write_text(
            spectra_svg(curves, ("frequency, 1/mm", "noise power of 1 HU, mm\u00b2")), encoding="utf-8"
        )


def round_ticks(end: float) -> list[float]:
    """Round numbers for the ticks of an axis from 0 to ``end``, five to ten of them.

    >>> round_ticks(0.52), round_ticks(1050.0)
    ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0])
    """
    power = 10.0 ** math.floor(math.log10(end / 4))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= end / 4)
    return [round(n * step, 12) for n in range(int(end / step * (1 + 1e-9)) + 1)]


def spectra_svg(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    labels: tuple[str, str] = ("frequency, 1/mm", "noise power, HU\u00b2 mm\u00b2"),
    *,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
) -> str:
    """Draw noise power spectra as SVG.

    Args:
        curves: name, frequencies in 1/mm and powers in HU² mm² of each curve.
        labels: labels of the axes.
        band: lower and upper ends of an interval around the first curve, at its frequencies.

    >>> spectra_svg([("noise", [0.0, 0.5, 1.0], [0.0, 3.0, 1.0])]).startswith("<svg")
    True
    """
    right = max(max(x) for _, x, _ in curves)
    top = 1.05 * max(y for line in (*(ys for _, _, ys in curves), *(band or ())) for y in line) or 1.0
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + wide * x / right:.1f},{TOP + high * (1 - y / top):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{LEFT},{TOP}V{TOP + high}H{LEFT + wide}" fill="none" stroke="#666"/>',
    ]
    for x in round_ticks(right):
        at = place(x, 0).partition(",")[0]
        parts.append(f'<text x="{at}" y="{TOP + high + 18}" text-anchor="middle">{x:g}</text>')
    for y in round_ticks(top):
        at = place(0, y).partition(",")[2]
        parts.append(f'<text x="{LEFT - 8}" y="{float(at) + 4:.1f}" text-anchor="end">{y:,g}</text>')
    parts.append(f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 10}" text-anchor="middle">{labels[0]}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">{labels[1]}</text>')
    if band is not None:
        xs = curves[0][1]
        ends = [place(x, y) for x, y in (*zip(xs, band[0]), *reversed(list(zip(xs, band[1]))))]
        parts.append(f'<polygon points="{" ".join(ends)}" fill="{COLOURS[0]}" fill-opacity="0.2"/>')
    for n, (name, xs, ys) in enumerate(curves):
        line = " ".join(place(x, y) for x, y in zip(xs, ys))
        colour = COLOURS[n % len(COLOURS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + wide}" y="{TOP + 14 + 18 * n}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])
