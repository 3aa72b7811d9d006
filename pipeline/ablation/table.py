"""The table of an ablation as CSV and Markdown. Headers state units and data ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ct_cncl.pipeline.common.csv_files import csv_text

COLUMNS = {
    "variant": "variant",
    "psnr": "PSNR dB (range {range} HU)",
    "ssim": "SSIM (range {range} HU)",
    "rmse": "RMSE HU",
    "gain_psnr": "PSNR gain over input dB",
    "gain_ssim": "SSIM gain",
    "gain_rmse": "RMSE change HU",
    "nps_distance": "NPS distance to the reference",
    "psnr_content": "C(y) PSNR dB",
    "ssim_content": "C(y) SSIM",
    "rmse_content": "C(y) RMSE HU",
    "nps_distance_content": "C(y) NPS distance",
    "psnr_denoised": "y - N(y) PSNR dB",
    "ssim_denoised": "y - N(y) SSIM",
    "rmse_denoised": "y - N(y) RMSE HU",
    "nps_distance_denoised": "y - N(y) NPS distance",
    "parameters": "parameters",
    "seconds_a_slice": "seconds a slice",
    "timed_on": "timed on",
    "iterations": "iterations",
    "patches": "patches seen",
    "best_epoch": "epoch of best.pt",
    "epochs": "of epochs",
    "training_seconds": "training seconds",
    "note": "note",
}
"""Headers by key, in order; {range} is the data range."""
_SHORT = (
    *("gain_ssim", "gain_rmse", "ssim_content", "rmse_content", "nps_distance_content"),
    *("ssim_denoised", "rmse_denoised", "nps_distance_denoised", "timed_on"),
)
"""Columns that only the CSV has."""
OPTIONAL = ("nps_distance", "note")
"""Columns that the Markdown table and the page show only if they are not empty."""
_DIGITS = {"psnr": 2, "ssim": 4, "rmse": 2, "nps": 3, "seconds_a_slice": 3, "training_seconds": 0}
"""Decimals to show, by the key or its beginning."""


def input_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of the low-dose input as a row of the table. They are the same for every variant."""
    judged = [row for row in rows if row.get("psnr_input") is not None]
    scores = ("psnr", "ssim", "rmse", "nps_distance")
    return {"variant": "input"} | ({s: judged[0].get(f"{s}_input") for s in scores} if judged else {})


def headers(data_range: float, keys: Sequence[str] = tuple(COLUMNS)) -> list[str]:
    """The header of each column.

    >>> headers(4096.0, ["psnr", "rmse"])
    ['PSNR dB (range 4096 HU)', 'RMSE HU']
    """
    return [COLUMNS[key].format(range=f"{data_range:g}") for key in keys]


def figure_text(key: str, value: Any) -> str:
    """A figure, formatted for people.

    >>> [figure_text(*one) for one in (("psnr_content", 41.256), ("gain_psnr", 4.8), ("parameters", 2612345), ("note", None))]
    ['41.26', '+4.80', '2,612,345', '']
    """
    if value is None or value == "":
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return value
    return f"{value:{'+' if key.startswith('gain_') else ''}.{digits_of(key)}f}"


def digits_of(key: str) -> int:
    """Number of decimals of a column with fractions.

    >>> digits_of("gain_psnr"), digits_of("ssim_content")
    (2, 4)
    """
    name = key.removeprefix("gain_")
    return next((count for start, count in _DIGITS.items() if name.startswith(start)), 4)


def as_csv(rows: Sequence[Mapping[str, Any]], *, data_range: float) -> str:
    """All columns as CSV with unrounded numbers, the input's row first. A note says why columns of noise spectra are empty."""
    lines = [input_row(rows), *map(_reasoned, rows)]
    return csv_text([headers(data_range), *([row.get(key) for key in COLUMNS] for row in lines)])


def _reasoned(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if not row.get("nps_reason"):
        return row
    notes = [row.get("note"), f"no NPS distance: {row['nps_reason']}"]
    return {**row, "note": "; ".join(filter(None, notes))}


def readable_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Keys and formatted cells of the columns that people compare, with the input's row first; see ``OPTIONAL``."""
    empty = [key for key in OPTIONAL if not any(row.get(key) for row in rows)]
    keys = [key for key in COLUMNS if key not in _SHORT and key not in empty]
    return keys, [[figure_text(key, row.get(key)) for key in keys] for row in [input_row(rows), *rows]]


def as_markdown(rows: Sequence[Mapping[str, Any]], *, data_range: float) -> str:
    """The columns that people compare, as a Markdown table."""
    keys, cells = readable_rows(rows)
    lines = [headers(data_range, keys), ["---", *["---:" for _ in keys[1:]]], *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
