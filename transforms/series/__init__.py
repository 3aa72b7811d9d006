"""Reads scans as volumes in HU with their geometry, whole or slice by slice, and writes results in the same file format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ct_cncl.transforms.common.temporary import temporary_folder
from ct_cncl.transforms.series.acquisition import Acquisition
from ct_cncl.transforms.series.archive_file import is_zip, unzip
from ct_cncl.transforms.series.dicom import read_dicom
from ct_cncl.transforms.series.find import find_scans, resolve
from ct_cncl.transforms.series.nifti import read_nifti
from ct_cncl.transforms.series.orientation import SliceOrder, from_slices, slice_axis, slices_last, to_slices
from ct_cncl.transforms.series.scan import (
    DicomStorage,
    Frame,
    GridStorage,
    NiftiStorage,
    Scan,
    ScanError,
    ScanSource,
    Storage,
    voxel_spacing,
)
from ct_cncl.transforms.series.volume_file import no_memory, read_volume
from ct_cncl.transforms.series.write import WriteReport, write_nifti

if TYPE_CHECKING:
    from ct_cncl.transforms.series.monai_io import LoadScand, SaveScand, scan_datalist
    from ct_cncl.transforms.series.monai_reader import ScanReader

__all__ = [
    "Acquisition",
    "DicomStorage",
    "Frame",
    "GridStorage",
    "LoadScand",
    "NiftiStorage",
    "SaveScand",
    "Scan",
    "ScanError",
    "ScanReader",
    "ScanSource",
    "SliceOrder",
    "Storage",
    "WriteReport",
    "find_scans",
    "from_slices",
    "read_scan",
    "scan_datalist",
    "slice_axis",
    "slices_last",
    "to_slices",
    "voxel_spacing",
    "write_nifti",
]


def read_scan(source: ScanSource | str | Path, *, check_hu: bool = True, allow_irregular: bool = False) -> Scan:
    """Read one scan as a volume in HU with its geometry.

    Args:
        source: from :func:`find_scans`, its text form, or a path that holds exactly one scan; a zip archive is unpacked
            temporarily.
        check_hu: refuse volumes that are not in HU, because no voxel is below 0 or the file states another unit.
        allow_irregular: accept DICOM series with gaps or uneven spacing; ``affine`` then states the mean step.

    Raises:
        ScanError: the volume, its HU or its geometry is uncertain; the message is one line.
    """
    if not isinstance(source, ScanSource) and is_zip(Path(source)):
        with temporary_folder() as folder:
            try:
                scan = read_scan(unzip(Path(source), folder), check_hu=check_hu, allow_irregular=allow_irregular)
            except ScanError as error:
                raise ScanError(str(error).replace(str(folder), str(source))) from error
            return replace(scan, source=Path(source))
    found = resolve(source)
    try:
        if found.kind == "nifti":
            return read_nifti(found.path, check_hu=check_hu)
        if found.kind != "dicom":
            return read_volume(found.kind, found.path, check_hu=check_hu)
        return read_dicom(found, check_hu=check_hu, allow_irregular=allow_irregular)
    except MemoryError as error:
        raise no_memory(found.path) from error


def __getattr__(name: str) -> Any:
    """Import a MONAI transform on first use: importing MONAI takes seconds."""
    if name in {"LoadScand", "SaveScand", "scan_datalist"}:
        from ct_cncl.transforms.series import monai_io

        return getattr(monai_io, name)
    if name == "ScanReader":
        from ct_cncl.transforms.series.monai_reader import ScanReader

        return ScanReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
