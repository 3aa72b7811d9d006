"""Reads DICOM CT: slices in order, one affine, HU.

Refused rather than guessed: slices twice at one place, gaps and uneven spacing (unless asked for), and slices whose
position, orientation, pixel spacing or rescale is not stated, also where there is only one.
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
"""How far a slice may lie from its place on the even grid: positions are often stored with one or two decimals."""


@dataclass(frozen=True, eq=False)
class Series:
    """A DICOM series, its headers read and its slices in order.

    Attributes:
        source: what was opened.
        headers: by file, without pixels.
        frames: slices along the normal; those at one place by number.
        affine: (4, 4) float64, voxel (column, row, slice) -> RAS mm, states the mean step.
        copies: files left out, since another file holds the same instance.
        doubled: what is wrong with slices at one place; empty if nothing is. No file names, which may be patients'.
        irregular: what is wrong with the slices' spacing; empty if one affine can state it. No file names either.
        suspects: the slices between which that is first seen; empty where nothing is.
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
    """Read the headers of a series of one direction and put its slices in order.

    Args:
        source: one series, from :func:`ct_cncl.transforms.series.find_scans`.
        check_hu: refuse values stated in other units.

    Raises:
        ScanError: damaged files, slices without a certain place or rescale, of several patients or of several grids.
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
    """Read the headers of a series and put its slices in order, those of each direction, size and pixel spacing by themselves.

    Raises:
        ScanError: as :func:`open_series`, but for several grids.
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
    series = open_series(source, check_hu=check_hu)
    if series.copies:
        raise ScanError(
            f"{series.copies[0]}: expected one slice at each position but got a second file of the same image; remove copies"
        )
    names = f" ({' and '.join(map(str, series.suspects))})" if series.suspects else ""
    if series.doubled:
        raise ScanError(f"{source.path}: {series.doubled}{names}; remove copies, or separate the phases of the series")
    if series.irregular and not allow_irregular:
        raise ScanError(
            f"{source.path}: {series.irregular}{names}; one affine cannot state that: add missing files, split the series or "
            "resample it, or pass allow_irregular=True to take the mean step"
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
        raise ScanError(f"{folder}: expected slices of one patient but got {len(patients)} PatientIDs in one series")


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], tuple[Path, ...]]:
    """Frames of every instance once, and the files that hold one again.

    Raises:
        ScanError: two different images call themselves the same instance.
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
                f"{frame.path}: expected every image to have a SOPInstanceUID of its own but {first.path.name} holds another "
                "image of the same one; export the series again"
            )
        copies.append(frame.path)
    return list(kept.values()), tuple(dict.fromkeys(copies))


def _words(frame: Frame) -> np.ndarray:
    return read_words(read_file(frame.path), frame)


def _alike(frames: list[Frame]) -> list[list[Frame]]:
    """Frames by the grid they share."""
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
    """What is wrong with slices at one place, and which they are; empty if each has its own."""
    heights = [float(frame.position @ normal) for frame in frames]
    for k, place in enumerate(heights[1:], start=1):
        if place - heights[k - 1] < _SAME_PLACE:
            count = 1 + sum(abs(other - place) < _SAME_PLACE for other in heights[k:])
            text = f"expected one slice at each position but got {'two' if count == 2 else count} at {place:.2f} mm"
            return text, (frames[k - 1], frames[k])
    return "", ()


def _irregular(frames: list[Frame], normal: np.ndarray) -> tuple[str, tuple[Frame, ...]]:
    """What is wrong with the slices' spacing, and between which; empty if one affine can state it."""
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
    """(4, 4) voxel (column, row, slice) -> RAS mm, from the positions themselves, so that a gantry tilt shears it."""
    first, last = frames[0], frames[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]  # PixelSpacing[1]: between columns, along a row
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]  # PixelSpacing[0]: between rows, down a column
    step = last.position - first.position
    if abs(float(step @ _normal(first))) >= _SAME_PLACE:  # else all lie in one plane, beside or upon each other
        affine[:3, 2] = step / (len(frames) - 1)
    else:
        affine[:3, 2] = _normal(first) * (first.thickness or 1.0)
    affine[:3, 3] = first.position
    return _LPS_TO_RAS @ affine
