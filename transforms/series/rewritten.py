"""Writes a network's output for a whole scan as NIfTI, with the code that writes streamed results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ct_cncl.transforms.common.files import scratch_folder
from ct_cncl.transforms.series.derivation import KINDS
from ct_cncl.transforms.series.marks import marked
from ct_cncl.transforms.series.results import VolumeResults
from ct_cncl.transforms.series.scan import GridStorage, NiftiStorage, ScanError, ScanSource, Storage
from ct_cncl.transforms.series.slices import DicomSlices, Slices, VolumeSlices, open_slices
from ct_cncl.transforms.series.values import RESULT, keep_padding, with_strength
from ct_cncl.transforms.series.volume_file import VolumeFile, gzipped
from ct_cncl.transforms.series.write import (
    WriteReport,
    check_target,
    check_volume,
    dtype_name,
    header_bytes,
    new_output,
    output_header,
)


def write_result(
    hu: np.ndarray,
    path: Path,
    storage: Storage,
    scan: ScanSource,
    *,
    axis: int,
    strength: float = 1.0,
    dtype: Any = None,
    overwrite: bool = False,
) -> WriteReport:
    """Write a network's result for a scan.

    The scan is read again slice by slice, and its stored values are changed by the network's correction, so that voxels that the
    network leaves alone stay equal.

    Args:
        hu: (x, y, z) HU, axes as in the stored scan.
        path: .nii or .nii.gz; missing folders are created.
        storage: how the scan is stored; for NIfTI the header, dtype and scaling are kept, others are written as HU without scaling.
        scan: the scan.
        axis: the stored axis along which its slices lie.
        strength: the part of the network's correction that is applied.
        dtype: type on disk; None decides by ``storage``.
        overwrite: replace an existing file. The scan itself is never replaced.

    Raises:
        ScanError: the shapes differ, the HU are not finite, the file exists, the scan cannot be read again, or the file cannot be
            written.
    """
    check_target(path, storage, overwrite=overwrite)
    check_volume(hu, path, storage)
    header = output_header(hu, path, storage, None, dtype)
    as_source = isinstance(storage, NiftiStorage) and header == storage.header
    target = None if as_source else _unscaled(path, header, storage)
    with (
        new_output(path, overwrite=overwrite) as partial,
        scratch_folder(path.parent) as folder,
    ):
        scratch, made = folder / "scratch", folder / "made"
        scratch.mkdir()
        made.mkdir()
        slices = open_slices(scan, scratch, check_hu=False, axis=axis)
        writer = VolumeResults(slices, [KINDS[RESULT]], made, target=target)
        for number in range(slices.count):
            source = slices.read(number)
            block = np.take(hu, [slices.place(number)], axis=slices.order.axis)
            image = with_strength(source.hu, slices.order.apply(block)[..., 0], strength)
            writer.write(number, source, keep_padding({RESULT: image}, source.hu, source.padded))
        os.replace(writer.finish()[RESULT], partial)  # noqa: PTH105  as in new_output
    kept = NiftiStorage(path, header, hu.shape, np.eye(4)).slope_inter
    return WriteReport(path, dtype_name(header.get_data_dtype()), *kept, writer.clipped[RESULT].count, hu.size)


def nifti_target(slices: Slices, path: Path) -> VolumeFile | None:
    """The layout of a NIfTI file, in HU without scaling, for the slices of a scan; None if the scan itself is NIfTI.

    Args:
        slices: the opened scan.
        path: .nii or .nii.gz.

    Raises:
        ScanError: no single affine can state the positions of the slices.
    """
    if isinstance(slices, VolumeSlices):
        if slices.source.kind == "nifti":
            return None
        volume = slices.volume
        storage = GridStorage(volume.affine, volume.shape, volume.integral)
    else:
        assert isinstance(slices, DicomSlices)
        series = slices.series
        problem = series.doubled or series.irregular or ("several directions" if slices.directions > 1 else "")
        if problem:
            raise ScanError(
                f"{slices.source.path}: expected evenly spaced slices for NIfTI, which states one spacing, but got: {problem}; write "
                "DICOM instead, which states the position of every slice"
            )
        whole = all(float(frame.slope).is_integer() and float(frame.intercept).is_integer() for frame in series.frames)
        storage = GridStorage(series.affine, series.shape, whole)
    empty = np.broadcast_to(np.float32(0), storage.shape)
    return _unscaled(path, output_header(empty, path, storage, None, None), storage)


def _unscaled(path: Path, header: nib.Nifti1Header, storage: Storage) -> VolumeFile:
    """The file to be written if it is not stored like its source: HU with slope 1 and intercept 0."""
    x, y, z = (*storage.shape, 1, 1)[:3]
    return VolumeFile(
        path,
        path,
        len(header_bytes(header)),
        header.get_data_dtype(),
        (x, y, z),
        "F",
        1.0,
        0.0,
        storage.affine,
        lambda _dtype, _slope, _inter, mark: header_bytes(marked(header, mark)),
        gzipped if path.name.lower().endswith(".gz") else None,
    )
