"""A scan that has been read: HU, geometry, and what is needed to write it back in the same format.

Axes are those of the file: for NIfTI its three voxel axes, for DICOM x = column, y = row, z = slice. Affines map voxel
indices to RAS mm, whatever the file's own convention.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ct_cncl.transforms.series.acquisition import Acquisition

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_PARALLEL = 1e-4


class ScanError(ValueError):
    """A scan cannot be read or written correctly; the message is one line and names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


@dataclass(frozen=True)
class ScanSource:
    """One scan on disk, found but not yet read.

    Attributes:
        kind: "dicom", "nifti", "mha", "nrrd", "tiff" or "npy".
        path: the volume file; for DICOM the innermost folder that holds all files of the series, or the single file that was named.
        files: all files of the scan, sorted by name.
        name: file name for results, without suffix; unique among the sources of one folder if possible.
        suffix: ".nii" or ".nii.gz", the suffix of a result in NIfTI.
        relative: sub-folder of the searched folder in which the scan lies ("." at the top), for mirrored output trees.
        series_uid: DICOM SeriesInstanceUID, else empty. Must not be logged.
        part: number of the part, from 0, if a DICOM series was split.
        number: DICOM SeriesNumber; None if not stated.
    """

    kind: Literal["dicom", "nifti", "mha", "nrrd", "tiff", "npy"]
    path: Path
    files: tuple[Path, ...]
    name: str
    suffix: str = ".nii.gz"
    relative: str = "."
    series_uid: str = field(default="", repr=False)
    part: int = 0
    number: int | None = None

    @property
    def tag(self) -> str:
        """Twelve characters, plus the part of a split series, that identify a DICOM series without revealing its UID; else empty."""
        if self.kind != "dicom":
            return ""
        digest = hashlib.sha256(self.series_uid.encode()).hexdigest()[:12]
        return f"{digest}.{self.part}" if self.part else digest

    def __str__(self) -> str:
        """``path``, or ``path#tag`` for DICOM, which :func:`ct_cncl.transforms.series.read_scan` accepts."""
        return f"{self.path}#{self.tag}" if self.tag else str(self.path)


@dataclass(frozen=True, eq=False)
class NiftiStorage:
    """How a NIfTI file stores its voxels.

    Attributes:
        path: the file.
        header: nibabel header as on disk: dtype and byte order, scaling, qform and sform with their codes, units, extensions.
        shape: dimensions as stated in the file, including trailing ones; two for a 2-D image.
        affine: (4, 4) float64, voxel -> RAS mm.
    """

    path: Path
    header: Any
    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def slope_inter(self) -> tuple[float, float]:
        """(slope, inter) of HU = stored * slope + inter; (1, 0) if the header states no scaling (slope 0 or not finite)."""
        slope, inter = float(self.header["scl_slope"]), float(self.header["scl_inter"])
        return (slope, inter) if np.isfinite(slope) and slope != 0 else (1.0, 0.0)

    @property
    def spacing_stated(self) -> bool:
        """Whether the header states all three spacings; if it does not, nibabel assumes 1 mm."""
        sizes = np.abs(np.asarray(self.header["pixdim"][1:4], dtype=np.float64))
        return bool(self.header["sform_code"] > 0 or (np.isfinite(sizes).all() and (sizes > 0).all()))


@dataclass(frozen=True, eq=False)
class Frame:
    """One DICOM slice: its position, and how its stored values become HU.

    Attributes:
        path: the file.
        index: frame number within the file, from 0; None for a classic single-frame file.
        shape: (rows, columns).
        position: (3,) LPS mm, centre of the first voxel.
        orientation: (6,) LPS, unit vector along a row (x), then along a column (y).
        spacing: (between rows, between columns) in mm, the order of PixelSpacing.
        thickness: SliceThickness in mm; 0 if the file states none.
        slope: HU = stored * slope + intercept.
        intercept: HU.
        uid: SOPInstanceUID of the file. Must not be logged.
        number: InstanceNumber; 0 if the file states none.
    """

    path: Path
    index: int | None
    shape: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    thickness: float
    slope: float
    intercept: float
    uid: str = field(default="", repr=False)
    number: int = 0

    def __str__(self) -> str:
        return self.path.name if self.index is None else f"{self.path.name}, frame {self.index + 1}"


@dataclass(frozen=True, eq=False)
class GridStorage:
    """How a file without a NIfTI header stores its voxels.

    Attributes:
        affine: (4, 4) float64, voxel -> RAS mm.
        shape: (x, y, z).
        integral: whether every HU is a whole number.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    integral: bool


@dataclass(frozen=True, eq=False)
class DicomStorage(GridStorage):
    """How a DICOM series stores its voxels: x = column, y = row, z = slice. HU are whole if all slopes and intercepts are.

    Attributes:
        frames: one entry per slice, in the order of the volume's last axis.
    """

    frames: tuple[Frame, ...] = ()


Storage = NiftiStorage | GridStorage


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume in HU with its geometry.

    Attributes:
        hu: (x, y, z) float32 HU, axes as in the file; a 2-D image has z = 1.
        affine: (4, 4) float64, voxel -> RAS mm.
        source: the file, or the folder of a DICOM series.
        storage: what is needed to write NIfTI like the source.
        patient: DICOM PatientID; None if the file has none. Must not be logged.
        padding: padding value in HU, if the file states one for all slices; else None.
        padding_limit: the other end of the padding range in HU, if the file states a range; else None.
        irregular: whether slices are unevenly spaced, so that ``affine`` states their mean step (only with ``allow_irregular``).
        acquisition: acquisition parameters from DICOM headers; None for other formats.
    """

    hu: np.ndarray = field(repr=False)
    affine: np.ndarray
    source: Path
    storage: Storage = field(repr=False)
    patient: str | None = field(default=None, repr=False)
    padding: float | None = None
    padding_limit: float | None = None
    irregular: bool = False
    acquisition: Acquisition | None = None

    @property
    def spacing(self) -> np.ndarray:
        """(3,) float64: distance between neighbouring voxels along x, y, z in mm."""
        return voxel_spacing(self.affine)

    @property
    def padded(self) -> np.ndarray:
        """(x, y, z) bool: voxels that hold the stated padding; all False if the file states none."""
        if self.padding is None:
            return np.zeros(self.hu.shape, dtype=bool)
        ends = (self.padding, self.padding if self.padding_limit is None else self.padding_limit)
        return (self.hu >= np.float32(min(ends))) & (self.hu <= np.float32(max(ends)))


def voxel_spacing(affine: np.ndarray) -> np.ndarray:
    """Lengths of the three voxel axes in mm.

    >>> voxel_spacing(np.diag([-0.5, 0.5, 2.0, 1.0])).tolist()
    [0.5, 0.5, 2.0]
    """
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def check_affine(affine: np.ndarray, path: Path) -> np.ndarray:
    """Return the affine as (4, 4) float64 after checking that it is invertible.

    Raises:
        ScanError: the affine is not (4, 4), not finite, or singular.
    """
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ScanError(f"{path}: expected a finite (4, 4) affine but got {affine.tolist()}; correct the file's header")
    spacing = voxel_spacing(affine)
    if (spacing <= 0).any() or abs(np.linalg.det(affine[:3, :3] / spacing)) < _PARALLEL:
        raise ScanError(
            f"{path}: expected an invertible affine but got one that puts different voxels at the same place "
            f"(spacing {np.round(spacing, 4).tolist()} mm); correct the sform or qform"
        )
    return affine


def check_finite(hu: np.ndarray, path: Path) -> None:
    """Refuse NaN and infinite values.

    Args:
        hu: (x, y, z) HU.
        path: the file, for error messages.

    Raises:
        ScanError: a voxel is not finite; the message states how many are, and the index of the first.
    """
    first, count = None, 0
    for z in range(hu.shape[-1]):  # slice by slice, to avoid a mask of the whole volume
        bad = ~np.isfinite(hu[..., z])
        if bad.any():
            first = first or (*(int(i) for i in np.argwhere(bad)[0]), z)
            count += int(bad.sum())
    if count:
        raise ScanError(
            f"{path}: expected finite HU but got {count} NaN or infinite voxels, the first at index {first}; "
            "replace them (by -1024 HU outside the field of view) or convert the scan again"
        )


def check_looks_like_hu(hu: np.ndarray, path: Path) -> None:
    """Refuse values that cannot be the HU of a patient: without any value below 0 there would be neither air nor fat.

    Constant volumes pass.

    Raises:
        ScanError: no voxel is below 0.
    """
    low, high = float(hu.min()), float(hu.max())
    if low >= 0 and high > low:
        raise ScanError(
            f"{path}: expected HU but got values from {low:g} to {high:g}: looks like stored values without rescale "
            "(slope and intercept not applied); convert again with rescale, or pass check_hu=False if they are HU"
        )
