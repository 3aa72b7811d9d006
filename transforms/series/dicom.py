"""DICOM CT in: slices in order, one affine, HU.

Refused rather than guessed: slices twice at one place, gaps and uneven spacing (unless asked for), and slices whose
position, orientation, pixel spacing or rescale is not stated, also where there is only one.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.acquisition import read_acquisition
from ct_cncl.transforms.series.headers import frames_of, read_header
from ct_cncl.transforms.series.pixels import padding_in_hu, read_slices
from ct_cncl.transforms.series.scan import (
    DicomStorage,
    Frame,
    Scan,
    ScanError,
    ScanSource,
    check_affine,
    check_finite,
    check_looks_like_hu,
)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_PLACE = 0.01  # mm
_JITTER_MM, _JITTER_SHARE = 0.05, 0.02
"""How far a slice may lie from its place on the even grid: positions are often stored with one or two decimals."""


def read_dicom(source: ScanSource, *, check_hu: bool = True, allow_irregular: bool = False) -> Scan:
    """A DICOM series as a volume in HU: x = column, y = row, z = slice, sorted along the normal.

    HU are stored * slope + intercept of each slice's own rescale, in float64, then float32. Padding is left as it is. A
    gantry tilt gives a sheared affine. A single slice is as thick as its SliceThickness (1 mm where none is stated).

    Args:
        source: one series, from :func:`ct_cncl.transforms.series.find_scans`.
        check_hu: refuse volumes without any voxel below 0 and values stated in other units.
        allow_irregular: accept missing slices and uneven spacing; the affine then states the mean step.

    Raises:
        ScanError: damaged files, compressed ones without a decoder, slices that do not form one volume, no HU.
    """
    headers = {path: read_header(path) for path in source.files}
    frames = [frame for path, header in headers.items() for frame in frames_of(path, header, check_hu=check_hu)]
    frames = _in_order(_alike(frames))
    irregular = _irregular(frames)
    if irregular and not allow_irregular:
        raise ScanError(f"{source.path}: {irregular}; pass allow_irregular=True to take the mean step")
    affine = check_affine(_affine(frames), source.path)
    shape = (frames[0].shape[1], frames[0].shape[0], len(frames))
    hu = read_slices(frames, shape)
    check_finite(hu, source.path)
    if check_hu:
        check_looks_like_hu(hu, source.path)
    padding, limit = padding_in_hu(headers, frames)
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames)
    storage = DicomStorage(affine, shape, whole, tuple(frames))
    return Scan(
        hu,
        affine,
        source.path,
        storage,
        patient=_patient(headers, source.path),
        padding=padding,
        padding_limit=limit,
        irregular=bool(irregular),
        acquisition=read_acquisition(list(headers.values())),
    )


def _patient(headers: dict[Path, Dataset], folder: Path) -> str | None:
    patients = {str(header.get("PatientID") or "").strip() for header in headers.values()}
    if len(patients) > 1:
        raise ScanError(f"{folder}: expected slices of one patient but got {len(patients)} PatientIDs in one series")
    return patients.pop() or None


def _alike(frames: list[Frame]) -> list[Frame]:
    """Frames that share one grid; files are split by it, so what is left differs within a file or was named by hand."""
    first = frames[0]
    for frame in frames[1:]:
        grid = (*frame.orientation, *frame.spacing)
        if frame.shape != first.shape or not np.allclose(grid, (*first.orientation, *first.spacing), rtol=0, atol=1e-3):
            raise ScanError(
                f"{frame.path}: expected all slices in one orientation, size and pixel spacing but {frame} "
                f"differs from {first}; split the series"
            )
    return frames


def _normal(frame: Frame) -> np.ndarray:
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def _in_order(frames: list[Frame]) -> list[Frame]:
    """Frames sorted along the normal of the first one's plane.

    Raises:
        ScanError: two of them lie at the same place.
    """
    normal = _normal(frames[0])
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    for before, after in pairwise(ordered):
        place = float(after.position @ normal)
        if place - float(before.position @ normal) < _SAME_PLACE:
            raise ScanError(
                f"{after.path}: expected one slice at each position but got two at {place:.2f} mm "
                f"({before} and {after}); remove copies, or separate the phases of the series"
            )
    return ordered


def _irregular(frames: list[Frame]) -> str:
    """What is wrong with the slices' spacing; empty if one affine can state it."""
    positions = np.array([frame.position for frame in frames])
    if len(frames) < 3:
        return ""
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(frames))[:, None] * step, axis=1)
    if off.max() <= max(_JITTER_MM, _JITTER_SHARE * float(np.linalg.norm(step))):
        return ""
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(gaps))
    counts = gaps / usual
    if np.abs(counts - np.rint(counts)).max() < 0.1 and counts.max() > 1.5:
        k = int(np.argmax(counts > 1.5))
        missing = int(np.rint(counts).sum()) - len(counts)
        return (
            f"expected slices every {usual:.2f} mm but got {missing} missing, the first between {frames[k]} and "
            f"{frames[k + 1]}; one affine cannot state that, add the missing files"
        )
    return (
        f"expected evenly spaced slices but got steps from {gaps.min():.2f} to {gaps.max():.2f} mm; one affine cannot "
        "state that, split the series or resample it"
    )


def _affine(frames: list[Frame]) -> np.ndarray:
    """(4, 4) voxel (column, row, slice) -> RAS mm, from the positions themselves, so that a gantry tilt shears it."""
    first, last = frames[0], frames[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]  # PixelSpacing[1]: between columns, along a row
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]  # PixelSpacing[0]: between rows, down a column
    if len(frames) > 1:
        affine[:3, 2] = (last.position - first.position) / (len(frames) - 1)
    else:
        affine[:3, 2] = _normal(first) * (first.thickness or 1.0)
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine
