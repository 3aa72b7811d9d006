"""Reads a DICOM CT series as one volume in HU, with its slices in order and one affine.

Nothing is guessed. A series is refused if two slices lie at the same position, if it has gaps or uneven spacing (unless the caller
allows them), or if a slice, even a single one, does not state its position, orientation, pixel spacing or rescale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ct_cncl.transforms.series.acquisition import read_acquisition
from ct_cncl.transforms.series.headers import frames_of, read_header
from ct_cncl.transforms.series.pixels import padding_in_hu, read_file, read_slices, read_words
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
"""How far a slice may lie from its place on the even grid, in mm and as a share of the step: positions are often rounded to one or
two decimals."""


@dataclass(frozen=True, eq=False)
class Series:
    """A DICOM series with its headers read and its slices in order.

    Attributes:
        source: the series that was opened.
        headers: headers without pixels, by file.
        frames: slices in order along the normal; those at the same position in the order of their numbers.
        affine: (4, 4) float64, voxel (column, row, slice) -> RAS mm; states the mean step.
        copies: files left out because another file holds the same instance.
        doubled: message about slices at the same position; empty if there are none. It names no files, whose names may be patients'.
        irregular: message about the slice spacing; empty if one affine can state it. It names no files either.
        suspects: the two slices between which the problem first appears; empty if there is none.
    """

    source: ScanSource
    headers: dict[Path, Dataset]
    frames: tuple[Frame, ...]
    affine: np.ndarray
    copies: tuple[Path, ...]
    doubled: str
    irregular: str
    suspects: tuple[Frame, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(columns, rows, slices)."""
        return self.frames[0].shape[1], self.frames[0].shape[0], len(self.frames)


def open_series(source: ScanSource, *, check_hu: bool = True) -> Series:
    """Read the headers of a series whose slices share one grid, and put the slices in order.

    Args:
        source: one series, from :func:`ct_cncl.transforms.series.find_scans`.
        check_hu: refuse values that are stated to be in other units than HU.

    Raises:
        ScanError: a file is damaged, a slice lacks its geometry or rescale, or the slices are of several patients or grids.
    """
    stacks = open_stacks(source, check_hu=check_hu)
    if len(stacks) > 1:
        first, other = stacks[0].frames[0], stacks[1].frames[0]
        raise ScanError(
            f"{other.path}: expected all slices in one orientation, size and pixel spacing but {other} "
            f"differs from {first}; split the series"
        )
    return stacks[0]


def open_stacks(source: ScanSource, *, check_hu: bool = True) -> list[Series]:
    """Read the headers of a series and sort its slices into one stack for each orientation, size and pixel spacing.

    Raises:
        ScanError: as in :func:`open_series`, except that several grids are allowed.
    """
    headers = {path: read_header(path) for path in source.files}
    _one_patient(headers, source.path)
    frames, copies = _without_copies(
        [frame for path, header in headers.items() for frame in frames_of(path, header, check_hu=check_hu)]
    )
    return [_stack(source, headers, alike, copies) for alike in _alike(frames)]


def _stack(source: ScanSource, headers: dict[Path, Dataset], frames: list[Frame], copies: tuple[Path, ...]) -> Series:
    normal = _normal(frames[0])
    frames.sort(key=lambda frame: (round(float(frame.position @ normal) / _SAME_PLACE), frame.number, frame.index or 0))
    affine = check_affine(_affine(frames), source.path)
    doubled, suspects = _doubled(frames, normal)
    irregular, missing = ("", ()) if doubled else _irregular(frames, normal)
    return Series(source, headers, tuple(frames), affine, copies, doubled, irregular, suspects or missing)


def read_dicom(source: ScanSource, *, check_hu: bool = True, allow_irregular: bool = False) -> Scan:
    """Read a DICOM series as a volume in HU: x = column, y = row, z = slice, sorted along the normal.

    HU are the stored values times the slope plus the intercept of each slice's own rescale, computed in float64 and returned as
    float32. Scanner padding is converted like any other value. A gantry tilt gives a sheared affine. The step of a single slice is its
    SliceThickness, or 1 mm if none is stated.

    Args:
        source: one series, from :func:`ct_cncl.transforms.series.find_scans`.
        check_hu: refuse volumes without any voxel below 0 and values that are stated to be in other units than HU.
        allow_irregular: accept missing slices and uneven spacing; the affine then states the mean step.

    Raises:
        ScanError: a file is damaged, no decoder for its compression is installed, the slices do not form one volume, or the values
            are not HU.
    """
    series = open_series(source, check_hu=check_hu)
    if series.copies:
        raise ScanError(
            f"{series.copies[0]}: expected one slice at each position but got a second file of the same image; remove the copies"
        )
    names = f" ({' and '.join(map(str, series.suspects))})" if series.suspects else ""
    if series.doubled:
        raise ScanError(
            f"{source.path}: {series.doubled}{names}; remove the copies, or separate the phases of the series"
        )
    if series.irregular and not allow_irregular:
        raise ScanError(
            f"{source.path}: {series.irregular}{names}; one affine cannot state that: add the missing files, split the series or "
            "resample it, or pass allow_irregular=True to use the mean step"
        )
    frames = list(series.frames)
    hu = read_slices(frames, series.shape)
    check_finite(hu, source.path)
    if check_hu:
        check_looks_like_hu(hu, source.path)
    padding, limit = padding_in_hu(series.headers, frames)
    whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames)
    storage = DicomStorage(series.affine, series.shape, whole, series.frames)
    return Scan(
        hu,
        series.affine,
        source.path,
        storage,
        patient=_patient(series.headers),
        padding=padding,
        padding_limit=limit,
        irregular=bool(series.irregular),
        acquisition=read_acquisition(list(series.headers.values())),
    )


def _patient(headers: dict[Path, Dataset]) -> str | None:
    return next((text for header in headers.values() if (text := str(header.get("PatientID") or "").strip())), None)


def _one_patient(headers: dict[Path, Dataset], folder: Path) -> None:
    patients = {str(header.get("PatientID") or "").strip() for header in headers.values()}
    if len(patients) > 1:
        raise ScanError(
            f"{folder}: expected slices of one patient but got {len(patients)} PatientIDs in one series; export each patient by itself"
        )


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], tuple[Path, ...]]:
    """The frames of every instance once, and the files that repeat one.

    Raises:
        ScanError: two different images have the same SOPInstanceUID.
    """
    kept: dict[tuple[str, int | None], Frame] = {}
    copies: list[Path] = []
    for frame in frames:
        first = kept.setdefault((frame.uid or str(frame.path), frame.index), frame)
        if first is frame:
            continue
        same = first.shape == frame.shape and np.array_equal(first.position, frame.position)
        if not same or not np.array_equal(_words(first), _words(frame)):
            raise ScanError(
                f"{frame.path}: expected every image to have its own SOPInstanceUID but {first.path.name} holds a different "
                "image with the same one; export the series again"
            )
        copies.append(frame.path)
    return list(kept.values()), tuple(dict.fromkeys(copies))


def _words(frame: Frame) -> np.ndarray:
    return read_words(read_file(frame.path), frame)


def _alike(frames: list[Frame]) -> list[list[Frame]]:
    """Frames grouped by the grid that they share."""
    groups: list[list[Frame]] = []
    for frame in frames:
        grid = (*frame.orientation, *frame.spacing)
        for group in groups:
            first = group[0]
            if frame.shape == first.shape and np.allclose(
                grid, (*first.orientation, *first.spacing), rtol=0, atol=1e-3
            ):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _normal(frame: Frame) -> np.ndarray:
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def _doubled(frames: list[Frame], normal: np.ndarray) -> tuple[str, tuple[Frame, ...]]:
    """A message about slices at the same position, and two of them; empty if every position has one slice."""
    heights = [float(frame.position @ normal) for frame in frames]
    for k, place in enumerate(heights[1:], start=1):
        if place - heights[k - 1] < _SAME_PLACE:
            count = 1 + sum(abs(other - place) < _SAME_PLACE for other in heights[k:])
            text = f"expected one slice at each position but got {'two' if count == 2 else count} at {place:.2f} mm"
            return text, (frames[k - 1], frames[k])
    return "", ()


def _irregular(frames: list[Frame], normal: np.ndarray) -> tuple[str, tuple[Frame, ...]]:
    """A message about the slice spacing, and the slices it concerns; empty if one affine can state the spacing."""
    positions = np.array([frame.position for frame in frames])
    if len(frames) < 3:
        return "", ()
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(frames))[:, None] * step, axis=1)
    if off.max() <= max(_JITTER_MM, _JITTER_SHARE * float(np.linalg.norm(step))):
        return "", ()
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(gaps))
    counts = gaps / usual
    if np.abs(counts - np.rint(counts)).max() < 0.1 and counts.max() > 1.5:
        k = int(np.argmax(counts > 1.5))
        missing = int(np.rint(counts).sum()) - len(counts)
        low, high = (float(frame.position @ normal) for frame in frames[k : k + 2])
        text = f"expected slices every {usual:.2f} mm but got {missing} missing, the first between {low:.2f} and {high:.2f} mm"
        return text, (frames[k], frames[k + 1])
    return f"expected evenly spaced slices but got steps from {gaps.min():.2f} to {gaps.max():.2f} mm", ()


def _affine(frames: list[Frame]) -> np.ndarray:
    """(4, 4) voxel (column, row, slice) -> RAS mm. The step follows the slice positions, so that a gantry tilt shears the affine."""
    first, last = frames[0], frames[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]  # PixelSpacing[1]: distance between columns, along a row
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]  # PixelSpacing[0]: distance between rows, down a column
    step = last.position - first.position
    if abs(float(step @ _normal(first))) >= _SAME_PLACE:  # else all slices lie in one plane
        affine[:3, 2] = step / (len(frames) - 1)
    else:
        affine[:3, 2] = _normal(first) * (first.thickness or 1.0)
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine
