"""``ct-cncl noise`` as a function: from scans to a table, CSV, JSON, a page and noise maps."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from ct_cncl.pipeline.common.csv_files import csv_text
from ct_cncl.pipeline.noise_measurement.dicom_map import write_dicom_map
from ct_cncl.pipeline.noise_measurement.measure import ScanNoise, measure_repeated, measure_scan, noise_map, spectrum_2d
from ct_cncl.pipeline.noise_measurement.page import page
from ct_cncl.pipeline.noise_measurement.pairs import Measured, add_subtractions
from ct_cncl.transforms.common.errors import OutputError
from ct_cncl.transforms.common.files import replacing
from ct_cncl.transforms.common.json_values import plain
from ct_cncl.transforms.common.locks import alone_in
from ct_cncl.transforms.common.terminal import say, shown
from ct_cncl.transforms.physics.noise_estimate import NoNoiseError, unlike_the_model
from ct_cncl.transforms.physics.simulation import pixel_of
from ct_cncl.transforms.series import DicomStorage, Scan, ScanError, ScanSource, find_scans, read_scan, to_slices
from ct_cncl.transforms.series.nifti import write_float_nifti
from ct_cncl.transforms.series.orientation import SliceOrder

_COLUMNS = {
    "scan": "scan",
    "level_hu": "level, HU",
    "level_error": "relative error",
    "global_noise_level_hu": "global level, HU",
    "mean_frequency_per_mm": "mean frequency, 1/mm",
    "peak_frequency_per_mm": "peak frequency, 1/mm",
    "anatomy_share": "anatomy taken out",
    "kernel": "kernel",
    "exposure_mas": "mAs",
    "kvp": "kVp",
    "slice_thickness_mm": "thickness, mm",
}
RESULTS = ("noise.json", "noise.csv", "noise.html")


def measure_scans(
    source: Path, *, out: Path | None = None, maps: bool = False, repeat: Path | None = None, overwrite: bool = False
) -> list[dict[str, Any]]:
    """Measure every scan under ``source``; scans that cannot be measured are listed with the reason.

    Args:
        source: a file or folder of scans.
        out: folder of noise.json, noise.csv, noise.html and maps; None only prints.
        maps: write a noise map of each scan: a derived series SCAN_noise_map for DICOM, otherwise SCAN_noise_map.nii.gz.
        repeat: a second scan of the object in ``source``, for exact figures by subtraction.
        overwrite: replace earlier results.

    Returns:
        One row of figures per scan.

    Raises:
        ScanError: no scan was found, or none could be measured.
        OutputError: results exist already, or cannot be written.
        ValueError: maps without a folder, or a repeated scan that does not match.
    """
    if maps and out is None:
        raise ValueError("Expected --out with --map, but got none. Name a folder.")
    scans = find_scans(source)
    if repeat is not None and len(scans) != 1:
        raise ValueError(f"Expected one scan and its repetition, but got {len(scans)} scans in {source}. Name one.")
    with nullcontext() if out is None else alone_in(out):
        if out is not None and not overwrite and any((out / name).exists() for name in RESULTS):
            raise OutputError(f"{out} already holds results. Choose another --out, or use --overwrite.")
        return _measure_all(scans, out, repeat, maps=maps)


def _measure_all(
    scans: Sequence[ScanSource], out: Path | None, repeat: Path | None, *, maps: bool
) -> list[dict[str, Any]]:
    rows, failed, measured = [], [], []
    for found in tqdm(scans, desc="measuring", unit="scan", disable=not sys.stderr.isatty()):
        one = _measured(found, out if maps else None, repeat)
        if isinstance(one, str):
            failed.append(f"{_name(found)}: not measured: {one}")
        else:
            rows.append(one.row)
            measured.append(one)
    if not rows:
        raise ScanError("; ".join(failed))
    add_subtractions(measured)
    say(*_lines(rows))
    say(*failed, error=True)
    if out is not None:
        _write(out, rows, failed)
    return rows


def _measured(found: ScanSource, map_folder: Path | None, repeat: Path | None) -> Measured | str:
    """Measure one scan; returns its figures, or the reason why there are none."""
    try:
        return _row(read_scan(found, allow_irregular=True), found, map_folder, repeat)
    except (NoNoiseError, ScanError, OutputError) as error:  # the other scans can be measured
        return str(error)


def _name(found: ScanSource) -> str:
    """Name of a scan with its subfolder, since two scans may have the same name."""
    return PurePosixPath(found.relative, found.name).as_posix()


def _slices(scan: Scan) -> tuple[np.ndarray, SliceOrder]:
    view, order = to_slices(scan.hu, scan.affine, axis=2 if isinstance(scan.storage, DicomStorage) else None)
    return np.ascontiguousarray(view), order


def _row(scan: Scan, found: ScanSource, map_folder: Path | None, repeat: Path | None) -> Measured:
    hu, order = _slices(scan)
    pixel = pixel_of(scan, order)
    noise = measure_scan(hu, pixel)
    row: dict[str, Any] = {"scan": _name(found), **noise.figures(), **_protocol(scan)}
    row["remarks"] = _remarks(noise, row.get("kernel"))
    row["by_slice_hu"] = noise.by_slice
    row["spectrum"] = {
        "frequency_per_mm": noise.estimate.frequency_per_mm,
        "power_hu2_mm2": noise.estimate.power,
        "relative_error": noise.estimate.power_error,
    }
    row["spectrum_2d_hu2_mm2"] = np.round(spectrum_2d(hu, pixel, noise.estimate), 3).tolist()
    if repeat is not None:
        other, _ = _slices(read_scan(repeat, allow_irregular=True))
        row["by_subtraction"] = measure_repeated(hu, other, pixel)
    if map_folder is not None:
        target = map_folder / found.relative / f"{found.name}_noise_map"
        if found.kind == "dicom":
            write_dicom_map(found, target, noise.estimate)
        else:
            write_float_nifti(
                noise_map(hu, pixel, noise.estimate), order.affine, target.with_name(f"{target.name}.nii.gz")
            )
    grid = (hu.shape, *np.asarray(order.affine, dtype=float).round(2).ravel().tolist())
    return Measured(row, grid, lambda: _slices(read_scan(found, allow_irregular=True))[0], pixel)


def _protocol(scan: Scan) -> dict[str, Any]:
    acquisition = scan.acquisition
    names = ("manufacturer", "kernel", "kvp", "exposure_mas", "tube_current_ma", "slice_thickness_mm")
    return {name: getattr(acquisition, name, None) for name in names} if acquisition else {}


def _remarks(noise: ScanNoise, kernel: str | None) -> list[str]:
    """Remarks on what is unusual about the noise."""
    found = noise.estimate
    remarks = []
    if len(found.corners) < 20:
        remarks.append(f"only {len(found.corners)} patches of soft tissue: uncertain")
    unlike = unlike_the_model(found.frequency_per_mm, found.power, kernel)
    return [*remarks, unlike] if unlike else remarks


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    table = [list(_COLUMNS.values())] + [[shown(_cell(row.get(key))) for key in _COLUMNS] for row in rows]
    widths = [max(len(line[k]) for line in table) for k in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    for row in rows:
        lines += [f"{row['scan']}: {remark}" for remark in row["remarks"]]
        if "by_subtraction" in row:
            exact = row["by_subtraction"]
            other = f" of {exact['other']}" if "other" in exact else ""
            lines.append(
                f"{row['scan']}: by subtraction{other} {exact['level_hu']:.2f} HU, mean frequency {exact['mean_frequency_per_mm']:.3f} / mm"
            )
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write(out: Path, rows: list[dict[str, Any]], failed: list[str]) -> None:
    content = {
        "noise.csv": csv_text([[*_COLUMNS], *([row.get(key) for key in _COLUMNS] for row in rows)]),
        "noise.html": page(rows, failed, _COLUMNS),
        "noise.json": json.dumps(plain({"scans": rows, "not_measured": failed}), indent=2, allow_nan=False) + "\n",
    }
    for name, text in content.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names need not be valid text
